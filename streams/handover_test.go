package streams

import (
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/plugcast/plugcast/domain"
)

// handoverModel is a partition, its reader and one consumer, in memory.
type handoverModel struct {
	log       []domain.Position                   // existing entries
	previous  map[domain.Position]domain.Position // for each entry, the one before it when it was appended
	clock     uint64                              // positions never go backwards
	last      domain.Position                     // assigned last by the partition
	reader    domain.Position                     // where the reader is
	seen      bool                                // the reader is at an entry that was there
	lost      bool                                // the partition was set back, and the reader has not noticed
	h         handover                            // of the consumer
	size      int                                 // bytes of a batch
	page      *modelPage                          // under way
	giving    []domain.Event                      // under way
	got       []domain.Position                   // by the consumer
	start     domain.Position                     // of the consumer
	ended     error                               // the consumer ended with it
	idlePages int                                 // empty pages without a rest, while nothing else happened
}

// modelPage is a page that was read and is not reported yet.
type modelPage struct {
	events []domain.Event
	last   domain.Position
}

var errModel = errors.New("rewound")

func (m *handoverModel) after(p domain.Position) []domain.Position {
	return m.log[countUpTo(m.log, p):]
}

func countUpTo(log []domain.Position, p domain.Position) int {
	n := 0
	for n < len(log) && !log[n].After(p) {
		n++
	}
	return n
}

func modelEvents(positions []domain.Position) []domain.Event {
	events := make([]domain.Event, len(positions))
	for i, p := range positions {
		events[i].Position = p
	}
	return events
}

func (m *handoverModel) append(n int) {
	m.idlePages = 0
	for range n {
		m.clock++
		p := domain.Position{Ms: m.clock}
		m.previous[p] = domain.Position{}
		if len(m.log) > 0 {
			m.previous[p] = m.log[len(m.log)-1]
		}
		m.log, m.last = append(m.log, p), p
	}
}

// read is what the reader does when it wakes: it goes on, or notices that it cannot, by
// the same signs as streamState.follows.
func (m *handoverModel) read(n int) {
	if m.lost && (m.reader.After(m.last) || m.seen && !slices.Contains(m.log, m.reader)) {
		m.cut()
		return
	}
	m.lost = false
	if next := m.after(m.reader); len(next) > 0 {
		b := batch{after: m.reader, events: modelEvents(next[:min(n, len(next))]), bytes: m.size}
		m.reader, m.seen = b.to(), true
		m.h.offer(b)
	}
}

func (m *handoverModel) cut() {
	m.lost, m.idlePages = false, 0
	m.begin()
	m.h.cut()
}

// begin makes the reader begin at the end of the partition.
func (m *handoverModel) begin() {
	m.reader, m.seen = m.last, slices.Contains(m.log, m.last)
}

// step is one thing that the consumer does, or the end of one.
func (m *handoverModel) step(pageSize int) {
	switch {
	case m.ended != nil:
	case m.giving != nil:
		m.h.delivered(m.giving)
		m.giving = nil
	case m.page != nil:
		p := m.page
		if m.page = nil; len(p.events) > 0 {
			m.give(p.events)
			return
		}
		if early := m.h.reachedEnd(p.last); !early && m.h.join(m.reader) {
			m.idlePages++
		} else {
			m.idlePages = 0
		}
	default:
		step, events := m.h.next()
		switch step {
		case stepDeliver:
			m.give(events)
		case stepRead:
			m.h.join(m.reader)
			m.readPage(pageSize)
		case stepWait:
		}
	}
}

func (m *handoverModel) give(events []domain.Event) {
	for i := range events {
		m.got = append(m.got, events[i].Position)
	}
	m.giving, m.idlePages = events, 0
}

// readPage does as Log.readPage.
func (m *handoverModel) readPage(n int) {
	if m.h.at.After(m.last) || m.h.seen && !slices.Contains(m.log, m.h.at) {
		m.ended = errModel
		return
	}
	next := m.after(m.h.at)
	m.page = &modelPage{events: modelEvents(next[:min(n, len(next))]), last: m.last}
}

// check holds what the consumer got against the log: each entry follows on the one
// before as it did when it was appended.
func (m *handoverModel) check(t *rapid.T) {
	for i, p := range m.got {
		before := m.start
		if i > 0 {
			before = m.got[i-1]
		}
		if m.previous[p] != before {
			t.Fatalf("%s was given after %s, and was appended after %s: %v", p, before, m.previous[p], m.got)
		}
	}
	if m.idlePages > 2 { // to join, and to close the gap
		t.Fatalf("%d empty pages in a row without a rest: %+v", m.idlePages, m.h)
	}
	waiting, bytes := 0, 0
	for _, b := range m.h.queue {
		waiting, bytes = waiting+len(b.events), bytes+b.bytes
	}
	if waiting != m.h.entries || bytes != m.h.bytes {
		t.Fatalf("%d entries of %d bytes wait, and %d of %d are counted", waiting, bytes, m.h.entries, m.h.bytes)
	}
	if len(m.h.queue) > 1 && (waiting > maxWaiting || bytes > maxWaitingBytes) {
		t.Fatalf("%d entries of %d bytes wait", waiting, bytes)
	}
}

// settle lets everything run to its end.
func (m *handoverModel) settle(t *rapid.T) {
	for range 10_000 {
		m.read(1000)
		m.step(1000)
		resting := m.h.live && len(m.h.queue) == 0 && !m.h.at.Before(m.h.from) && m.giving == nil && m.page == nil
		if m.ended != nil || resting && m.reader == m.last && !m.lost {
			return
		}
	}
	t.Fatalf("the consumer does not come to rest: %+v", m.h)
}

func newHandoverModel(t *rapid.T) *handoverModel {
	m := &handoverModel{previous: map[domain.Position]domain.Position{}}
	m.append(rapid.IntRange(0, 40).Draw(t, "events before"))
	m.begin()
	m.size = rapid.SampledFrom([]int{1, maxWaitingBytes / 3, 2 * maxWaitingBytes}).Draw(t, "bytes of a batch")
	if n := rapid.IntRange(0, len(m.log)).Draw(t, "start"); n > 0 {
		m.start = m.log[n-1]
	}
	m.h.at = m.start
	return m
}

func (m *handoverModel) actions() map[string]func(*rapid.T) {
	few := rapid.IntRange(1, 7)
	return map[string]func(*rapid.T){
		"append":            func(t *rapid.T) { m.append(few.Draw(t, "entries")) },
		"the reader reads":  func(t *rapid.T) { m.read(few.Draw(t, "at once")) },
		"the reader cuts":   func(*rapid.T) { m.cut() },
		"the consumer goes": func(t *rapid.T) { m.step(few.Draw(t, "page")) },
		"the reader sleeps": func(t *rapid.T) {
			for range 12 {
				m.step(few.Draw(t, "page"))
			}
		},
		"": m.check,
	}
}

// At any timing, a consumer gets every entry once and in order, and ends up on the
// reader's batches.
func TestHandoverLosesNothing(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		m := newHandoverModel(t)
		t.Repeat(m.actions())
		m.settle(t)
		m.check(t)
		if want := m.after(m.start); !slices.Equal(m.got, want) {
			t.Fatalf("got %v, want %v", m.got, want)
		}
		if !m.h.live {
			t.Fatal("the consumer reads on its own although it has everything")
		}
	})
}

// When the partition is set back, a consumer gets no entry of which it does not have the
// one before: it ends, or goes on where nothing that it had is gone. It knows that with
// the next entry at the latest.
func TestHandoverOverALoss(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		m := newHandoverModel(t)
		actions := m.actions()
		actions["set back"] = func(t *rapid.T) {
			if len(m.log) == 0 {
				t.Skip("nothing to lose")
			}
			m.log = m.log[:rapid.IntRange(0, len(m.log)).Draw(t, "left")]
			m.last, m.lost, m.idlePages = domain.Position{}, true, 0
			if len(m.log) > 0 {
				m.last = m.log[len(m.log)-1]
			}
			if m.start.After(m.last) {
				m.ended = errModel // an arbitrary start is not held against the log
			}
		}
		t.Repeat(actions)
		m.append(1)
		m.settle(t)
		m.check(t)
		if m.ended == nil && len(m.got) > 0 && m.got[len(m.got)-1] != m.last {
			t.Fatalf("got up to %s of %s", m.got[len(m.got)-1], m.last)
		}
	})
}
