package timeline

import (
	"context"
	"log/slog"
	"sync"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/domain/isolate"
)

// partition is one partition of the log, which is followed while a system in it has
// subscriptions.
type partition struct {
	timeline *Timeline
	number   int

	mu     sync.Mutex
	run    *run // nil without subscriptions
	closed bool
}

// run is one period of following a partition: from the first subscription until the last one
// leaves or the log cannot be followed any more.
//
// Lock order: delivering, then partition.mu. The functions of subscriptions are called with
// delivering held, and without partition.mu.
type run struct {
	partition  *partition
	tracker    *tracker // guarded by partition.mu
	stop       context.CancelFunc
	delivering sync.Mutex
}

// subscription is one caller of Subscribe.
type subscription struct {
	fn   func([]domain.Event, error)
	done bool // fn must not be called again; guarded by run.delivering
}

// call calls the subscription's function. If it panics, the other subscriptions are not
// affected, and this one is not called again, because it may have missed events.
func (s *subscription) call(logger *slog.Logger, events []domain.Event, err error) {
	if !isolate.Do(logger, "timeline", func() { s.fn(events, err) }) {
		s.done = true
	}
}

// start starts a run at a position. The caller holds p.mu.
func (p *partition) start(at domain.Position) *run {
	ctx, cancel := context.WithCancel(p.timeline.closing)
	r := &run{partition: p, tracker: newTracker(at, p.timeline.config.Window), stop: cancel}
	p.run = r
	p.timeline.compare()
	p.timeline.working.Go(func() {
		defer cancel()
		err := isolate.Run(p.timeline.logger, "timeline", func() error {
			return p.timeline.log.Follow(ctx, p.number, at, func(events []domain.Event) error {
				r.deliver(events)
				return nil
			})
		})
		if p.timeline.closing.Err() != nil {
			err = ErrClosed
		}
		r.fail(err)
	})
	return r
}

// close prevents new runs.
func (p *partition) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
}

func (r *run) deliver(events []domain.Event) {
	r.delivering.Lock()
	defer r.delivering.Unlock()
	for _, d := range r.advance(events) {
		for _, sub := range d.subs {
			if !sub.done {
				sub.call(r.partition.timeline.logger, d.events, nil)
			}
		}
	}
}

func (r *run) advance(events []domain.Event) []delivery {
	r.partition.mu.Lock()
	defer r.partition.mu.Unlock()
	return r.tracker.advance(events)
}

// fail ends the run and all of its subscriptions, which get the error.
func (r *run) fail(err error) {
	r.delivering.Lock()
	defer r.delivering.Unlock()
	p := r.partition
	p.mu.Lock()
	if p.run == r {
		p.run = nil
	}
	systems := r.tracker.systems
	r.tracker.systems = map[domain.SystemID]*tracked{}
	p.mu.Unlock()
	if len(systems) > 0 && p.timeline.closing.Err() == nil {
		p.timeline.logger.Warn("cannot follow the log without a gap; its subscriptions end and start again",
			"partition", p.number, "systems", len(systems), "error", err)
	}
	for _, s := range systems {
		notify(p.timeline.logger, s.subs, err)
	}
}

// drop ends the subscriptions of one system that were given a wrong cursor.
func (r *run) drop(system domain.SystemID, wrong domain.Cursor, err error) {
	r.delivering.Lock()
	defer r.delivering.Unlock()
	r.partition.mu.Lock()
	s := r.tracker.systems[system]
	found := s != nil && s.sample == wrong // else they have ended already
	if found {
		delete(r.tracker.systems, system)
		r.release()
	}
	r.partition.mu.Unlock()
	if found {
		notify(r.partition.timeline.logger, s.subs, err)
	}
}

// notify passes the final error to subscriptions. The caller holds run.delivering.
func notify(logger *slog.Logger, subs []*subscription, err error) {
	for _, sub := range subs {
		if !sub.done {
			sub.done = true
			sub.call(logger, nil, err)
		}
	}
}

// release stops a run without subscriptions. The caller holds partition.mu.
func (r *run) release() {
	if len(r.tracker.systems) == 0 && r.partition.run == r {
		r.partition.run = nil
		r.stop()
	}
}

// leave ends a subscription. When it returns, the subscription's function is not running and
// will not be called again.
func (r *run) leave(system domain.SystemID, sub *subscription) {
	r.partition.mu.Lock()
	r.tracker.leave(system, sub)
	r.release()
	r.partition.mu.Unlock()
	r.delivering.Lock()
	sub.done = true
	r.delivering.Unlock()
}
