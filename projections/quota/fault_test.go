package quota

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/plugcast/plugcast/domain"
)

// request admits a new device of each of 30 systems, as a request does that has a deadline. It
// returns how long that took.
func request(t *testing.T, q *Devices, device int) time.Duration {
	t.Helper()
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), domain.MaxQuotaWait)
	defer cancel()
	for i := range 30 {
		a, err := q.Admit(ctx, domain.SystemID(fmt.Sprint("system-", i)), plugs(device, device+1))
		if err != nil || a.Refused != nil {
			t.Errorf("system %d: %v, %v", i, a.Refused, err)
		}
		a.Settle(true)
	}
	return time.Since(began)
}

// A request over many systems waits for a database that hangs, or that lags, about as long as a
// request of one system.
func TestARequestOverManySystems(t *testing.T) {
	t.Parallel()
	for name, away := range map[string]bool{"hangs": true, "lags": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				m := newMemory()
				q := New(10, m, m)
				m.stuck, m.away = true, away
				if waited := request(t, q, 1); waited > 1100*time.Millisecond {
					t.Errorf("the first request waited for %v", waited)
				}
				if waited := request(t, q, 2); away && waited > 0 {
					t.Errorf("the second request waited for %v", waited)
				}
				time.Sleep(recountAfter)
				m.set(func() { m.stuck, m.away, m.asked, m.counted = false, false, 0, 0 })
				request(t, q, 3)
				if m.asked != 30 || m.counted != 30 {
					t.Errorf("a database that works again is asked %d times for 30 systems, with %d counts", m.asked, m.counted)
				}
			})
		})
	}
}

// A caller that waits for another caller's query waits no longer than for its own.
func TestAQueueOfCallers(t *testing.T) {
	testQuota(t, 10, func(t *testing.T, q *Devices, m *memory) {
		m.stuck = true
		began := time.Now()
		var working sync.WaitGroup
		for i := range 10 {
			working.Go(func() { publish(t, q, m, sol, plugs(i, i+1)) })
		}
		working.Wait()
		if waited := time.Since(began); waited > 1100*time.Millisecond {
			t.Errorf("10 callers waited for %v", waited)
		}
	})
}

// A device that another process appended is admitted while the rows lag behind the log. New
// devices are still bounded.
func TestAKnownDeviceWhileTheRowsLag(t *testing.T) {
	testQuota(t, 3, func(t *testing.T, q *Devices, m *memory) {
		m.devices[sol] = plugs(0, 3)
		if publish(t, q, m, sol, plugs(3, 4)) != 1 {
			t.Error("a device too many is admitted")
		}
		time.Sleep(recountAfter)
		m.set(func() { m.devices[sol], m.lag, m.stuck = plugs(0, 4), 1, true })
		for range 2 {
			if publish(t, q, m, sol, plugs(3, 4)) != 0 {
				t.Error("a device that is in the log is refused")
			}
		}
		if n := publish(t, q, m, sol, plugs(4, 10)); n != 4 {
			t.Errorf("%d of 6 new devices are refused; 2 of the limit of 3 are left", n)
		}
	})
}

// Devices whose append failed hold no places, also if the rows did not answer.
func TestFailedAppendsWhileTheRowsDoNotAnswer(t *testing.T) {
	testQuota(t, 5, func(t *testing.T, q *Devices, m *memory) {
		m.away = true
		for i := range 20 {
			a, err := q.Admit(t.Context(), sol, plugs(i, i+1))
			if err != nil || a.Refused != nil {
				t.Fatalf("device %d after as many failed appends: %v, %v", i, a.Refused, err)
			}
			a.Settle(false)
		}
		if n := publish(t, q, m, sol, plugs(0, 6)); n != 1 {
			t.Errorf("%d of 6 are refused", n)
		}
	})
}

// A device that is refused again and again costs one query until the next count, alone or in a
// batch, and is admitted as soon as there is a place.
func TestCostOfRefusals(t *testing.T) {
	testQuota(t, 5, func(t *testing.T, q *Devices, m *memory) {
		publish(t, q, m, sol, plugs(0, 3))
		held, err := q.Admit(t.Context(), sol, plugs(3, 4))
		if err != nil {
			t.Fatal(err)
		}
		m.asked = 0
		for range 100 {
			a, err := q.Admit(t.Context(), sol, plugs(4, 6))
			if err != nil || len(a.Refused) != 1 {
				t.Fatalf("a batch with a device too many: %v, %v", a.Refused, err)
			}
			a.Settle(false)
		}
		if m.asked != 1 {
			t.Errorf("100 refusals took %d queries", m.asked)
		}
		held.Settle(false)
		if publish(t, q, m, sol, plugs(4, 6)) != 0 {
			t.Error("a refused device is not admitted although there is a place")
		}
		publish(t, q, m, sol, plugs(6, 7))
		m.set(func() { m.devices[sol] = append(m.devices[sol], plugs(6, 7)...) }) // by another process
		time.Sleep(recountAfter)
		if publish(t, q, m, sol, plugs(6, 7)) != 0 {
			t.Error("a device that is in the log is refused")
		}
	})
}

// The remembered refusals of a system are bounded.
func TestMemoryOfRefusals(t *testing.T) {
	t.Parallel()
	m := newMemory()
	q := New(1, m, m)
	publish(t, q, m, sol, plugs(0, 1))
	for i := range 5 {
		publish(t, q, m, sol, plugs(i*1000+1, i*1000+1001))
	}
	if n := len(q.systems[sol].absent); n == 0 || n > maxAbsent {
		t.Errorf("%d refusals are remembered", n)
	}
}

// A new device takes one place, however many callers append it at once.
func TestOneDeviceOfManyCallers(t *testing.T) {
	t.Parallel()
	m := newMemory()
	q := New(3, m, m)
	admissions := make([]domain.Admission, 5)
	for i := range admissions {
		var err error
		if admissions[i], err = q.Admit(t.Context(), sol, plugs(0, 1)); err != nil || admissions[i].Refused != nil {
			t.Fatalf("caller %d: %v, %v", i, admissions[i].Refused, err)
		}
	}
	if a, err := q.Admit(t.Context(), sol, plugs(1, 3)); err != nil || a.Refused != nil {
		t.Errorf("two devices beside one that is being appended: %v, %v", a.Refused, err)
	} else {
		a.Settle(false)
	}
	for i, a := range admissions {
		a.Settle(i != 0)
		if b, err := q.Admit(t.Context(), sol, plugs(1, 3)); err != nil || b.Refused != nil {
			t.Errorf("two devices after %d of the callers: %v, %v", i+1, b.Refused, err)
		} else {
			b.Settle(false)
		}
	}
}

// A device that was settled as appended, and that the log does not get, holds its place until the
// next count at most.
func TestSettledDevicesThatAreNotInTheLog(t *testing.T) {
	testQuota(t, 5, func(t *testing.T, q *Devices, m *memory) {
		a, err := q.Admit(t.Context(), sol, plugs(100, 105))
		if err != nil || a.Refused != nil {
			t.Fatal(a.Refused, err)
		}
		a.Settle(true)
		if publish(t, q, m, sol, plugs(0, 1)) != 1 {
			t.Error("a device beside those that were just appended is admitted")
		}
		time.Sleep(recountAfter)
		if n := publish(t, q, m, sol, plugs(0, 6)); n != 1 {
			t.Errorf("%d of 6 devices are refused, and 5 are allowed", n)
		}
	})
}
