package handoff

import (
	"context"
	"sync"
)

// Group counts what a server has open: its sockets, from before their upgrade until they
// and their connections are gone. It is a WaitGroup that can be closed for new members. The
// zero Group is open. It is safe for concurrent use.
type Group struct {
	mu      sync.Mutex
	closing bool
	count   sync.WaitGroup
}

// Enter counts the caller in, unless the group is closed. Every successful Enter must be
// paired with a Leave.
func (o *Group) Enter() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closing {
		return false
	}
	o.count.Add(1)
	return true
}

// AddMember counts one more member, even after Close. The caller must be a member itself, so that
// Drain is still waiting.
func (o *Group) AddMember() { o.count.Add(1) }

// Leave counts a member out.
func (o *Group) Leave() { o.count.Done() }

// Go runs f in a goroutine that is a member, even after Close. The caller must be a member
// itself.
func (o *Group) Go(f func()) { o.count.Go(f) }

// Close closes the group: from now on, Enter returns false.
func (o *Group) Close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closing = true
}

// Closing reports whether Close was called. If it returns false after the caller listed an
// item, a later Shutdown is guaranteed to find that item on its list.
func (o *Group) Closing() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.closing
}

// Drain waits, after Close, until all members have left. If ctx ends first, it calls cut,
// which must make the remaining members leave, and returns ctx's error when they have.
func (o *Group) Drain(ctx context.Context, cut func()) error {
	gone := make(chan struct{})
	go func() {
		o.count.Wait()
		close(gone)
	}()
	select {
	case <-gone:
		return nil
	case <-ctx.Done():
		cut()
		<-gone
		return ctx.Err()
	}
}
