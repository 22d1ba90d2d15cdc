package shelly

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
	RefusalsKept   = 10          // per connection
	warnEvery      = time.Minute // the same refusal of one device
	mostRemembered = 10_000      // connections, and log lines that are not repeated
)

// Refusals counts refused devices and keeps the last ones of each connection, for
// operators. It is safe for concurrent use, and its memory is bounded.
type Refusals struct {
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
	host       string // of a device without a name
}

// NewRefusals returns an empty Refusals that logs to logger.
func NewRefusals(logger *slog.Logger) *Refusals {
	return &Refusals{
		logger: logger, byReason: map[string]int64{}, last: map[domain.ConnectionRef][]domain.DeviceRefusal{},
		warned: map[refusedDevice]time.Time{},
	}
}

// Count counts a refusal.
func (r *Refusals) Count(reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.byReason[reason]++
}

// Counts returns the number of refusals since the start, by reason.
func (r *Refusals) Counts() map[string]int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make(map[string]int64, len(r.byReason))
	for reason, n := range r.byReason {
		out[reason] = n
	}
	return out
}

// Note keeps a refusal of a connection's device, and logs it unless the same refusal was
// logged in the last minute. The refusal of a device without a valid key has the zero
// connection: it is only logged.
func (r *Refusals) Note(c domain.ConnectionRef, refusal domain.DeviceRefusal) {
	if r.Keep(c, refusal) {
		r.logger.Warn("a device was refused", "system", c.System, "connection", c.ID, "device", refusal.DeviceID,
			"remote", refusal.Remote, "reason", refusal.Reason, "detail", refusal.Detail)
	}
}

// Keep keeps a refusal, and reports whether to log it: not when the same refusal was
// reported in the last minute.
func (r *Refusals) Keep(c domain.ConnectionRef, refusal domain.DeviceRefusal) (log bool) {
	now := time.Now()
	refusal.At = now.UTC().Truncate(time.Microsecond)
	key := refusedDevice{connection: c, reason: refusal.Reason, device: refusal.DeviceID}
	if key.device == "" {
		key.host = edge.Source(refusal.Remote)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if c != (domain.ConnectionRef{}) {
		if r.last[c] == nil && len(r.last) >= mostRemembered {
			clear(r.last)
		}
		list := append(r.last[c], refusal)
		r.last[c] = slices.Clone(list[max(len(list)-RefusalsKept, 0):])
	}
	if now.Sub(r.warned[key]) < warnEvery {
		return false
	}
	if len(r.warned) >= mostRemembered {
		clear(r.warned)
	}
	r.warned[key] = now
	return true
}

// LastRefusals returns this process's last refusals of a connection's devices, the newest
// first.
func (r *Refusals) LastRefusals(system domain.SystemID, id domain.ConnectionID) []domain.DeviceRefusal {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := slices.Clone(r.last[domain.ConnectionRef{System: system, ID: id}])
	slices.Reverse(list)
	return list
}
