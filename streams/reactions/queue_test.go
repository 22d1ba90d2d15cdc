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

// model is a partition's log in memory, and the results of its events.
type model struct {
	t      *testing.T
	rand   *rand.Rand
	q      *queues
	now    time.Time
	log    []domain.Event
	added  int                          // entries that were passed to add
	want   map[domain.SystemID][]string // ids in order
	got    map[domain.SystemID][]string
	jobs   []job // under way
	doomed map[string]int
}

func newModel(t *testing.T, seed uint64, limits Limits) *model {
	react := func(context.Context, domain.Event) error { return nil }
	m := &model{
		t: t, rand: rand.New(rand.NewPCG(seed, 1)), now: time.Unix(1, 0), want: map[domain.SystemID][]string{},
		got: map[domain.SystemID][]string{}, doomed: map[string]int{},
	}
	m.q = newQueues(limits.withDefaults(), map[domain.EventType]domain.Reaction{wantedType: react})
	m.q.startAt(0, domain.Position{})
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

func (m *model) add(n int) {
	n = min(n, len(m.log)-m.added)
	m.q.add(0, m.log[m.added:m.added+n])
	m.added += n
}

// read returns a page of the log, which may go beyond the added events. Only an empty page
// means that there is no more, because the log also ends pages at a number of bytes.
func (m *model) read(after domain.Position, limit int) []domain.Event {
	from := 0
	for from < len(m.log) && !m.log[from].Position.After(after) {
		from++
	}
	return m.log[from:min(len(m.log), from+1+m.rand.IntN(limit))]
}

// end ends one of the jobs under way.
func (m *model) end(i int) {
	j := m.jobs[i]
	m.jobs = slices.Delete(m.jobs, i, i+1)
	if j.event == nil {
		if m.rand.IntN(8) == 0 {
			m.q.readFailed(j, m.now)
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
	for _, j := range m.jobs {
		if j.queue.failing {
			failing++
		}
		if j.queue.quick != nil {
			quick++
			if j.queue.failing {
				failingQuick++
			}
		}
	}
	limits := m.q.limits
	if events != m.q.bytes || failing != m.q.failingRunning || failing > limits.MaxRunning/2 || len(m.jobs) != m.q.running ||
		m.q.running > limits.MaxRunning {
		m.t.Fatalf("%d bytes, counted as %d; %d of %d jobs are of failing systems, counted as %d of %d", events, m.q.bytes,
			failing, len(m.jobs), m.q.failingRunning, m.q.running)
	}
	if quick != m.q.quick.Len() || quick > limits.Workers || failingQuick != m.q.failingQuick || failingQuick > limits.Workers/2 {
		m.t.Fatalf("%d jobs are quick, %d of failing systems, counted as %d and %d", quick, failingQuick, m.q.quick.Len(), m.q.failingQuick)
	}
	if most := limits.TotalBytes + limits.MaxRunning*(200+512); m.q.bytes > most {
		m.t.Fatalf("%d bytes are held", m.q.bytes)
	}
}

// In any sequence of operations, each wanted event of a system gets its job once and in order,
// within the bounds of memory, and nothing is left in the end.
func TestQueuesAgainstModel(t *testing.T) {
	t.Parallel()
	for seed := range uint64(400) {
		m := newModel(t, seed, Limits{Workers: 2, MaxRunning: 6, QueueEvents: 3, QueueBytes: 2000, TotalBytes: 4000, Tries: 4})
		for range 600 {
			switch m.rand.IntN(5) {
			case 0:
				kind := wantedType
				if m.rand.IntN(3) == 0 {
					kind = domain.TypeDeviceUpdate
				}
				m.append(domain.SystemID(fmt.Sprint("s", m.rand.IntN(6)*m.rand.IntN(2))), kind)
			case 1:
				m.add(m.rand.IntN(5))
			case 2:
				if j, ok := m.q.next(m.now); ok {
					m.jobs = append(m.jobs, j)
				}
			case 3:
				if len(m.jobs) > 0 {
					m.end(m.rand.IntN(len(m.jobs)))
				}
			case 4:
				m.now = m.now.Add(time.Duration(m.rand.IntN(200)) * time.Millisecond)
			}
			m.check()
		}
		for len(m.jobs) > 0 {
			m.end(0)
		}
		for m.add(len(m.log)); len(m.q.systems) > 0; m.check() {
			if j, ok := m.q.next(m.now); ok {
				m.jobs = append(m.jobs, j)
				m.end(m.rand.IntN(len(m.jobs)))
			} else if len(m.jobs) > 0 {
				m.end(0)
			} else {
				m.now = m.now.Add(time.Second)
			}
		}
		for system, want := range m.want {
			if got := m.got[system]; !slices.Equal(got, want) {
				t.Fatalf("seed %d: %s had the jobs %v, want %v", seed, system, got, want)
			}
		}
		if m.q.bytes != 0 || m.q.healthy.Len()+m.q.failing.Len()+len(m.q.paused) != 0 {
			t.Fatalf("seed %d: queues are left", seed)
		}
	}
}

// A system with very many events delays another by no more than its jobs under way.
func TestJobsAreFair(t *testing.T) {
	t.Parallel()
	m := newModel(t, 1, Limits{Workers: 2, QueueBytes: 100 << 20, QueueEvents: 20_000, TotalBytes: 100 << 20})
	for range 10_000 {
		m.append("busy", wantedType)
	}
	clear(m.doomed)
	m.add(len(m.log))
	first, _ := m.q.next(m.now)
	m.jobs = append(m.jobs, first)
	m.append("quiet", wantedType)
	clear(m.doomed)
	m.add(1)
	j, ok := m.q.next(m.now)
	if !ok || j.queue.system != "quiet" {
		t.Errorf("the second job is of %+v: a system has more than one at a time, or the other waits", j.queue)
	}
	m.end(0)
	if j, ok := m.q.next(m.now); !ok || j.queue.system != "busy" {
		t.Error("the busy system has no job")
	}
}
