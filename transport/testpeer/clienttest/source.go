package clienttest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/snapshot"
)

// ErrBroken is what failing calls return.
var ErrBroken = errors.New("clienttest: broken on purpose")

// Source is a second, naive [rooms.Source]: every event of every system in memory.
// Tests compare against it and let it fail in the ways in which the real one can. It is safe for concurrent use.
type Source struct {
	mu      sync.Mutex
	systems map[domain.SystemID]*sequence
	ms      uint64
	failing bool
	pages   int
	gate    chan struct{} // pages wait for it to be closed, if set
}

type sequence struct {
	feeding     sync.Mutex // held while subscribers are called, so that order holds
	events      []domain.Event
	subscribers map[*subscriber]struct{}
}

type subscriber struct {
	fn   func([]domain.Event, error)
	next int // index of the next event to give
}

// NewSource makes an empty source.
func NewSource() *Source {
	return &Source{systems: map[domain.SystemID]*sequence{}, ms: 1_795_461_046_705}
}

func (s *Source) system(id domain.SystemID) *sequence {
	q := s.systems[id]
	if q == nil {
		q = &sequence{subscribers: map[*subscriber]struct{}{}}
		s.systems[id] = q
	}
	return q
}

// Append adds events of a system. It returns them with their places.
func (s *Source) Append(system domain.SystemID, data ...domain.Data) []domain.Event {
	var events []domain.Event
	for _, d := range data {
		e, err := domain.NewEvent(system, d, domain.Cause{Actor: "test"})
		if err != nil {
			panic(err) // data of the test's own
		}
		events = append(events, e)
	}
	return s.Add(system, events...)
}

// Add adds events of a system and gives them to its subscribers before it returns them
// with their places. Those without id and time get both.
func (s *Source) Add(system domain.SystemID, events ...domain.Event) []domain.Event {
	s.mu.Lock()
	q := s.system(system)
	first := len(q.events)
	for _, e := range events {
		s.ms = max(s.ms+1, uint64(time.Now().UnixMilli())) // as a log does, whose clock may stand still
		e.Position = domain.Position{Ms: s.ms, N: s.ms % 3}
		e.Seq = uint64(len(q.events) + 1)
		if e.ID == "" {
			e.ID = fmt.Sprintf("event-%d", s.ms)
		}
		if e.Time.IsZero() {
			e.Time = time.Now().UTC().Truncate(time.Microsecond)
		}
		q.events = append(q.events, e)
	}
	added := q.events[first:]
	s.mu.Unlock()
	s.feed(q)
	return added
}

// feed gives every subscriber what it does not have.
func (s *Source) feed(q *sequence) {
	q.feeding.Lock()
	defer q.feeding.Unlock()
	s.mu.Lock()
	type call struct {
		fn     func([]domain.Event, error)
		events []domain.Event
	}
	var calls []call
	for sub := range q.subscribers {
		if sub.next < len(q.events) {
			calls = append(calls, call{sub.fn, q.events[sub.next:]})
			sub.next = len(q.events)
		}
	}
	s.mu.Unlock()
	for _, c := range calls {
		c.fn(c.events, nil)
	}
}

// Break ends all subscriptions of a system with an error.
func (s *Source) Break(system domain.SystemID) {
	s.mu.Lock()
	q := s.system(system)
	dead := q.subscribers
	q.subscribers = map[*subscriber]struct{}{}
	s.mu.Unlock()
	q.feeding.Lock()
	defer q.feeding.Unlock()
	for sub := range dead {
		sub.fn(nil, ErrBroken)
	}
}

// Forget cuts a system's sequence to its first n events, as a Redis that came
// back from an older copy does, and breaks its subscriptions. New events get
// later positions all the same.
func (s *Source) Forget(system domain.SystemID, n int) {
	s.mu.Lock()
	q := s.system(system)
	q.events = q.events[:n:n]
	s.mu.Unlock()
	s.Break(system)
}

// Recount makes the system begin with an event that was missed before, so that
// all seqs grow by one, and breaks its subscriptions.
func (s *Source) Recount(system domain.SystemID) {
	s.mu.Lock()
	q := s.system(system)
	missed := q.events[0]
	missed.Position, missed.ID = domain.Position{Ms: 1}, "missed"
	events := append([]domain.Event{missed}, q.events...)
	for i := range events {
		events[i].Seq = uint64(i + 1)
	}
	q.events = events
	s.mu.Unlock()
	s.Break(system)
}

// Fail makes all calls but Append fail, or lets them be.
func (s *Source) Fail(failing bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failing = failing
}

// HoldPages makes Page wait until release is called.
func (s *Source) HoldPages() (release func()) {
	gate := make(chan struct{})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gate = gate
	return sync.OnceFunc(func() { close(gate) })
}

// Pages returns how many pages were read.
func (s *Source) Pages() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pages
}

// Subscribers returns how many subscriptions a system has.
func (s *Source) Subscribers(system domain.SystemID) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.system(system).subscribers)
}

// Events returns a system's events.
func (s *Source) Events(system domain.SystemID) []domain.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]domain.Event(nil), s.system(system).events...)
}

func (s *Source) enter(ctx context.Context) error {
	if s.failing {
		return ErrBroken
	}
	return ctx.Err()
}

// Locate implements [rooms.Source].
func (s *Source) Locate(ctx context.Context, system domain.SystemID, after domain.Position) (at domain.Cursor, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.enter(ctx); err != nil {
		return at, err
	}
	events := s.system(system).events
	for i := range events {
		if events[i].Position.After(after) {
			return at, nil
		}
		at = events[i].Cursor()
	}
	if after.After(at.Position) {
		return domain.Cursor{}, fmt.Errorf("clienttest: locate: %w", domain.ErrAhead)
	}
	return at, nil
}

// Page implements [rooms.Source].
func (s *Source) Page(ctx context.Context, system domain.SystemID, after domain.Cursor, max int) ([]domain.Event, error) {
	s.mu.Lock()
	gate := s.gate
	s.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	s.pages++
	var page []domain.Event
	for _, e := range s.system(system).events {
		if e.Position.After(after.Position) && len(page) < max {
			page = append(page, e)
		}
	}
	if len(page) > 0 && page[0].Seq != after.Seq+1 {
		return nil, fmt.Errorf("clienttest: page: %w", domain.ErrGap)
	}
	return page, nil
}

// Subscribe implements [rooms.Source].
func (s *Source) Subscribe(ctx context.Context, system domain.SystemID, fn func([]domain.Event, error)) (domain.Cursor, func(), error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.enter(ctx); err != nil {
		return domain.Cursor{}, nil, err
	}
	q := s.system(system)
	sub := &subscriber{fn: fn, next: len(q.events)}
	q.subscribers[sub] = struct{}{}
	var start domain.Cursor
	if sub.next > 0 {
		start = q.events[sub.next-1].Cursor()
	}
	cancel := func() {
		s.mu.Lock()
		delete(q.subscribers, sub)
		s.mu.Unlock()
		q.feeding.Lock()
		//lint:ignore SA2001 from here on fn runs no more
		q.feeding.Unlock()
	}
	return start, cancel, nil
}

// Snapshot implements [rooms.Source].
func (s *Source) Snapshot(ctx context.Context, system domain.SystemID) (*snapshot.Snapshot, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	state, err := Fold(system, s.system(system).events)
	if err != nil {
		return nil, err
	}
	return snapshot.Of(state.Snapshot())
}

// Fold makes a state of events, which need not be numbered without holes.
func Fold(system domain.SystemID, events []domain.Event) (*domain.State, error) {
	state := domain.NewState(system)
	for _, e := range events {
		last := e.Seq
		e.Seq = 0
		if _, err := state.Apply(&e); err != nil {
			return nil, err
		}
		state.Cursor.Seq = last
	}
	return state, nil
}
