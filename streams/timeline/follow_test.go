package timeline_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/streams/timeline"
)

// memorySequence is the sequence of one system, among others, in memory.
type memorySequence struct {
	mu     sync.Mutex
	events []domain.Event
	subs   map[int]func([]domain.Event, error)
	next   int
	pages  int
	broken error // of Subscribe
}

func newMemorySequence() *memorySequence {
	return &memorySequence{subs: map[int]func([]domain.Event, error){}}
}

func (m *memorySequence) head() (at domain.Cursor) {
	if n := len(m.events); n > 0 {
		at = m.events[n-1].Cursor()
	}
	return at
}

// append appends n events and delivers them to the subscriptions.
func (m *memorySequence) append(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	at := m.head()
	batch := make([]domain.Event, n)
	for i := range batch {
		at = domain.Cursor{Position: domain.Position{Ms: at.Position.Ms + 1 + rand.Uint64N(3)}, Seq: at.Seq + 1}
		batch[i] = domain.Event{Position: at.Position, Seq: at.Seq}
	}
	m.events = append(m.events, batch...)
	for _, fn := range m.subs {
		fn(batch, nil)
	}
}

// fail ends all subscriptions.
func (m *memorySequence) fail() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, fn := range m.subs {
		delete(m.subs, id)
		fn(nil, errors.New("the log cannot be followed without a gap"))
	}
}

func (m *memorySequence) Locate(_ context.Context, _ domain.SystemID, after domain.Position) (at domain.Cursor, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if after.After(m.head().Position) {
		return at, domain.ErrAhead
	}
	for i := range m.events {
		if m.events[i].Position.After(after) {
			break
		}
		at = m.events[i].Cursor()
	}
	return at, nil
}

func (m *memorySequence) Page(_ context.Context, _ domain.SystemID, after domain.Cursor, most int) ([]domain.Event, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pages++
	page := m.events[after.Seq:]
	return page[:min(len(page), most)], nil
}

func (m *memorySequence) Subscribe(_ context.Context, _ domain.SystemID, fn func([]domain.Event, error)) (domain.Cursor, func(), error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.broken != nil {
		return domain.Cursor{}, nil, m.broken
	}
	id := m.next
	m.next++
	m.subs[id] = fn
	return m.head(), func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.subs, id)
	}, nil
}

var errEnough = errors.New("enough")

// Follow passes on every event after the position once and in order: those that exist, those
// that are appended, and those around the end of a subscription.
func TestFollowGivesEveryEvent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for range 20 {
			m := newMemorySequence()
			m.append(rand.N(3 * timeline.FollowBatch))
			from, _ := m.Locate(t.Context(), "", domain.Position{Ms: rand.Uint64N(m.head().Position.Ms + 1)})
			after := domain.Position{Ms: from.Position.Ms} // need not be that of an event
			if from.Position.Before(m.head().Position) {
				after.N = 7
			}
			const buffer = 256 // of events that wait for a slow reader
			const more = 6 * buffer
			last := uint64(len(m.events) + more)
			var writing sync.WaitGroup
			writing.Go(func() {
				for written := 0; written < more; {
					n := min(1+rand.N(buffer+100), more-written)
					written += n
					m.append(n)
					if rand.N(4) == 0 {
						m.fail()
					}
					time.Sleep(rand.N(5 * time.Millisecond)) // of a bubble
				}
			})
			got := from.Seq
			err := timeline.Follow(t.Context(), m, "clinica-sol", after, func(events []domain.Event, behind uint64) error {
				for i := range events {
					if events[i].Seq != got+1 {
						t.Fatalf("seq %d after %d", events[i].Seq, got)
					}
					got++
					time.Sleep(rand.N(50 * time.Microsecond))
				}
				if len(events) == 0 || len(events) > timeline.FollowBatch || got+behind > last {
					t.Fatalf("a batch of %d, %d behind it, up to %d of %d", len(events), behind, got, last)
				}
				if got == last {
					return errEnough
				}
				return nil
			})
			writing.Wait()
			if err != errEnough || len(m.subs) > 0 {
				t.Fatalf("%v; %d subscriptions are left", err, len(m.subs))
			}
		}
	})
}

// Follow returns the error of its function, of its context, and of a failed read.
func TestFollowEnds(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		after  domain.Position
		broken error
		hole   bool
		fn     func(cancel context.CancelCauseFunc) error
		want   error
	}{
		"its function's error":     {fn: func(context.CancelCauseFunc) error { return errEnough }, want: errEnough},
		"the cause of its context": {fn: func(cancel context.CancelCauseFunc) error { cancel(errEnough); return nil }, want: errEnough},
		"no subscription":          {broken: errEnough, want: errEnough},
		"a position ahead":         {after: domain.Position{Ms: 1 << 40}, want: domain.ErrAhead},
		"an event is missing":      {hole: true, want: domain.ErrGap},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMemorySequence()
			m.append(3)
			m.broken = c.broken
			if c.hole {
				m.events[2].Seq++
			}
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			err := timeline.Follow(ctx, m, "clinica-sol", c.after, func(events []domain.Event, _ uint64) error {
				if c.hole { // goes on, to the hole
					return nil
				}
				return c.fn(cancel)
			})
			if !errors.Is(err, c.want) || len(m.subs) > 0 {
				t.Errorf("%v; %d subscriptions are left", err, len(m.subs))
			}
		})
	}
}

// After the end of a subscription, Follow fails if the events that the function took are not
// those of the sequence any more.
func TestFollowNoticesAnotherPast(t *testing.T) {
	t.Parallel()
	wrong := domain.Event{Position: domain.Position{Ms: 101}, Seq: 3}
	right := wrong
	right.Seq = 4
	for name, c := range map[string]struct {
		given  []domain.Event // to the subscription, after the first two events
		stored []domain.Event // after the first two events, when it is made again
		want   error
	}{
		"the subscription missed an event": {
			given:  []domain.Event{wrong},
			stored: []domain.Event{{Position: domain.Position{Ms: 100}, Seq: 3}, right},
			want:   domain.ErrGap,
		},
		"the log was set back and has grown again": {
			given:  []domain.Event{wrong},
			stored: []domain.Event{{Position: domain.Position{Ms: 200}, Seq: 3}},
			want:   domain.ErrAhead,
		},
		"the log was set back and has not grown": {
			given: []domain.Event{wrong},
			want:  domain.ErrAhead,
		},
		"nothing has changed": {
			given:  []domain.Event{wrong},
			stored: []domain.Event{wrong, {Position: domain.Position{Ms: 102}, Seq: 4}},
			want:   errEnough,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				m := newMemorySequence()
				m.append(2)
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				ended := make(chan error, 1)
				var last domain.Cursor
				go func() {
					ended <- timeline.Follow(ctx, m, "clinica-sol", domain.Position{}, func(events []domain.Event, _ uint64) error {
						last = events[len(events)-1].Cursor()
						if last.Seq == 4 {
							return errEnough
						}
						return nil
					})
				}()
				synctest.Wait() // it has the first two
				m.mu.Lock()
				for _, fn := range m.subs {
					fn(c.given, nil)
				}
				m.events = append(m.events, c.stored...)
				m.mu.Unlock()
				synctest.Wait() // it has what was given
				m.fail()
				if err := <-ended; !errors.Is(err, c.want) {
					t.Errorf("it ended at %s with %v, want %v", last, err, c.want)
				}
			})
		})
	}
}

// A page without new events ends Follow, because the next page would be the same.
func TestFollowEndsWithoutProgress(t *testing.T) {
	t.Parallel()
	m := newMemorySequence()
	m.append(3)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	err := timeline.Follow(ctx, lost{m}, "clinica-sol", m.events[2].Position, func([]domain.Event, uint64) error { return nil })
	if !errors.Is(err, domain.ErrGap) {
		t.Errorf("it ended with %v", err)
	}
}

// lost is a sequence that cannot locate any position.
type lost struct{ *memorySequence }

func (lost) Locate(context.Context, domain.SystemID, domain.Position) (domain.Cursor, error) {
	return domain.Cursor{}, nil
}
