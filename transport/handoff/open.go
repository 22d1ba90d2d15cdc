package handoff

import (
	"context"
	"sync"
)

// Open counts what a server has open: its sockets, from before their upgrade until
// they and their connections are gone. The zero Open lets everybody in. It is safe
// for concurrent use.
type Open struct {
	mu      sync.Mutex
	closing bool
	count   sync.WaitGroup
}

// Enter counts one in, unless Close was called. Who entered has to Leave.
func (o *Open) Enter() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closing {
		return false
	}
	o.count.Add(1)
	return true
}

// Also counts one more in, even after Close. The caller is counted itself, so that
// nobody has stopped waiting.
func (o *Open) Also() { o.count.Add(1) }

// Leave counts one out.
func (o *Open) Leave() { o.count.Done() }

// Go runs f in a goroutine that is counted as by Also.
func (o *Open) Go(f func()) { o.count.Go(f) }

// Close lets nobody in any more.
func (o *Open) Close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closing = true
}

// Closing reports whether Close was called. If it returns false after the
// caller listed an item, a later Shutdown finds that item on its list.
func (o *Open) Closing() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.closing
}

// Drain waits, after Close, until all have left. When ctx ends before that it calls
// cut, which makes those leave who are left, and returns ctx's error once they have.
func (o *Open) Drain(ctx context.Context, cut func()) error {
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
