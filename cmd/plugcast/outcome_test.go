package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/plugcast/plugcast/domain"
)

// memorySequence is a sequence in memory, of one system among others.
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

// append appends n events and gives them to the subscriptions.
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

// Follow gives every event after the position once and in order, whatever was
// there before, comes at once or breaks off.
func TestFollowGivesEveryEvent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for range 20 {
			m := newMemorySequence()
			m.append(rand.N(3 * outcomePage))
			from, _ := m.Locate(t.Context(), "", domain.Position{Ms: rand.Uint64N(m.head().Position.Ms + 1)})
			after := domain.Position{Ms: from.Position.Ms, N: 7} // need not be that of an event
			const more = 6 * outcomeBuffer
			last := uint64(len(m.events) + more)
			var writing sync.WaitGroup
			writing.Go(func() {
				for written := 0; written < more; {
					n := min(1+rand.N(outcomeBuffer+100), more-written)
					written += n
					m.append(n)
					if rand.N(4) == 0 {
						m.fail()
					}
					time.Sleep(rand.N(5 * time.Millisecond)) // of a bubble
				}
			})
			got := from.Seq
			err := newOutcomes(m).Follow(t.Context(), "clinica-sol", after, func(e *domain.Event) bool {
				if e.Seq != got+1 {
					t.Fatalf("seq %d after %d", e.Seq, got)
				}
				got = e.Seq
				time.Sleep(rand.N(50 * time.Microsecond))
				return got == last
			})
			writing.Wait()
			if err != nil || len(m.subs) > 0 {
				t.Fatalf("%v; %d subscriptions are left", err, len(m.subs))
			}
		}
	})
}

func TestFollowEnds(t *testing.T) {
	t.Parallel()
	m := newMemorySequence()
	ctx, cancel := context.WithCancel(t.Context())
	m.append(1)
	err := newOutcomes(m).Follow(ctx, "clinica-sol", domain.Position{}, func(*domain.Event) bool { cancel(); return false })
	if !errors.Is(err, context.Canceled) || len(m.subs) > 0 {
		t.Errorf("%v; %d subscriptions are left", err, len(m.subs))
	}
	m.broken = errors.New("away")
	if err := newOutcomes(m).Follow(t.Context(), "clinica-sol", domain.Position{}, nil); !errors.Is(err, m.broken) {
		t.Errorf("%v", err)
	}
	full := newOutcomes(newMemorySequence())
	for range outcomesAtOnce {
		full.waiting <- struct{}{}
	}
	if err := full.Follow(t.Context(), "clinica-sol", domain.Position{}, nil); err == nil {
		t.Error("one more than the most may follow")
	}
}
