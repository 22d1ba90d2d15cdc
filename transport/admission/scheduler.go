package admission

import (
	"slices"

	"github.com/plugcast/plugcast/domain"
)

// scheduler decides which request is admitted next. It has no lock, clock or goroutine.
//
// The systems with waiting requests form a ring. The first system whose oldest request fits
// its share is next. If that request does not fit the capacity yet, no request behind it is
// admitted either, so that small requests cannot overtake a large one for ever. An admitted
// system goes to the end of the ring.
type scheduler struct {
	capacity, share int

	used    int // by all systems
	waiting int // requests of all systems
	systems map[domain.SystemID]*account
	ring    []*account // systems with waiting requests
}

// account is the work of a system in progress and waiting. It exists while there is any.
type account struct {
	system domain.SystemID
	used   int
	queue  []*waiter // the oldest first
}

// waiter is a request that waits to be admitted.
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

// overfull reports whether too many requests are waiting.
func (s *scheduler) overfull(system domain.SystemID, queue, all int) bool {
	return s.waiting > all || len(s.account(system).queue) > queue
}

// drop removes a request that gave up waiting.
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

// dispatch admits the requests that fit.
func (s *scheduler) dispatch() {
	for i := 0; i < len(s.ring); {
		a := s.ring[i]
		w := a.queue[0]
		switch {
		case a.used+w.cost > s.share && a.used > 0:
			i++ // the system waits for its own work to finish
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
