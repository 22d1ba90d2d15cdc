package rooms

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/domain/backoff"
	"github.com/plugcast/plugcast/domain/isolate"
)

// room is a system with members in this process. Its goroutine keeps it subscribed to the
// source.
type room struct {
	hub    *Hub
	system domain.SystemID
	cancel context.CancelFunc // ends the goroutine

	opened     chan struct{} // closed when the first subscription to the source succeeded, or failed with err
	err        error
	deliveries atomic.Uint64

	// Guarded by the hub's lock.
	members int
	linger  *time.Timer

	mu      sync.Mutex
	core    *core // nil until opened
	current *upstream
	reads   map[readKey]*read
	spare   []step // for the next batch of events
}

// upstream is a subscription to the source. It tells calls of the current subscription
// from late calls of a dead one.
type upstream struct {
	died     chan error // buffered, for one error
	attached bool
	early    []*Encoded // events that came before the start was known
}

// run keeps the room subscribed until ctx ends. If the first subscription fails, it gives
// the room up, and waiting members get the error. A panic counts as a failure, so that the
// members of a room that cannot open do not wait for ever.
func (r *room) run(ctx context.Context) {
	pause := r.hub.newBackoff()
	for {
		began := time.Now()
		err := isolate.Run(r.hub.logger, where, func() error { return r.follow(ctx) })
		if ctx.Err() != nil || r.hub.giveUp(r, err) {
			return
		}
		pause.ResetIfStable(time.Since(began))
		delay := pause.Next()
		r.hub.logger.Warn("rooms: a subscription ended; will subscribe again", "system", r.system, "after", delay, "error", err)
		if backoff.Sleep(ctx, delay) != nil {
			return
		}
	}
}

// follow subscribes, and returns when the subscription is dead or ctx has ended.
func (r *room) follow(ctx context.Context) error {
	s := &upstream{died: make(chan error, 1)}
	r.mu.Lock()
	r.current = s
	r.mu.Unlock()

	start, cancel, err := r.hub.source.Subscribe(ctx, r.system, func(events []domain.Event, err error) { r.feed(s, events, err) })
	if err != nil {
		return err
	}
	defer cancel()
	defer r.detach()
	r.attach(s, start)
	select {
	case <-ctx.Done():
		return ctx.Err()
	case err := <-s.died:
		return err
	}
}

// detach makes the room ignore the current subscription.
func (r *room) detach() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.current = nil
}

// attach starts to use a new subscription.
func (r *room) attach(s *upstream, start domain.Cursor) {
	first, steps, err := r.takeIntoUse(s, start)
	if err != nil {
		s.die(err)
	}
	if first {
		close(r.opened)
	}
	r.performAll(steps)
}

func (r *room) takeIntoUse(s *upstream, start domain.Cursor) (first bool, steps []step, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	steps = r.takeSpare()
	first = r.core == nil
	if first {
		r.core = newCore(start, r.hub.config.TailBytes, r.hub.config.FrameBytes)
	} else {
		steps = r.core.reset(start, steps)
	}
	s.attached = true
	if len(s.early) > 0 {
		steps, err = r.core.append(s.early, steps)
		s.early = nil
	}
	r.fetch(steps)
	return first, steps, err
}

// feed receives events from a subscription, in the goroutine of the log's reader. A panic
// ends the subscription, and the room subscribes again.
func (r *room) feed(s *upstream, events []domain.Event, err error) {
	var steps []step
	failed := isolate.Run(r.hub.logger, where, func() (ended error) {
		steps, ended = r.take(s, encodeAll(events), err)
		return ended
	})
	if failed != nil {
		s.die(failed)
	}
	r.performAll(steps)
}

// take adds events to the room. If it returns an error, the subscription is dead.
func (r *room) take(s *upstream, encoded []*Encoded, err error) ([]step, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.current != s {
		return nil, nil
	}
	steps := r.takeSpare()
	switch {
	case len(encoded) == 0:
	case !s.attached:
		s.early = append(s.early, encoded...)
	default:
		var gap error
		if steps, gap = r.core.append(encoded, steps); gap != nil && err == nil {
			err = gap
		}
		r.fetch(steps)
	}
	return steps, err
}

func (s *upstream) die(err error) {
	select {
	case s.died <- err:
	default:
	}
}

// takeSpare and performAll reuse one list of steps for all batches of events. The caller of
// takeSpare holds the room's lock.
func (r *room) takeSpare() []step {
	steps := r.spare
	r.spare = nil
	return steps[:0]
}

func (r *room) performAll(steps []step) {
	r.perform(steps)
	const maxSpare = 1024 // readers; larger lists are rare, and not worth keeping
	if cap(steps) == 0 || cap(steps) > maxSpare {
		return
	}
	clear(steps)
	r.mu.Lock()
	r.spare = steps
	r.mu.Unlock()
}

// perform performs the steps, except fetches. No lock is held.
func (r *room) perform(steps []step) {
	if len(steps) == 0 {
		return
	}
	now := time.Now()
	events := 0
	for i := range steps {
		s := &steps[i]
		if s.kind == deliver {
			events += s.frame.Events
			if !s.frame.appended.IsZero() {
				r.hub.latency.observe(now.Sub(s.frame.appended), s.frame.Events)
			}
		}
		r.hand(s)
	}
	r.deliveries.Add(uint64(events))
	r.hub.deliveries.Add(uint64(events))
}

// where names this package in the log lines of recovered panics.
const where = "rooms"

// hand performs a step with its sink. A sink that panics does not affect the other readers
// of the room.
func (r *room) hand(s *step) {
	defer func() {
		if value := recover(); value != nil {
			isolate.Recovered(r.hub.logger, where, value)
			r.broken(s.reader.subscription.sink)
		}
	}()
	switch {
	case s.kind == deliver && s.frame.Bytes == nil:
		r.hub.logger.Error("rooms: cannot encode a frame", "system", r.system)
		r.broken(s.reader.subscription.sink)
	case s.kind == deliver:
		s.reader.subscription.sink.Deliver(s.frame)
	case s.kind == restart:
		s.reader.subscription.sink.Restarted(s.from)
	}
}

func (r *room) broken(sink Sink) {
	if b, can := sink.(PanicHandler); can {
		isolate.Do(r.hub.logger, where, b.Panicked)
	}
}

func (r *room) remove(reader *reader) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.core.remove(reader)
}
