package reactions

import (
	"container/heap"
	"container/list"
	"math"
	"time"

	"github.com/plugcast/plugcast/domain"
)

// queues holds the queues of all systems. It has no lock and reads no clock.
type queues struct {
	limits Limits
	wanted map[domain.EventType]domain.Reaction

	added          map[int]domain.Position // per partition: position of the last event passed to add
	systems        map[domain.SystemID]*queue
	healthy        list.List // of *queue: ready, and the last event succeeded; in the order of service
	failing        list.List // of *queue: ready, and the last event failed or was slow
	paused         pauses
	failingSystems map[domain.SystemID]struct{} // systems whose last event failed or was slow

	bytes          int       // in all queues
	quick          list.List // of *queue: those whose job began within limits.QuickTime, oldest first
	failingQuick   int       // number of failing systems in quick
	running        int       // jobs under way
	failingRunning int       // jobs of failing systems under way
	failingNext    bool      // the next job goes to a failing system, if one may run
}

// queue is the queue of one system. It is in exactly one place: in healthy or failing, in
// paused, or in a job under way.
type queue struct {
	system    domain.SystemID
	partition int
	events    []domain.Event
	bytes     int

	// behind means that the queue was full: the log has events after at that are not in events.
	// They are read once events is empty.
	behind bool
	at     domain.Position

	began time.Time     // start of the job under way
	quick *list.Element // the element in queues.quick, while the job is quick

	failing bool
	tries   int       // of the first event, so far
	since   time.Time // of its first failure
	until   time.Time // while paused
}

// job is one piece of work for a system: an event to react to, or a page of the log to read.
type job struct {
	queue *queue
	event *domain.Event   // nil: read the page after the position after
	after domain.Position // where the page begins
	added domain.Position // queues.added of the partition when the job began
	tries int             // of the event, including this one
}

func newQueues(limits Limits, wanted map[domain.EventType]domain.Reaction) *queues {
	return &queues{
		limits: limits, wanted: wanted, added: map[int]domain.Position{}, systems: map[domain.SystemID]*queue{},
		failingSystems: map[domain.SystemID]struct{}{},
	}
}

// startAt sets the position from which on add gets the events of the partition.
func (q *queues) startAt(partition int, at domain.Position) { q.added[partition] = at }

// add adds the next events of a partition to the queues of their systems.
func (q *queues) add(partition int, events []domain.Event) {
	for i := range events {
		e := &events[i]
		if q.wants(e) {
			q.enqueue(partition, e)
		}
		q.added[partition] = e.Position
	}
}

func (q *queues) wants(e *domain.Event) bool { return q.wanted[e.Type] != nil && e.SystemID != "" }

func (q *queues) enqueue(partition int, e *domain.Event) {
	s := q.systems[e.SystemID]
	if s == nil {
		s = &queue{system: e.SystemID, partition: partition}
		_, s.failing = q.failingSystems[e.SystemID]
		q.systems[e.SystemID] = s
		q.setReady(s)
	}
	switch {
	case s.behind:
	case q.fits(s, e):
		q.push(s, e)
	default:
		s.behind, s.at = true, q.added[partition]
	}
}

func (q *queues) fits(s *queue, e *domain.Event) bool {
	size := sizeOf(e)
	return len(s.events) < q.limits.QueueEvents && s.bytes+size <= q.limits.QueueBytes && q.bytes+size <= q.limits.TotalBytes
}

func (q *queues) push(s *queue, e *domain.Event) {
	s.events = append(s.events, *e)
	s.bytes += sizeOf(e)
	q.bytes += sizeOf(e)
}

// sizeOf is about the memory that an event takes, in bytes.
func sizeOf(e *domain.Event) int {
	const envelope = 512
	return envelope + len(e.Data)
}

// setReady appends a queue that has work to the ready queues.
func (q *queues) setReady(s *queue) {
	if s.failing {
		q.failing.PushBack(s)
	} else {
		q.healthy.PushBack(s)
	}
}

// next returns the next job, if one may run now. At most limits.Workers jobs are quick, and at
// most limits.MaxRunning are under way, so that jobs that hang do not block the others. Failing
// systems get at most half of either, and alternate with healthy systems while those have work.
// The job ends with done, failed, readFailed or skip, or with refilled if that returns no
// further job.
func (q *queues) next(now time.Time) (job, bool) {
	for len(q.paused) > 0 && !now.Before(q.paused[0].until) {
		q.setReady(heap.Pop(&q.paused).(*queue))
	}
	for first := q.quick.Front(); first != nil; first = q.quick.Front() {
		s := first.Value.(*queue)
		if now.Before(s.began.Add(q.limits.QuickTime)) {
			break
		}
		q.endQuick(s)
	}
	if q.quick.Len() >= q.limits.Workers || q.running >= q.limits.MaxRunning {
		return job{}, false
	}
	mayFail := q.failingQuick < max(q.limits.Workers/2, 1) && q.failingRunning < max(q.limits.MaxRunning/2, 1)
	from := &q.healthy
	if q.failing.Len() > 0 && mayFail && (q.failingNext || q.healthy.Len() == 0) {
		from = &q.failing
	}
	q.failingNext = from == &q.healthy
	first := from.Front()
	if first == nil {
		return job{}, false
	}
	s := from.Remove(first).(*queue)
	s.began, s.quick = now, q.quick.PushBack(s)
	q.running++
	if s.failing {
		q.failingRunning++
		q.failingQuick++
	}
	return q.job(s), true
}

// endQuick ends the time for which a job counts as quick.
func (q *queues) endQuick(s *queue) {
	if s.quick == nil {
		return
	}
	q.quick.Remove(s.quick)
	s.quick = nil
	if s.failing {
		q.failingQuick--
	}
}

// wakeAt returns when next may have a job without any other change: when the oldest quick job
// stops being quick. It is zero if no job is quick.
func (q *queues) wakeAt() time.Time {
	first := q.quick.Front()
	if first == nil {
		return time.Time{}
	}
	return first.Value.(*queue).began.Add(q.limits.QuickTime)
}

func (q *queues) job(s *queue) job {
	if len(s.events) == 0 {
		return job{queue: s, after: s.at, added: q.added[s.partition]}
	}
	return job{queue: s, event: &s.events[0], tries: s.tries + 1}
}

// refilled ends a job that read a page, and returns the job of the first event of the system on
// that page, if there is one. Only an empty page means that the log had no more, because the
// log also ends pages at a number of bytes. Events that add has not had yet are left to add.
func (q *queues) refilled(j job, page []domain.Event) (job, bool) {
	s, added := j.queue, q.added[j.queue.partition]
	for i := range page {
		e := &page[i]
		if e.Position.After(added) {
			s.at = added
			break
		}
		if e.SystemID == s.system && q.wants(e) {
			if len(s.events) > 0 && !q.fits(s, e) { // the first event always fits, because it is handled at once
				break
			}
			q.push(s, e)
		}
		s.at = e.Position
	}
	if len(page) == 0 && s.at.Before(j.added) {
		s.at = j.added
	}
	s.behind = s.at.Before(added)
	if len(s.events) == 0 {
		q.putBack(s, s.failing)
		return job{}, false
	}
	return q.job(s), true
}

// readFailed ends a job whose page could not be read.
func (q *queues) readFailed(j job, now time.Time) {
	q.pause(j.queue, now, q.limits.LongestPause)
}

// skip ends a job whose page the log no longer has, and moves the system past the missing part.
func (q *queues) skip(j job, to domain.Position) {
	j.queue.at = to
	q.putBack(j.queue, j.queue.failing)
}

// done ends the job of an event that is handled or given up. slow makes the system count as
// failing for its next event.
func (q *queues) done(j job, slow bool) {
	s := j.queue
	size := sizeOf(&s.events[0])
	s.events[0] = domain.Event{}
	s.events = s.events[1:]
	s.bytes -= size
	q.bytes -= size
	s.tries = 0
	q.putBack(s, slow)
}

// failed ends the job of an event that failed, and returns true if the event will be tried
// again. It returns false if the event was tried often or long enough: the job then goes on,
// and done ends it.
func (q *queues) failed(j job, now time.Time) (again bool) {
	s := j.queue
	if s.tries++; s.tries == 1 {
		s.since = now
	}
	if s.tries >= q.limits.Tries || now.Sub(s.since) >= q.limits.GiveUpAfter {
		return false
	}
	pause := q.limits.FirstPause << min(s.tries-1, 30)
	q.pause(s, now, min(pause, q.limits.LongestPause))
	return true
}

// pause ends a job and keeps its system from further jobs for a while.
func (q *queues) pause(s *queue, now time.Time, d time.Duration) {
	q.release(s, true)
	if q.bytes > q.limits.TotalBytes { // events that wait long can be read again
		q.evict(s)
	}
	s.until = now.Add(d)
	heap.Push(&q.paused, s)
}

// putBack ends a job and makes its queue ready again, or removes the queue if it is empty.
func (q *queues) putBack(s *queue, failing bool) {
	q.release(s, failing)
	if len(s.events) == 0 && !s.behind {
		delete(q.systems, s.system)
		return
	}
	q.setReady(s)
}

// maxFailingSystems bounds the memory for which idle systems failed last.
const maxFailingSystems = 10_000

// release ends a job, and records whether its system counts as failing.
func (q *queues) release(s *queue, failing bool) {
	q.endQuick(s)
	q.running--
	if s.failing {
		q.failingRunning--
	}
	if s.failing = failing; !failing {
		delete(q.failingSystems, s.system)
		return
	}
	if len(q.failingSystems) >= maxFailingSystems {
		clear(q.failingSystems)
	}
	q.failingSystems[s.system] = struct{}{}
}

// evict drops the events of a queue, which are read again from the log later.
func (q *queues) evict(s *queue) {
	if len(s.events) == 0 {
		return
	}
	s.behind, s.at = true, before(s.events[0].Position)
	q.bytes -= s.bytes
	s.events, s.bytes = nil, 0
}

// before is the last position before p.
func before(p domain.Position) domain.Position {
	if p.N > 0 {
		return domain.Position{Ms: p.Ms, N: p.N - 1}
	}
	return domain.Position{Ms: p.Ms - 1, N: math.MaxUint64}
}

// pauses is a heap of the queues that pause, by the end of the pause.
type pauses []*queue

// Len implements heap.Interface.
func (p pauses) Len() int { return len(p) }

// Less implements heap.Interface.
func (p pauses) Less(i, j int) bool { return p[i].until.Before(p[j].until) }

// Swap implements heap.Interface.
func (p pauses) Swap(i, j int) {
	p[i], p[j] = p[j], p[i]
}

// Push implements heap.Interface.
func (p *pauses) Push(x any) {
	s := x.(*queue)
	*p = append(*p, s)
}

// Pop implements heap.Interface.
func (p *pauses) Pop() any {
	last := len(*p) - 1
	s := (*p)[last]
	(*p)[last] = nil
	*p = (*p)[:last]
	return s
}
