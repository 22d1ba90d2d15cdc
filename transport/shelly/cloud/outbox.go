package cloud

import (
	"context"
	"log/slog"
	"sync"

	"github.com/google/uuid"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/shelly"
)

// outbox appends for an actor, in order, while the actor goes on. Device updates are
// given to it only when it is empty, so it holds one batch of them at most.
type outbox struct {
	events domain.Appender
	conn   shelly.Connection
	logger *slog.Logger

	mu    sync.Mutex
	queue []job
	busy  bool
	wake  chan struct{}
	idle  chan struct{} // gets a value when everything is appended
}

// job is a batch of updates, and then what the connection's state has become.
type job struct {
	updates []shelly.Update
	state   *domain.ConnectionStateChanged
}

func newOutbox(events domain.Appender, conn shelly.Connection, logger *slog.Logger) *outbox {
	return &outbox{events: events, conn: conn, logger: logger, wake: make(chan struct{}, 1), idle: make(chan struct{}, 1)}
}

// push adds a job. Of states that wait one after the other the last is kept: an
// outage of the log makes the list no longer.
func (o *outbox) push(j job) {
	o.mu.Lock()
	last := len(o.queue) - 1
	if last >= 0 && o.queue[last].state != nil && len(j.updates) == 0 {
		o.queue[last].state = j.state
	} else {
		o.queue = append(o.queue, j)
	}
	o.mu.Unlock()
	signal(o.wake)
}

// empty reports whether everything is appended.
func (o *outbox) empty() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return !o.busy && len(o.queue) == 0
}

// run appends until ctx ends, or the log refuses updates for good: then what it has
// is not what the devices believe that it has. said is the state that the log has.
func (o *outbox) run(ctx context.Context, said domain.ConnectionState) {
	for ctx.Err() == nil {
		j, ok := o.next()
		if !ok {
			signal(o.idle)
			select {
			case <-o.wake:
			case <-ctx.Done():
			}
			continue
		}
		if len(j.updates) > 0 {
			if err := shelly.Publish(ctx, o.events, o.conn, j.updates); err != nil && ctx.Err() == nil {
				o.logger.Error("updates are not appended", "updates", len(j.updates), "error", err)
				return
			}
		}
		if j.state != nil && j.state.State != said && say(ctx, o.events, o.conn, *j.state, o.logger) {
			said = j.state.State
		}
	}
}

func (o *outbox) next() (job, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.busy = len(o.queue) > 0
	if !o.busy {
		return job{}, false
	}
	j := o.queue[0]
	o.queue = append(o.queue[:0:0], o.queue[1:]...)
	return j, true
}

// say appends what a connection's state has become, again and again until it is
// safe or ctx ends. It reports whether it is: once, thanks to the key.
func say(ctx context.Context, log domain.Appender, c shelly.Connection, what domain.ConnectionStateChanged, logger *slog.Logger) bool {
	event, err := domain.NewEvent(c.System, what, domain.Cause{Actor: c.Actor()})
	if err != nil {
		logger.Error("a change of state is not appended", "error", err)
		return false
	}
	key := uuid.NewString()
	options := domain.AppendOptions{Idempotency: &domain.Idempotency{Scope: c.Actor(), Key: key, Fingerprint: key}}
	if _, err := domain.AppendUntilDone(ctx, log, []domain.Event{event}, options, nil); err != nil {
		if ctx.Err() == nil {
			logger.Error("a change of state is not appended", "state", what.State, "error", err)
		}
		return false
	}
	return true
}

// signal wakes whoever waits on the channel, which has room for one value.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
