package rooms

import (
	"cmp"
	"slices"

	"github.com/plugcast/plugcast/domain"
)

// Stats are the figures of a [Hub] at one moment.
type Stats struct {
	Rooms         int
	Subscriptions int
	PendingPages  int    // pages of history whose read has not begun
	Deliveries    uint64 // events given to sinks since the hub was made
	// Systems are the open rooms with the most deliveries, descending.
	Systems []SystemStats
	// Latency is the time from an event's append to its delivery to a sink, for readers
	// that keep up with the tail. Readers that read history do not count.
	Latency Histogram
}

// SystemStats are the figures of one room.
type SystemStats struct {
	SystemID      domain.SystemID
	Subscriptions int
	Deliveries    uint64 // since the room was opened
}

// Stats returns the current figures, with the top systems by deliveries.
func (h *Hub) Stats(top int) Stats {
	s := Stats{Deliveries: h.deliveries.Load(), Latency: h.latency.snapshot(), PendingPages: h.pool.waiting()}
	h.mu.Lock()
	s.Rooms = len(h.rooms)
	s.Systems = make([]SystemStats, 0, len(h.rooms))
	for system, r := range h.rooms {
		s.Subscriptions += r.members
		s.Systems = append(s.Systems, SystemStats{SystemID: system, Subscriptions: r.members, Deliveries: r.deliveries.Load()})
	}
	h.mu.Unlock()
	slices.SortFunc(s.Systems, func(a, b SystemStats) int {
		return cmp.Or(cmp.Compare(b.Deliveries, a.Deliveries), cmp.Compare(a.SystemID, b.SystemID))
	})
	if len(s.Systems) > top {
		s.Systems = slices.Clip(s.Systems[:top])
	}
	return s
}
