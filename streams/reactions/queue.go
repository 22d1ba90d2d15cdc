package reactions

import (
	"container/heap"
	"container/list"
	"math"
	"time"

	"github.com/plugcast/plugcast/domain"
)

// queues are the queues of all systems. They hold no lock and read no clock.
type queues struct {
	limits Limits
	wanted map[domain.EventType]Reaction

	heard    map[int]domain.Position // per partition: the last event that was given to hear
	systems  map[domain.SystemID]*queue
	healthy  list.List // of *queue: those with work whose last event went well, in turn
	failing  list.List // the same of those whose last event failed or was slow
	paused   pauses
	troubled map[domain.SystemID]struct{} // systems whose last event failed or was slow

	bytes          int       // in all queues
	quick          list.List // of *queue: those whose turn is younger than limits.Moment, oldest first
	failingQuick   int       // those of quick whose system is failing
	running        int       // turns under way
	failingRunning int       // turns under way of failing systems
	failingNext    bool      // the next turn is a failing system's, if one may have it
}

// queue is the queue of one system. It is in exactly one place: in healthy or
// failing, in paused, or in a turn.
type queue struct {
	system    domain.SystemID
	partition int
	events    []domain.Event
	bytes     int

	// behind says that the queue was full: what follows at is in the log and not
	// in events, and is read when events is empty.
	behind bool
	at     domain.Position

	began time.Time     // of the turn under way
	quick *list.Element // the queue in queues.quick, while it is there

	troubled bool
	tries    int       // of the first event
	since    time.Time // of its first failure
	until    time.Time // while paused
}

// job is a turn: either an event to react to, or a page to read.
type job struct {
	queue *queue
	event *domain.Event   // nil: read what follows after
	after domain.Position // of a page
	heard domain.Position // by the partition when the page is asked for
	tries int             // of the event, with this one
}

func newQueues(limits Limits, wanted map[domain.EventType]Reaction) *queues {
	return &queues{
		limits: limits, wanted: wanted, heard: map[int]domain.Position{}, systems: map[domain.SystemID]*queue{},
		troubled: map[domain.SystemID]struct{}{},
	}
}

// begin says that the partition is heard from a position on.
func (q *queues) begin(partition int, at domain.Position) { q.heard[partition] = at }

// hear takes the next events of a partition.
func (q *queues) hear(partition int, events []domain.Event) {
	for i := range events {
		e := &events[i]
		if q.wants(e) {
			q.add(partition, e)
		}
		q.heard[partition] = e.Position
	}
}

func (q *queues) wants(e *domain.Event) bool { return q.wanted[e.Type] != nil && e.SystemID != "" }

func (q *queues) add(partition int, e *domain.Event) {
	one := q.systems[e.SystemID]
	if one == nil {
		one = &queue{system: e.SystemID, partition: partition}
		_, one.troubled = q.troubled[e.SystemID]
		q.systems[e.SystemID] = one
		q.wait(one)
	}
	switch {
	case one.behind:
	case q.fits(one, e):
		q.push(one, e)
	default:
		one.behind, one.at = true, q.heard[partition]
	}
}

func (q *queues) fits(one *queue, e *domain.Event) bool {
	size := sizeOf(e)
	return len(one.events) < q.limits.QueueEvents && one.bytes+size <= q.limits.QueueBytes && q.bytes+size <= q.limits.TotalBytes
}

func (q *queues) push(one *queue, e *domain.Event) {
	one.events = append(one.events, *e)
	one.bytes += sizeOf(e)
	q.bytes += sizeOf(e)
}

// sizeOf is about what an event takes in memory.
func sizeOf(e *domain.Event) int {
	const envelope = 512
	return envelope + len(e.Data)
}

// wait puts a queue that has work behind the others that wait for a turn.
func (q *queues) wait(one *queue) {
	if one.troubled {
		q.failing.PushBack(one)
	} else {
		q.healthy.PushBack(one)
	}
}

// next returns a turn, if there is one. The turns that began within the last
// moment are at most limits.Workers, and all that are under way at most
// limits.Most: turns that hang do not keep others from theirs. Failing systems have
// at most half of either, and no more turns than healthy ones while those have
// work. The turn ends with failed, done or, for a page, with refilled.
func (q *queues) next(now time.Time) (job, bool) {
	for len(q.paused) > 0 && !now.Before(q.paused[0].until) {
		q.wait(heap.Pop(&q.paused).(*queue))
	}
	for first := q.quick.Front(); first != nil; first = q.quick.Front() {
		one := first.Value.(*queue)
		if now.Before(one.began.Add(q.limits.Moment)) {
			break
		}
		q.unhurry(one)
	}
	if q.quick.Len() >= q.limits.Workers || q.running >= q.limits.Most {
		return job{}, false
	}
	mayFail := q.failingQuick < max(q.limits.Workers/2, 1) && q.failingRunning < max(q.limits.Most/2, 1)
	from := &q.healthy
	if q.failing.Len() > 0 && mayFail && (q.failingNext || q.healthy.Len() == 0) {
		from = &q.failing
	}
	q.failingNext = from == &q.healthy
	first := from.Front()
	if first == nil {
		return job{}, false
	}
	one := from.Remove(first).(*queue)
	one.began, one.quick = now, q.quick.PushBack(one)
	q.running++
	if one.troubled {
		q.failingRunning++
		q.failingQuick++
	}
	return q.job(one), true
}

// unhurry takes a turn out of those that began within the last moment.
func (q *queues) unhurry(one *queue) {
	if one.quick == nil {
		return
	}
	q.quick.Remove(one.quick)
	one.quick = nil
	if one.troubled {
		q.failingQuick--
	}
}

// again says when there may be a turn without any other change: when the oldest of
// those that began within the last moment is past it. It is zero when there is none.
func (q *queues) again() time.Time {
	first := q.quick.Front()
	if first == nil {
		return time.Time{}
	}
	return first.Value.(*queue).began.Add(q.limits.Moment)
}

func (q *queues) job(one *queue) job {
	if len(one.events) == 0 {
		return job{queue: one, after: one.at, heard: q.heard[one.partition]}
	}
	return job{queue: one, event: &one.events[0], tries: one.tries + 1}
}

// refilled ends a turn in which a page was read, and begins the turn of the first
// event on it, if there is one for the system. Only an empty page says that the log
// had no more: it ends pages at a number of bytes too. What was not heard yet is left
// to hear.
func (q *queues) refilled(j job, page []domain.Event) (job, bool) {
	one, heard := j.queue, q.heard[j.queue.partition]
	for i := range page {
		e := &page[i]
		if e.Position.After(heard) {
			one.at = heard
			break
		}
		if e.SystemID == one.system && q.wants(e) {
			if len(one.events) > 0 && !q.fits(one, e) { // one always goes: it is handled at once
				break
			}
			q.push(one, e)
		}
		one.at = e.Position
	}
	if len(page) == 0 && one.at.Before(j.heard) {
		one.at = j.heard
	}
	one.behind = one.at.Before(heard)
	if len(one.events) == 0 {
		q.leave(one, one.troubled)
		return job{}, false
	}
	return q.job(one), true
}

// unread ends a turn in which no page could be read.
func (q *queues) unread(j job, now time.Time) {
	q.pause(j.queue, now, q.limits.LongestPause)
}

// skip moves a system that is behind past what the log does not have any more.
func (q *queues) skip(j job, to domain.Position) {
	j.queue.at = to
	q.leave(j.queue, j.queue.troubled)
}

// done ends a turn whose event needs no more. slow says that the next events of
// the system are better handled as those of a failing one.
func (q *queues) done(j job, slow bool) {
	one := j.queue
	size := sizeOf(&one.events[0])
	one.events[0] = domain.Event{}
	one.events = one.events[1:]
	one.bytes -= size
	q.bytes -= size
	one.tries = 0
	q.leave(one, slow)
}

// failed ends a turn whose event failed. It reports false when the event was
// tried often or long enough: the turn goes on then, and done ends it.
func (q *queues) failed(j job, now time.Time) (again bool) {
	one := j.queue
	if one.tries++; one.tries == 1 {
		one.since = now
	}
	if one.tries >= q.limits.Tries || now.Sub(one.since) >= q.limits.GiveUpAfter {
		return false
	}
	pause := q.limits.FirstPause << min(one.tries-1, 30)
	q.pause(one, now, min(pause, q.limits.LongestPause))
	return true
}

// pause lets a failing system wait without a turn.
func (q *queues) pause(one *queue, now time.Time, d time.Duration) {
	q.release(one, true)
	if q.bytes > q.limits.TotalBytes { // what waits long can be read again
		q.shed(one)
	}
	one.until = now.Add(d)
	heap.Push(&q.paused, one)
}

// leave puts a queue back after a turn.
func (q *queues) leave(one *queue, troubled bool) {
	q.release(one, troubled)
	if len(one.events) == 0 && !one.behind {
		delete(q.systems, one.system)
		return
	}
	q.wait(one)
}

// keptTroubled bounds how many idle systems are known to have failed last.
const keptTroubled = 10_000

// release ends the turn of a queue, and notes how it went.
func (q *queues) release(one *queue, troubled bool) {
	q.unhurry(one)
	q.running--
	if one.troubled {
		q.failingRunning--
	}
	if one.troubled = troubled; !troubled {
		delete(q.troubled, one.system)
		return
	}
	if len(q.troubled) >= keptTroubled {
		clear(q.troubled)
	}
	q.troubled[one.system] = struct{}{}
}

// shed gives up the memory of a queue, which is read again from the log.
func (q *queues) shed(one *queue) {
	if len(one.events) == 0 {
		return
	}
	one.behind, one.at = true, before(one.events[0].Position)
	q.bytes -= one.bytes
	one.events, one.bytes = nil, 0
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
	one := x.(*queue)
	*p = append(*p, one)
}

// Pop implements heap.Interface.
func (p *pauses) Pop() any {
	last := len(*p) - 1
	one := (*p)[last]
	(*p)[last] = nil
	*p = (*p)[:last]
	return one
}
