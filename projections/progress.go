package projections

import (
	"context"
	"sync"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/domain/backoff"
	"github.com/plugcast/plugcast/domain/isolate"
)

// progress knows how far partitions are archived, and wakes the callers that wait for a
// position.
//
// A projector of this process reports each write at once. For projectors of other processes it
// queries the table of checkpoints, once for all waiters and only while there are waiters:
// after 1 ms, and then at growing intervals. LISTEN would answer sooner than the slower of
// these polls. But NOTIFY takes a lock on the whole database at commit, so that the owners of
// all partitions would wait for each other's fsync.
type progress struct {
	query func(context.Context) (map[int]domain.Position, error)

	mu      sync.Mutex
	reached map[int]domain.Position
	waiters map[*waiter]struct{}
	closed  bool
	stop    context.CancelFunc // ends the running poll; nil without one
	polls   sync.WaitGroup
}

// waiter is a call that waits until a partition is archived up to a position.
type waiter struct {
	partition int
	at        domain.Position
	done      chan error // gets nil once it is, or the error of the query
}

const (
	firstPoll = time.Millisecond
	lastPoll  = 25 * time.Millisecond
)

func newProgress(query func(context.Context) (map[int]domain.Position, error)) *progress {
	return &progress{query: query, reached: map[int]domain.Position{}, waiters: map[*waiter]struct{}{}}
}

// note records that a partition is archived up to a position.
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

// release ends a wait. The caller holds p.mu.
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
		polling, p.stop = context.WithCancel(context.Background()) // not ctx: the poll serves other waiters too
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

// poll queries the checkpoints until there are no waiters.
func (p *progress) poll(ctx context.Context) {
	pause, known := backoff.Backoff{First: firstPoll, Max: lastPoll}, 0
	for {
		reached, err := p.query(ctx)
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
			pause.Reset() // there is a new waiter
		}
		known = len(p.waiters)
		p.mu.Unlock()
		_ = pause.Wait(ctx) // ctx ends only with close; the next query then fails and releases all waiters
	}
}

// close fails all waits and ends the poll.
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
