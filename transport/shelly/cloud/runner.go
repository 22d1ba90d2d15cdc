package cloud

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/domain/backoff"
	"github.com/plugcast/plugcast/domain/isolate"
	"github.com/plugcast/plugcast/transport/shelly"
)

// Runner has the cloud connections of the partitions that this process owns. All
// its methods may be called at any time from any goroutine.
type Runner struct {
	cfg   Config
	parts Parts
	http  *http.Client
	gates *gates

	mu      sync.Mutex // taken before an actor's, never after
	tenures map[int]*tenure
	keepers map[shelly.Connection]*keeper
	systems map[domain.SystemID]map[*keeper]struct{}
}

var _ shelly.Holder = (*Runner)(nil)

// tenure is the time in which a partition is ours.
type tenure struct {
	ctx    context.Context
	work   sync.WaitGroup
	loaded bool          // connections are started as they are heard of
	ended  chan struct{} // closed when nothing of it runs any more
}

// New makes a Runner. It does nothing until Run.
func New(cfg Config, parts Parts) (*Runner, error) {
	if parts.Store == nil || parts.Known == nil || parts.Events == nil || parts.Heartbeats == nil {
		return nil, errors.New("cloud: a store, what is known, the log and heartbeats are needed")
	}
	if parts.Logger == nil {
		parts.Logger = slog.New(slog.DiscardHandler)
	}
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	return &Runner{
		cfg: cfg, parts: parts, http: newHTTPClient(cfg.RequestTimeout), gates: newGates(cfg.RequestEvery),
		tenures: map[int]*tenure{}, keepers: map[shelly.Connection]*keeper{},
		systems: map[domain.SystemID]map[*keeper]struct{}{},
	}, nil
}

// Run holds the cloud connections of the partition until ctx ends, which says that
// the partition is ours no more. It returns when all of their sockets are closed. A
// second call for a partition waits for the first to return.
func (r *Runner) Run(ctx context.Context, partition int) {
	t := r.begin(ctx, partition)
	if t == nil {
		return
	}
	defer r.end(partition, t)
	if backoff.Sleep(ctx, r.cfg.TakeoverDelay) != nil {
		return
	}
	// What is heard from here on is acted on at once; what came before is in what
	// is read now.
	r.mu.Lock()
	t.loaded = true
	r.mu.Unlock()
	retry := newBackoff(r.cfg)
	for {
		connections, err := r.parts.Store.Connections(ctx, partition)
		if err == nil {
			for _, c := range connections {
				if c.Kind == domain.ConnectionShellyCloud {
					r.wake(partition, c.Connection, 0)
				}
			}
			break
		}
		if ctx.Err() == nil {
			r.parts.Logger.Error("the connections of a partition cannot be read", "partition", partition, "error", err)
		}
		if retry.Wait(ctx) != nil {
			return
		}
	}
	<-ctx.Done()
}

func (r *Runner) begin(ctx context.Context, partition int) *tenure {
	for {
		r.mu.Lock()
		before := r.tenures[partition]
		if before == nil {
			t := &tenure{ctx: ctx, ended: make(chan struct{})}
			r.tenures[partition] = t
			r.mu.Unlock()
			return t
		}
		r.mu.Unlock()
		select {
		case <-before.ended:
		case <-ctx.Done():
			return nil
		}
	}
}

func (r *Runner) end(partition int, t *tenure) {
	r.mu.Lock()
	t.loaded = false // nothing more begins
	r.mu.Unlock()
	t.work.Wait()
	r.mu.Lock()
	delete(r.tenures, partition)
	r.mu.Unlock()
	close(t.ended)
}

// Changed says that something of a connection was heard from the log: how is the
// event's type. The connection is read anew, and its actor started, stopped or
// started afresh, when the partition is ours. It does not block.
func (r *Runner) Changed(partition int, c shelly.Connection, how domain.EventType) {
	r.wake(partition, c, causeOf(how))
}

// wake has a connection looked at by its keeper, which is made if need be.
func (r *Runner) wake(partition int, c shelly.Connection, why cause) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.tenures[partition]
	if t == nil || !t.loaded || t.ctx.Err() != nil {
		return
	}
	k := r.keepers[c]
	if k == nil {
		k = newKeeper(r, c)
		r.keepers[c] = k
		if r.systems[c.System] == nil {
			r.systems[c.System] = map[*keeper]struct{}{}
		}
		r.systems[c.System][k] = struct{}{}
		t.work.Go(func() { isolate.Loop(t.ctx, k.logger, where, func() { k.run(t.ctx) }) })
	}
	k.woken |= why
	signal(k.wake)
}

// remove forgets a keeper that has nothing to keep, unless it was woken meanwhile.
func (r *Runner) remove(k *keeper, anyway bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !anyway && len(k.wake) > 0 {
		return false
	}
	delete(r.keepers, k.conn)
	delete(r.systems[k.conn.System], k)
	if len(r.systems[k.conn.System]) == 0 {
		delete(r.systems, k.conn.System)
	}
	return true
}

// Drop closes the connection's socket and returns how many there were: 0 or 1. What
// is known of the connection is read before another is opened.
func (r *Runner) Drop(c shelly.Connection) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	k := r.keepers[c]
	if k == nil {
		return 0
	}
	return k.drop()
}

// Switch implements [shelly.Holder]. A device that left one of the system's accounts
// and is on none of the others here is answered for: the command fails.
func (r *Runner) Switch(c shelly.SwitchCommand, report func(shelly.SwitchResult)) bool {
	best := r.best(c.DeviceRef)
	if best == nil {
		return false
	}
	best.request(request{c, report})
	return true
}

// Holds implements [shelly.Holder].
func (r *Runner) Holds(d shelly.DeviceRef) bool { return r.best(d) != nil }

// best is the actor that a device's commands are for, or nil.
func (r *Runner) best(d shelly.DeviceRef) (best *actor) {
	base, at := baseOf(d.Device), stranger
	r.mu.Lock()
	defer r.mu.Unlock()
	for k := range r.systems[d.System] {
		if a := k.actor; a != nil {
			switch stands := a.standingOf(base); {
			case stands == onAccount:
				best, at = a, onAccount
			case stands != stranger && at != onAccount:
				best, at = a, stands
			}
		}
	}
	return best
}

// Correct implements [shelly.Holder].
func (r *Runner) Correct(base shelly.DeviceRef, rows []*domain.Device) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for k := range r.systems[base.System] {
		if a := k.actor; a != nil && a.standingOf(base.Device) != stranger {
			select {
			case a.corrected <- correction{base.Device, rows}:
			default:
			}
		}
	}
}

// Stats counts the connections by what their sockets do. Those that are stopped do
// not count.
func (r *Runner) Stats() map[domain.ConnectionState]int {
	counts := map[domain.ConnectionState]int{}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, k := range r.keepers {
		if k.actor != nil {
			counts[k.actor.state()]++
		}
	}
	return counts
}

// retryWait is the first wait of a keeper that cannot read what it needs.
const retryWait = 200 * time.Millisecond
