package timeline

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/plugcast/plugcast/domain"
)

// model is a partition, its archive and its run in memory: the second implementation with which
// the tracker has to agree.
type model struct {
	log      []domain.Event // all that was appended
	archived int            // how many of them are in the archive
	followed int            // how many of them the follower brought
	tracker  *tracker
	readers  []*reader
}

// reader is one subscription and the events that it got.
type reader struct {
	system domain.SystemID
	sub    *subscription
	start  domain.Cursor
	got    []domain.Event
	left   bool
}

// truth returns the sequence of a system, computed from the log alone.
func (m *model) truth(system domain.SystemID) []domain.Event {
	var list []domain.Event
	for _, e := range m.log {
		if e.SystemID == system {
			e.Seq = uint64(len(list) + 1)
			list = append(list, e)
		}
	}
	return list
}

// base returns the archive's answer for a system while n of the events are archived.
func (m *model) base(system domain.SystemID, n int) (upTo domain.Position, at domain.Cursor) {
	if n > 0 {
		upTo = m.log[n-1].Position
	}
	return upTo, count(domain.Cursor{}, system, m.log[:n])
}

// indexAfter returns the number of events at or before p.
func (m *model) indexAfter(p domain.Position) int {
	n := 0
	for n < len(m.log) && !m.log[n].Position.After(p) {
		n++
	}
	return n
}

func (m *model) follow(n int) {
	batch := m.log[m.followed : m.followed+n]
	m.followed += n
	for _, d := range m.tracker.advance(batch) {
		for _, sub := range d.subs {
			sub.fn(d.events, nil)
		}
	}
}

// subscribe does the work of Subscribe around the tracker, with an archive that was read when
// it had n events, and a log that is read page by page.
func (m *model) subscribe(t *rapid.T, system domain.SystemID, n int) {
	r := &reader{system: system}
	r.sub = &subscription{fn: func(events []domain.Event, _ error) { r.got = append(r.got, events...) }}
	upTo, at := m.base(system, n)
	for {
		start, ok := m.tracker.joinFrom(system, at, upTo, r.sub)
		if ok {
			r.start = start
			m.readers = append(m.readers, r)
			return
		}
		if !upTo.Before(m.tracker.need()) {
			t.Fatalf("joinFrom refuses %s, and needs %s", upTo, m.tracker.need())
		}
		from := m.indexAfter(upTo)
		page := m.log[from:min(from+3, len(m.log))]
		at = count(at, system, page)
		upTo = page[len(page)-1].Position
	}
}

func (m *model) check(t *rapid.T) {
	for i, r := range m.readers {
		all := m.truth(r.system)
		if n := r.start.Seq; n > uint64(len(all)) || n > 0 && all[n-1].Cursor() != r.start {
			t.Fatalf("reader %d of %s starts at %s", i, r.system, r.start)
		}
		want := all[r.start.Seq:]
		if !r.left {
			// All that the follower brought is due.
			due := 0
			for due < len(want) && m.indexAfter(want[due].Position) <= m.followed {
				due++
			}
			if due != len(r.got) {
				t.Fatalf("reader %d of %s got %d events after %s, want %d", i, r.system, len(r.got), r.start, due)
			}
		}
		for j, e := range r.got {
			if e.Cursor() != want[j].Cursor() || e.ID != want[j].ID {
				t.Fatalf("reader %d of %s: event %d is %s, want %s", i, r.system, j, e.Cursor(), want[j].Cursor())
			}
		}
	}
}

// In any order of appends, archiving, following and subscribing, no subscription loses an
// event, or gets one twice or out of order.
func TestHandover(t *testing.T) {
	t.Parallel()
	names := []domain.SystemID{"a", "b", "c", "d"}
	rapid.Check(t, func(t *rapid.T) {
		m := &model{}
		for i := range rapid.IntRange(0, 8).Draw(t, "events before") {
			m.log = append(m.log, modelEvent(i, rapid.SampledFrom(names).Draw(t, "system")))
		}
		m.archived = rapid.IntRange(0, len(m.log)).Draw(t, "archived before")
		m.followed = m.archived
		start, _ := m.base("", m.archived)
		m.tracker = newTracker(start, rapid.IntRange(0, 6).Draw(t, "window")*eventSize(&domain.Event{}))
		t.Repeat(map[string]func(*rapid.T){
			"append": func(t *rapid.T) {
				m.log = append(m.log, modelEvent(len(m.log), rapid.SampledFrom(names).Draw(t, "system")))
			},
			"archive": func(t *rapid.T) {
				m.archived += rapid.IntRange(0, len(m.log)-m.archived).Draw(t, "n")
			},
			"follow": func(t *rapid.T) {
				m.follow(rapid.IntRange(0, len(m.log)-m.followed).Draw(t, "n"))
			},
			"subscribe": func(t *rapid.T) {
				// The archive may have moved on since it was asked.
				seen := rapid.IntRange(max(0, m.archived-3), m.archived).Draw(t, "archive as of")
				m.subscribe(t, rapid.SampledFrom(names).Draw(t, "system"), seen)
			},
			"leave": func(t *rapid.T) {
				if len(m.readers) > 0 {
					r := rapid.SampledFrom(m.readers).Draw(t, "reader")
					m.tracker.leave(r.system, r.sub)
					r.left = true
				}
			},
			"": m.check,
		})
	})
}

// modelEvent returns an event. Positions share milliseconds, as real ones do.
func modelEvent(i int, system domain.SystemID) domain.Event {
	return domain.Event{
		ID: fmt.Sprint(i), SystemID: system,
		Position: domain.Position{Ms: uint64(1000 + i/3), N: uint64(i % 3)},
	}
}

func BenchmarkAdvance(b *testing.B) {
	for _, systems := range []int{1, 1000} {
		b.Run(fmt.Sprintf("systems=%d", systems), func(b *testing.B) {
			t := newTracker(domain.Position{}, DefaultWindow)
			for i := range systems {
				sub := &subscription{fn: func([]domain.Event, error) {}}
				t.joinFrom(domain.SystemID(fmt.Sprint("s", i)), domain.Cursor{}, domain.Position{}, sub)
			}
			batch := make([]domain.Event, 1000)
			n := 0
			b.ReportAllocs()
			for b.Loop() {
				for i := range batch {
					n++
					batch[i] = modelEvent(n, domain.SystemID(fmt.Sprint("s", i%systems)))
				}
				t.advance(batch)
			}
		})
	}
}
