package reactions

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/plugcast/plugcast/domain"
)

const wantedType = domain.TypeDisconnectRequested

// model is a partition's log in memory, and what was done with its events.
type model struct {
	t      *testing.T
	rand   *rand.Rand
	q      *queues
	now    time.Time
	log    []domain.Event
	heard  int                          // entries that were given to hear
	want   map[domain.SystemID][]string // ids in order
	got    map[domain.SystemID][]string
	turns  []job // under way
	doomed map[string]int
}

func newModel(t *testing.T, seed uint64, limits Limits) *model {
	react := func(context.Context, domain.Event) error { return nil }
	m := &model{
		t: t, rand: rand.New(rand.NewPCG(seed, 1)), now: time.Unix(1, 0), want: map[domain.SystemID][]string{},
		got: map[domain.SystemID][]string{}, doomed: map[string]int{},
	}
	m.q = newQueues(limits.withDefaults(), map[domain.EventType]Reaction{wantedType: react})
	m.q.begin(0, domain.Position{})
	return m
}

func (m *model) append(system domain.SystemID, kind domain.EventType) {
	n := len(m.log) + 1
	e := domain.Event{
		ID: fmt.Sprint(n), SystemID: system, Type: kind, Position: domain.Position{Ms: uint64(1 + n/3), N: uint64(n % 3)},
		Data: make([]byte, m.rand.IntN(200)),
	}
	m.log = append(m.log, e)
	if kind == wantedType {
		m.want[system] = append(m.want[system], e.ID)
		if m.rand.IntN(10) == 0 {
			m.doomed[e.ID] = 1 + m.rand.IntN(8) // fails so often, or is given up before
		}
	}
}

func (m *model) hear(n int) {
	n = min(n, len(m.log)-m.heard)
	m.q.hear(0, m.log[m.heard:m.heard+n])
	m.heard += n
}

// read is a page of the log, which may have more than was heard. Only an empty page says
// that there is no more: the log ends pages at a number of bytes too.
func (m *model) read(after domain.Position, limit int) []domain.Event {
	from := 0
	for from < len(m.log) && !m.log[from].Position.After(after) {
		from++
	}
	return m.log[from:min(len(m.log), from+1+m.rand.IntN(limit))]
}

// end ends one of the turns under way.
func (m *model) end(i int) {
	j := m.turns[i]
	m.turns = slices.Delete(m.turns, i, i+1)
	if j.event == nil {
		if m.rand.IntN(8) == 0 {
			m.q.unread(j, m.now)
			return
		}
		const limit = 7
		page := m.read(j.after, limit)
		next, ok := m.q.refilled(j, page)
		if !ok {
			return
		}
		j = next
	}
	id, system := j.event.ID, j.event.SystemID
	if m.doomed[id] > 0 {
		m.doomed[id]--
		if m.q.failed(j, m.now) {
			return
		}
	}
	m.got[system] = append(m.got[system], id)
	m.q.done(j, m.rand.IntN(10) == 0)
}

func (m *model) check() {
	events, failing, quick, failingQuick := 0, 0, 0, 0
	for system, one := range m.q.systems {
		size := 0
		for i := range one.events {
			size += sizeOf(&one.events[i])
		}
		if size != one.bytes || len(one.events) > m.q.limits.QueueEvents {
			m.t.Fatalf("%s has %d events and %d bytes, counted as %d", system, len(one.events), size, one.bytes)
		}
		events += size
	}
	for _, j := range m.turns {
		if j.queue.troubled {
			failing++
		}
		if j.queue.quick != nil {
			quick++
			if j.queue.troubled {
				failingQuick++
			}
		}
	}
	limits := m.q.limits
	if events != m.q.bytes || failing != m.q.failingRunning || failing > limits.Most/2 || len(m.turns) != m.q.running || m.q.running > limits.Most {
		m.t.Fatalf("%d bytes, counted as %d; %d of %d turns are of failing systems, counted as %d of %d", events, m.q.bytes,
			failing, len(m.turns), m.q.failingRunning, m.q.running)
	}
	if quick != m.q.quick.Len() || quick > limits.Workers || failingQuick != m.q.failingQuick || failingQuick > limits.Workers/2 {
		m.t.Fatalf("%d turns are young, %d of failing systems, counted as %d and %d", quick, failingQuick, m.q.quick.Len(), m.q.failingQuick)
	}
	if most := limits.TotalBytes + limits.Most*(200+512); m.q.bytes > most {
		m.t.Fatalf("%d bytes are held", m.q.bytes)
	}
}

// Whatever happens in whatever order, each wanted event of a system gets its turn,
// once, in order, within the bounds of memory; and nothing is left in the end.
func TestQueuesAgainstModel(t *testing.T) {
	t.Parallel()
	for seed := range uint64(400) {
		m := newModel(t, seed, Limits{Workers: 2, Most: 6, QueueEvents: 3, QueueBytes: 2000, TotalBytes: 4000, Tries: 4})
		for range 600 {
			switch m.rand.IntN(5) {
			case 0:
				kind := wantedType
				if m.rand.IntN(3) == 0 {
					kind = domain.TypeDeviceUpdate
				}
				m.append(domain.SystemID(fmt.Sprint("s", m.rand.IntN(6)*m.rand.IntN(2))), kind)
			case 1:
				m.hear(m.rand.IntN(5))
			case 2:
				if j, ok := m.q.next(m.now); ok {
					m.turns = append(m.turns, j)
				}
			case 3:
				if len(m.turns) > 0 {
					m.end(m.rand.IntN(len(m.turns)))
				}
			case 4:
				m.now = m.now.Add(time.Duration(m.rand.IntN(200)) * time.Millisecond)
			}
			m.check()
		}
		for len(m.turns) > 0 {
			m.end(0)
		}
		for m.hear(len(m.log)); len(m.q.systems) > 0; m.check() {
			if j, ok := m.q.next(m.now); ok {
				m.turns = append(m.turns, j)
				m.end(m.rand.IntN(len(m.turns)))
			} else if len(m.turns) > 0 {
				m.end(0)
			} else {
				m.now = m.now.Add(time.Second)
			}
		}
		for system, want := range m.want {
			if got := m.got[system]; !slices.Equal(got, want) {
				t.Fatalf("seed %d: %s had the turns %v, want %v", seed, system, got, want)
			}
		}
		if m.q.bytes != 0 || m.q.healthy.Len()+m.q.failing.Len()+len(m.q.paused) != 0 {
			t.Fatalf("seed %d: something is left", seed)
		}
	}
}

// A system with very many events delays another by its turns under way at most.
func TestTurnsAreFair(t *testing.T) {
	t.Parallel()
	m := newModel(t, 1, Limits{Workers: 2, QueueBytes: 100 << 20, QueueEvents: 20_000, TotalBytes: 100 << 20})
	for range 10_000 {
		m.append("busy", wantedType)
	}
	clear(m.doomed)
	m.hear(len(m.log))
	first, _ := m.q.next(m.now)
	m.turns = append(m.turns, first)
	m.append("quiet", wantedType)
	clear(m.doomed)
	m.hear(1)
	j, ok := m.q.next(m.now)
	if !ok || j.queue.system != "quiet" {
		t.Errorf("the second turn is of %+v: a system has more than one at a time, or the other waits", j.queue)
	}
	m.end(0)
	if j, ok := m.q.next(m.now); !ok || j.queue.system != "busy" {
		t.Error("the busy system has no turn")
	}
}
