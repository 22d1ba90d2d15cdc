package projections

import (
	"context"
	"sync"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/domain/backoff"
	"github.com/plugcast/plugcast/domain/isolate"
)

// progress knows how far partitions are archived, and wakes who waits for that.
//
// A projector in this process says at once what it wrote. For those elsewhere
// the table of checkpoints is asked, for all waiters together and only while
// there are any: after 1 ms, then less and less often. LISTEN would answer
// sooner than the slower of these polls, but NOTIFY takes a lock over the whole
// database at commit, which would line up the owners of all partitions behind
// each other's fsync.
type progress struct {
	ask func(context.Context) (map[int]domain.Position, error)

	mu      sync.Mutex
	reached map[int]domain.Position
	waiters map[*waiter]struct{}
	closed  bool
	stop    context.CancelFunc // of the poll that runs, or nil
	polls   sync.WaitGroup
}

// waiter wants a partition to be archived up to a position.
type waiter struct {
	partition int
	at        domain.Position
	done      chan error // gets nil when it is, or why nobody knows
}

const (
	firstPoll = time.Millisecond
	lastPoll  = 25 * time.Millisecond
)

func newProgress(ask func(context.Context) (map[int]domain.Position, error)) *progress {
	return &progress{ask: ask, reached: map[int]domain.Position{}, waiters: map[*waiter]struct{}{}}
}

// note says that a partition is archived up to a position.
func (p *progress) note(partition int, at domain.Position) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !at.After(p.reached[partition]) {
		return
	}
	p.reached[partition] = at
	for w := range p.waiters {
		if w.partition == partition && !w.at.After(at) {
			p.release(w, nil)
		}
	}
}

// release answers a waiter. The lock is held.
func (p *progress) release(w *waiter, err error) {
	w.done <- err
	delete(p.waiters, w)
}

// wait returns once the partition is archived up to the position.
func (p *progress) wait(ctx context.Context, partition int, at domain.Position) error {
	w := &waiter{partition: partition, at: at, done: make(chan error, 1)}
	p.mu.Lock()
	switch {
	case p.closed:
		p.mu.Unlock()
		return errClosed
	case !at.After(p.reached[partition]):
		p.mu.Unlock()
		return nil
	}
	p.waiters[w] = struct{}{}
	if p.stop == nil {
		var polling context.Context
		polling, p.stop = context.WithCancel(context.Background()) // it serves others too
		p.polls.Go(func() { isolate.Loop(polling, nil, "projections", func() { p.poll(polling) }) })
	}
	p.mu.Unlock()
	select {
	case err := <-w.done:
		return err
	case <-ctx.Done():
		p.mu.Lock()
		delete(p.waiters, w)
		p.mu.Unlock()
		return ctx.Err()
	}
}

// poll asks until nobody waits any more.
func (p *progress) poll(ctx context.Context) {
	pause, known := backoff.Backoff{First: firstPoll, Max: lastPoll}, 0
	for {
		reached, err := p.ask(ctx)
		for partition, at := range reached {
			p.note(partition, at)
		}
		p.mu.Lock()
		if err != nil {
			for w := range p.waiters {
				p.release(w, err)
			}
		}
		if len(p.waiters) == 0 {
			p.stop()
			p.stop = nil
			p.mu.Unlock()
			return
		}
		if len(p.waiters) > known {
			pause.Reset() // somebody came
		}
		known = len(p.waiters)
		p.mu.Unlock()
		_ = pause.Wait(ctx) // only close ends a poll from outside; ask fails now and releases all
	}
}

// close fails those who wait, and ends.
func (p *progress) close() {
	p.mu.Lock()
	p.closed = true
	for w := range p.waiters {
		p.release(w, errClosed)
	}
	if p.stop != nil {
		p.stop()
	}
	p.mu.Unlock()
	p.polls.Wait()
}
