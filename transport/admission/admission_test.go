package admission

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/plugcast/plugcast/domain"
)

var bounds = Config{Capacity: 6, Share: 3, Queue: 4, QueueAll: 6, Patience: 5 * time.Second}

func newController(t interface{ Fatal(...any) }, c Config) *Controller {
	controller, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return controller
}

// For random requests, the capacity and the shares hold, the requests of one system are
// admitted in order, no request waits that could be admitted next, and nothing is left in
// the end.
func TestSchedulerKeepsItsBounds(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := newScheduler(6, 3)
		var waiting, running []*waiter
		systems := []domain.SystemID{"a", "b", "c", "d"}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch action := rapid.IntRange(0, 3).Draw(t, "action"); {
			case action <= 1:
				w := &waiter{
					system: rapid.SampledFrom(systems).Draw(t, "system"), cost: rapid.IntRange(1, 3).Draw(t, "cost"), admitted: make(chan struct{}),
				}
				s.add(w)
				waiting = append(waiting, w)
			case action == 2 && len(running) > 0:
				i := rapid.IntRange(0, len(running)-1).Draw(t, "which")
				s.release(running[i].system, running[i].cost)
				running = slices.Delete(running, i, i+1)
			case action == 3 && len(waiting) > 0:
				i := rapid.IntRange(0, len(waiting)-1).Draw(t, "which")
				s.drop(waiting[i])
				waiting = slices.Delete(waiting, i, i+1)
			}
			s.dispatch()
			waiting, running = admitted(t, waiting, running)
			check(t, &s, waiting, running)
		}
		for len(waiting)+len(running) > 0 {
			for _, w := range running {
				s.release(w.system, w.cost)
			}
			running = nil
			s.dispatch()
			before := len(waiting)
			if waiting, running = admitted(t, waiting, running); before > 0 && len(running) == 0 {
				t.Fatalf("%d requests wait for nothing", before)
			}
		}
		if s.used != 0 || s.waiting != 0 || len(s.systems) != 0 || len(s.ring) != 0 {
			t.Fatalf("left over: %+v", s)
		}
	})
}

// admitted moves the admitted requests, and checks that those of a system were admitted in
// order.
func admitted(t *rapid.T, waiting, running []*waiter) (still, now []*waiter) {
	passed := map[domain.SystemID]bool{}
	for _, w := range waiting {
		if !w.granted {
			passed[w.system] = true
			still = append(still, w)
			continue
		}
		if passed[w.system] {
			t.Fatalf("a later request of %s was admitted first", w.system)
		}
		running = append(running, w)
	}
	return still, running
}

func check(t *rapid.T, s *scheduler, waiting, running []*waiter) {
	used := map[domain.SystemID]int{}
	total := 0
	for _, w := range running {
		used[w.system] += w.cost
		total += w.cost
	}
	if total != s.used || total > s.capacity || len(waiting) != s.waiting {
		t.Fatalf("%d units of %d, %d counted; %d wait, %d counted", total, s.capacity, s.used, len(waiting), s.waiting)
	}
	for system, n := range used {
		if n > s.share {
			t.Fatalf("%s has %d units of %d", system, n, s.share)
		}
	}
	for _, a := range s.ring { // the first that waits for the capacity alone
		if w := a.queue[0]; a.used+w.cost <= s.share {
			if s.used+w.cost <= s.capacity {
				t.Fatalf("a request of %s could be admitted and waits", a.system)
			}
			return
		}
	}
}

// For any number of waiting requests of one system, another system's requests alternate
// with them.
func TestSystemsTakeTurns(t *testing.T) {
	t.Parallel()
	s := newScheduler(1, 1)
	var all []*waiter
	queue := func(system domain.SystemID, n int) {
		for range n {
			w := &waiter{system: system, cost: 1, admitted: make(chan struct{})}
			s.add(w)
			s.dispatch()
			all = append(all, w)
		}
	}
	queue("flood", 1000)
	queue("quiet", 3)
	queue("calm", 3)
	var order []domain.SystemID
	for range 10 {
		i := slices.IndexFunc(all, func(w *waiter) bool { return w.granted })
		order = append(order, all[i].system)
		s.release(all[i].system, 1)
		all = slices.Delete(all, i, i+1)
		s.dispatch()
	}
	// The first came alone; its system's next request was in the ring before the others came.
	want := []domain.SystemID{"flood", "flood", "quiet", "calm", "flood", "quiet", "calm", "flood", "quiet", "calm"}
	if !slices.Equal(order, want) {
		t.Errorf("%v", order)
	}
}

// Small requests do not overtake a large one for ever.
func TestLargeRequestsAreServed(t *testing.T) {
	t.Parallel()
	s := newScheduler(4, 4)
	small := func(system domain.SystemID) *waiter {
		w := &waiter{system: system, cost: 1, admitted: make(chan struct{})}
		s.add(w)
		s.dispatch()
		return w
	}
	for i := range 4 {
		small(domain.SystemID(fmt.Sprint("s", i)))
	}
	large := &waiter{system: "large", cost: 4, admitted: make(chan struct{})}
	s.add(large)
	for i := range 4 {
		if small("more").granted {
			t.Fatal("a small request passed the large one")
		}
		s.release(domain.SystemID(fmt.Sprint("s", i)), 1)
		s.dispatch()
	}
	if !large.granted {
		t.Error("the large request waits")
	}
}

// A request that waits too long, or arrives when too many wait, fails with a retry time. A
// request whose context ends fails with the context's error.
func TestAdmitEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newController(t, bounds)
		held, err := c.Admit(t.Context(), "a", 99) // counts as the share
		if err != nil {
			t.Fatal(err)
		}
		var group sync.WaitGroup
		began := time.Now()
		for range bounds.Queue {
			group.Go(func() {
				if _, err := c.Admit(t.Context(), "a", 1); !domain.HasCode(err, CodeBusy) || time.Since(began) != bounds.Patience {
					t.Errorf("after %v: %v", time.Since(began), err)
				}
			})
		}
		synctest.Wait()
		_, err = c.Admit(t.Context(), "a", 1)
		if !domain.HasCode(err, CodeBusy) || domain.AsError(err).Params["retryAfterMs"] != int64(1000) || time.Since(began) != 0 {
			t.Errorf("one too many: %v after %v", err, time.Since(began))
		}
		other, err := c.Admit(t.Context(), "b", 3) // is not concerned
		if err != nil {
			t.Error(err)
		}
		other.Release()
		gone, cancel := context.WithCancel(t.Context())
		group.Wait()
		cancel()
		if _, err := c.Admit(gone, "a", 1); !errors.Is(err, context.Canceled) {
			t.Errorf("a caller who is gone: %v", err)
		}
		held.Release()
		held.Release() // twice is fine
		if u := c.Usage(); u != (Usage{}) {
			t.Errorf("left over: %+v", u)
		}
	})
}

// A grant shrinks to the cost that its work needed, and grows at once or not at all.
func TestGrants(t *testing.T) {
	t.Parallel()
	c := newController(t, bounds)
	admit := func(system domain.SystemID, cost int) *Grant {
		g, err := c.Admit(t.Context(), system, cost)
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	first := admit("a", 3)
	first.Shrink(1)
	second := admit("a", 2)
	if err := first.Grow(2); !domain.HasCode(err, CodeBusy) {
		t.Errorf("grown beyond the share: %v", err)
	}
	second.Release()
	if err := first.Grow(5); err != nil {
		t.Errorf("a system alone may go beyond its share: %v", err)
	}
	if err := first.Grow(7); !domain.HasCode(err, CodeBusy) {
		t.Errorf("grown beyond the capacity: %v", err)
	}
	if u := c.Usage(); u.Units != 5 {
		t.Errorf("%+v", u)
	}
	first.Release()
	var none *Grant
	none.Release()
	if u := c.Usage(); u != (Usage{}) || none.Grow(9) != nil {
		t.Errorf("left over: %+v", u)
	}
}

// With many concurrent callers, the work in progress never exceeds the limits, as the
// callers see it. For the race detector.
func TestConcurrentAdmission(t *testing.T) {
	t.Parallel()
	c := newController(t, Config{Capacity: 6, Share: 3, Queue: 1000, QueueAll: 10000, Patience: time.Minute})
	var mu sync.Mutex
	used := map[domain.SystemID]int{}
	total := 0
	count := func(system domain.SystemID, n int) {
		mu.Lock()
		defer mu.Unlock()
		used[system] += n
		if total += n; used[system] > 3 || total > 6 {
			t.Errorf("%d of %s, %d in all", used[system], system, total)
		}
	}
	var group sync.WaitGroup
	for i := range 300 {
		group.Go(func() {
			system, cost := domain.SystemID(fmt.Sprint(i%5)), 1+i%3
			g, err := c.Admit(t.Context(), system, cost)
			if err != nil {
				t.Error(err)
				return
			}
			count(system, cost)
			count(system, -cost)
			g.Release()
		})
	}
	group.Wait()
	if u := c.Usage(); u != (Usage{}) {
		t.Errorf("left over: %+v", u)
	}
}
