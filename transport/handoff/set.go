package handoff

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/plugcast/plugcast/domain/backoff"
	"github.com/plugcast/plugcast/domain/isolate"
)

// Set is a [Group] that also lists items, such as sockets. The zero Set is empty. It is
// safe for concurrent use.
type Set[T comparable] struct {
	Group
	mu   sync.Mutex
	list map[T]struct{}
}

// Add lists an item, and reports whether the set is closing. In that case Shutdown may have
// read the list already, and the caller may have to end the item itself.
func (s *Set[T]) Add(one T) (closing bool) {
	s.mu.Lock()
	if s.list == nil {
		s.list = map[T]struct{}{}
	}
	s.list[one] = struct{}{}
	s.mu.Unlock()
	return s.Closing()
}

// Remove removes an item from the list, if it is there.
func (s *Set[T]) Remove(one T) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.list, one)
}

// Len returns the number of listed items.
func (s *Set[T]) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.list)
}

// All returns all listed items.
func (s *Set[T]) All() []T {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]T, 0, len(s.list))
	for one := range s.list {
		all = append(all, one)
	}
	return all
}

// Select returns the listed items for which f returns true. f runs under the set's lock.
func (s *Set[T]) Select(f func(T) bool) []T {
	s.mu.Lock()
	defer s.mu.Unlock()
	var selected []T
	for one := range s.list {
		if f(one) {
			selected = append(selected, one)
		}
	}
	return selected
}

// Shutdown closes the set, calls end for each listed item, and waits until all members have
// left. If ctx ends first, it calls cut for each remaining item, and returns ctx's error when
// the members have left.
func (s *Set[T]) Shutdown(ctx context.Context, end, cut func(T)) error {
	return Shutdown(ctx, &s.Group, s.All, end, func() {
		for _, one := range s.All() {
			cut(one)
		}
	})
}

// Shutdown is like [Set.Shutdown], for a server with a list of its own. It calls cut once.
func Shutdown[T any](ctx context.Context, open *Group, all func() []T, end func(T), cut func()) error {
	open.Close()
	for _, one := range all() {
		end(one)
	}
	return open.Drain(ctx, cut)
}

// Clock calls Tick for the items of a server that are due. One goroutine for all items costs
// less than a timer for each.
type Clock[T any] struct {
	Every    time.Duration
	Due      func(now time.Time) []T
	Tick     func(item T, now time.Time)
	Panicked func(T) // called for an item whose Tick panicked
	Where    string  // names the server in the log lines of recovered panics
	Logger   *slog.Logger
}

// Run runs the clock until ctx ends, and then returns nil.
func (c *Clock[T]) Run(ctx context.Context) error {
	isolate.Loop(ctx, c.Logger, c.Where, func() { backoff.Every(ctx, c.Every, c.tick) })
	return nil
}

func (c *Clock[T]) tick(now time.Time) {
	for _, item := range c.Due(now) {
		if !isolate.Do(c.Logger, c.Where, func() { c.Tick(item, now) }) {
			c.Panicked(item)
		}
	}
}
