package cloud

import (
	"context"
	"log/slog"
	"sync"

	"github.com/google/uuid"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/shelly"
)

// outbox appends a session's events in order while the session goes on.
type outbox struct {
	events domain.Appender
	conn   domain.ConnectionRef
	logger *slog.Logger
	logged domain.ConnectionState // the state that the log has

	mu      sync.Mutex
	queue   []batch
	waiting int // updates in the queue
	wake    chan struct{}
	room    chan struct{} // gets a value when the outbox may be no longer full
}

// batch is updates, and the state of the connection after them.
type batch struct {
	updates []shelly.Update
	state   *domain.ConnectionStateChanged // nil when it has not changed
}

// maxWaiting is the number of updates with which an outbox is full.
const maxWaiting = 64

func newOutbox(events domain.Appender, conn domain.ConnectionRef, logged domain.ConnectionState, logger *slog.Logger) *outbox {
	return &outbox{
		events: events, conn: conn, logger: logger, logged: logged, wake: make(chan struct{}, 1), room: make(chan struct{}, 1),
	}
}

// push has updates appended, and then a change of state unless it is nil. A state
// replaces one that waits directly before it, so an outage of the log leaves few. push
// takes updates also when the outbox is full, so that a snapshot stays together.
func (o *outbox) push(updates []shelly.Update, state *domain.ConnectionStateChanged) {
	if len(updates) == 0 && state == nil {
		return
	}
	o.mu.Lock()
	last := len(o.queue) - 1
	if last < 0 || len(updates) > 0 && o.queue[last].state != nil {
		o.queue = append(o.queue, batch{})
		last++
	}
	b := &o.queue[last]
	b.updates = append(b.updates, updates...)
	o.waiting += len(updates)
	if state != nil {
		b.state = state
	}
	o.mu.Unlock()
	signal(o.wake)
}

// full reports whether the log is behind.
func (o *outbox) full() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.waiting >= maxWaiting
}

// run appends until ctx ends, or until the log refuses updates for good. After that
// the log differs from the devices' state here.
func (o *outbox) run(ctx context.Context) {
	for ctx.Err() == nil {
		b, ok := o.take()
		if !ok {
			select {
			case <-o.wake:
			case <-ctx.Done():
			}
			continue
		}
		if err := shelly.Publish(ctx, o.events, o.conn, b.updates); err != nil {
			if ctx.Err() == nil {
				o.logger.Error("updates are not appended", "updates", len(b.updates), "error", err)
			}
			return
		}
		if b.state != nil && b.state.State != o.logged && appendState(ctx, o.events, o.conn, *b.state, o.logger) {
			o.logged = b.state.State
		}
	}
}

func (o *outbox) take() (b batch, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.queue) == 0 {
		return batch{}, false
	}
	b, o.queue = o.queue[0], o.queue[1:]
	o.waiting -= len(b.updates)
	signal(o.room)
	return b, true
}

// appendState appends a change of the connection's state and reports whether the log
// has it. It repeats the append until ctx ends; the idempotency key makes it one event.
func appendState(
	ctx context.Context, log domain.Appender, c domain.ConnectionRef, change domain.ConnectionStateChanged, logger *slog.Logger,
) bool {
	event, err := domain.NewEvent(c.System, change, domain.Cause{Actor: c.Actor()})
	if err == nil {
		key := uuid.NewString()
		options := domain.AppendOptions{Idempotency: &domain.Idempotency{Scope: c.Actor(), Key: key, Fingerprint: key}}
		_, err = domain.AppendUntilDone(ctx, log, []domain.Event{event}, options, nil)
	}
	if err != nil && ctx.Err() == nil {
		logger.Error("a change of state is not appended", "state", change.State, "error", err)
	}
	return err == nil
}

// signal puts a value into a channel with room for one, unless it has one.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
