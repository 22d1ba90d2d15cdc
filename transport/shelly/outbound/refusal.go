package outbound

import (
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/edge"
)

// Bounds of the refusals that are kept and logged.
const (
	refusalsKept = 10          // per connection
	warnEvery    = time.Minute // the same refusal of one device
)

// refusals counts refused devices and keeps the last ones of each connection. It is
// safe for concurrent use, and its memory is bounded.
type refusals struct {
	logger *slog.Logger

	mu       sync.Mutex
	byReason map[string]int64
	last     map[domain.ConnectionRef][]domain.DeviceRefusal // the newest last
	warned   map[refusedDevice]time.Time
}

// refusedDevice is the key by which repeated log lines are suppressed.
type refusedDevice struct {
	connection domain.ConnectionRef
	reason     string
	device     domain.DeviceID
	host       string // of a device that did not say its name
}

func newRefusals(logger *slog.Logger) *refusals {
	return &refusals{
		logger: logger, byReason: map[string]int64{}, last: map[domain.ConnectionRef][]domain.DeviceRefusal{}, warned: map[refusedDevice]time.Time{},
	}
}

func (r *refusals) count(reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.byReason[reason]++
}

func (r *refusals) counts() map[string]int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make(map[string]int64, len(r.byReason))
	for reason, n := range r.byReason {
		out[reason] = n
	}
	return out
}

// note keeps a refusal of a device that has the key of a connection, and logs it
// unless it just was. A device without a key has no connection: it is logged alone.
func (r *refusals) note(c domain.ConnectionRef, refusal domain.DeviceRefusal) {
	now := time.Now()
	refusal.At = now.UTC().Truncate(time.Microsecond)
	if r.keep(c, refusal, now) {
		r.logger.Warn("outbound: a device was refused", "system", c.System, "connection", c.ID, "device", refusal.DeviceID,
			"remote", refusal.Remote, "reason", refusal.Reason, "detail", refusal.Detail)
	}
}

// keep keeps a refusal and reports whether it is to be logged.
func (r *refusals) keep(c domain.ConnectionRef, refusal domain.DeviceRefusal, now time.Time) (log bool) {
	who := refusedDevice{connection: c, reason: refusal.Reason, device: refusal.DeviceID}
	if who.device == "" {
		who.host = edge.Source(refusal.Remote)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if c != (domain.ConnectionRef{}) {
		if r.last[c] == nil && len(r.last) >= mostRemembered {
			clear(r.last)
		}
		list := append(r.last[c], refusal)
		r.last[c] = slices.Clone(list[max(len(list)-refusalsKept, 0):])
	}
	if now.Sub(r.warned[who]) < warnEvery {
		return false
	}
	if len(r.warned) >= mostRemembered {
		clear(r.warned)
	}
	r.warned[who] = now
	return true
}

// of returns the last refusals on a connection, the newest first.
func (r *refusals) of(c domain.ConnectionRef) []domain.DeviceRefusal {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := slices.Clone(r.last[c])
	slices.Reverse(list)
	return list
}
