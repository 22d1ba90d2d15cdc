package admission

import (
	"slices"

	"github.com/plugcast/plugcast/domain"
)

// scheduler decides who is admitted next. It has no lock, clock or goroutine.
//
// The systems that have requests waiting form a ring. The first of them whose
// oldest request fits its share is next; when that request does not fit the
// capacity yet, nobody behind it is admitted either, so that a large request is
// not passed by small ones for ever. A system that was admitted goes to the end of
// the ring.
type scheduler struct {
	capacity, share int

	used    int // by all systems
	waiting int // requests of all systems
	systems map[domain.SystemID]*account
	ring    []*account // those with requests waiting
}

// account is what a system has under way, and what waits. It exists as long as
// there is any of that.
type account struct {
	system domain.SystemID
	used   int
	queue  []*waiter // the oldest first
}

// waiter is a request that wants to be admitted.
type waiter struct {
	system   domain.SystemID
	cost     int
	granted  bool
	admitted chan struct{} // closed when granted
}

func newScheduler(capacity, share int) scheduler {
	return scheduler{capacity: capacity, share: share, systems: map[domain.SystemID]*account{}}
}

func (s *scheduler) account(system domain.SystemID) *account {
	a := s.systems[system]
	if a == nil {
		a = &account{system: system}
		s.systems[system] = a
	}
	return a
}

// add queues a request.
func (s *scheduler) add(w *waiter) {
	a := s.account(w.system)
	if len(a.queue) == 0 {
		s.ring = append(s.ring, a)
	}
	a.queue = append(a.queue, w)
	s.waiting++
}

// overfull reports whether more wait than may.
func (s *scheduler) overfull(system domain.SystemID, queue, all int) bool {
	return s.waiting > all || len(s.account(system).queue) > queue
}

// drop takes a request out that waits no more.
func (s *scheduler) drop(w *waiter) {
	a := s.systems[w.system]
	i := slices.Index(a.queue, w)
	a.queue = slices.Delete(a.queue, i, i+1)
	s.waiting--
	if len(a.queue) == 0 {
		at := slices.Index(s.ring, a)
		s.ring = slices.Delete(s.ring, at, at+1)
	}
	s.forget(a)
}

// dispatch admits what fits.
func (s *scheduler) dispatch() {
	for i := 0; i < len(s.ring); {
		a := s.ring[i]
		w := a.queue[0]
		switch {
		case a.used+w.cost > s.share && a.used > 0:
			i++ // it waits for its own
		case s.used+w.cost > s.capacity:
			return
		default:
			s.ring = slices.Delete(s.ring, i, i+1)
			a.queue = slices.Delete(a.queue, 0, 1)
			s.waiting--
			if len(a.queue) > 0 {
				s.ring = append(s.ring, a)
			}
			s.take(a.system, w.cost)
			w.granted = true
			close(w.admitted)
		}
	}
}

func (s *scheduler) usedBy(system domain.SystemID) int {
	if a := s.systems[system]; a != nil {
		return a.used
	}
	return 0
}

func (s *scheduler) take(system domain.SystemID, cost int) {
	s.account(system).used += cost
	s.used += cost
}

func (s *scheduler) release(system domain.SystemID, cost int) {
	a := s.systems[system]
	a.used -= cost
	s.used -= cost
	s.forget(a)
}

func (s *scheduler) forget(a *account) {
	if a.used == 0 && len(a.queue) == 0 {
		delete(s.systems, a.system)
	}
}
