package quota

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/plugcast/plugcast/domain"
)

// memory is a log and its read model, in memory.
type memory struct {
	mu      sync.Mutex
	devices map[domain.SystemID][]domain.DeviceID // in the log
	lag     int                                   // number of the newest devices that the rows do not have
	stuck   bool                                  // the rows do not catch up
	away    bool                                  // the rows do not answer
	hold    chan struct{}                         // the log waits for it, unless it is nil
	asked   int
	counted int
}

func newMemory() *memory { return &memory{devices: map[domain.SystemID][]domain.DeviceID{}} }

// testQuota runs a test of a quota with the limit over rows in memory, on a fake clock.
func testQuota(t *testing.T, limit int, test func(t *testing.T, q *Devices, m *memory)) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		test(t, New(limit, m, m), m)
	})
}

func (m *memory) FindDevices(ctx context.Context, system domain.SystemID, ids []domain.DeviceID, most int,
) (known []domain.DeviceID, count int, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked++
	if m.away {
		m.mu.Unlock()
		<-ctx.Done()
		m.mu.Lock()
		return nil, 0, ctx.Err()
	}
	if most > 0 {
		m.counted++
	}
	rows := m.devices[system][:max(len(m.devices[system])-m.lag, 0)]
	for _, id := range ids {
		if slices.Contains(rows, id) {
			known = append(known, id)
		}
	}
	return known, min(len(rows), most), nil
}

func (m *memory) WaitForSystem(ctx context.Context, _ domain.SystemID, _ domain.Position) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stuck {
		m.mu.Unlock()
		<-ctx.Done()
		m.mu.Lock()
		return ctx.Err()
	}
	m.lag = 0
	return nil
}

func (m *memory) Newest(context.Context, domain.SystemID) (domain.Position, error) {
	if m.hold != nil {
		<-m.hold
	}
	return domain.Position{}, nil
}

func (m *memory) set(change func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change()
}

const sol, luna = domain.SystemID("clinica-sol"), domain.SystemID("centro-luna")

// plugs returns the devices with those numbers.
func plugs(from, to int) (ids []domain.DeviceID) {
	for i := from; i < to; i++ {
		ids = append(ids, domain.DeviceID(fmt.Sprint("plug-", i)))
	}
	return ids
}

// publish admits devices, and appends the admitted ones. It returns how many are refused.
func publish(t *testing.T, q *Devices, m *memory, system domain.SystemID, ids []domain.DeviceID) (refused int) {
	t.Helper()
	a, err := q.Admit(t.Context(), system, ids)
	if err != nil {
		t.Error(err)
	}
	m.set(func() {
		for _, id := range ids {
			if !a.Refused[id] && !slices.Contains(m.devices[system], id) {
				m.devices[system] = append(m.devices[system], id)
			}
		}
	})
	a.Settle(true)
	return len(a.Refused)
}

// Known devices cost nothing, and unknown ones one query. The system's devices are counted
// every few seconds at most.
func TestCostOfTheQuota(t *testing.T) {
	testQuota(t, 1000, func(t *testing.T, q *Devices, m *memory) {
		for n := range 100 {
			for range 10 {
				if publish(t, q, m, sol, plugs(0, n+1)) != 0 {
					t.Fatal("refused")
				}
			}
			time.Sleep(100 * time.Millisecond)
		}
		if m.asked != 100 || m.counted > 3 {
			t.Errorf("100 new devices in 10 s took %d questions and %d counts", m.asked, m.counted)
		}
	})
}

func TestQuotaOfASystem(t *testing.T) {
	t.Parallel()
	m := newMemory()
	q := New(5, m, m)
	m.devices[sol] = plugs(0, 2) // by other processes
	if n := publish(t, q, m, sol, append(plugs(0, 3), plugs(0, 3)...)); n != 0 {
		t.Errorf("%d of 3 devices are refused", n)
	}
	a, err := q.Admit(t.Context(), sol, plugs(0, 8))
	if want := map[domain.DeviceID]bool{"plug-5": true, "plug-6": true, "plug-7": true}; err != nil ||
		fmt.Sprint(a.Refused) != fmt.Sprint(want) {
		t.Errorf("refused are %v, %v", a.Refused, err)
	}
	if why := a.Refusal(); why.Code != domain.CodeTooManyDevices || why.Kind != domain.KindConflict {
		t.Errorf("%v", why)
	}
	if b, err := q.Admit(t.Context(), sol, plugs(8, 9)); err != nil || len(b.Refused) != 1 {
		t.Errorf("a device beside those that are being appended: %v, %v", b.Refused, err)
	}
	a.Settle(false)
	if n := publish(t, q, m, sol, plugs(10, 12)); n != 0 {
		t.Error("the places of devices that were not appended are not free again")
	}
	if n := publish(t, q, m, sol, plugs(0, 20)); n != 20-5 {
		t.Errorf("%d of 20 are refused", n)
	}
	if n := publish(t, q, m, luna, plugs(0, 5)); n != 0 {
		t.Error("another system's devices count")
	}
}

// Devices that other processes appended are not new, also if the rows lag, and count even if a
// count is not due yet.
func TestDevicesOfOtherProcesses(t *testing.T) {
	t.Parallel()
	m := newMemory()
	q := New(3, m, m)
	publish(t, q, m, sol, plugs(0, 2))
	m.set(func() { m.devices[sol], m.lag = plugs(0, 4), 2 })
	if publish(t, q, m, sol, plugs(2, 4)) != 0 {
		t.Error("devices that are in the log are refused")
	}
	if publish(t, q, m, sol, plugs(4, 5)) != 1 {
		t.Error("a device too many is admitted")
	}
}

// Concurrent callers are counted together.
func TestQuotaAtOnce(t *testing.T) {
	t.Parallel()
	const most, callers = 50, 200
	m := newMemory()
	q := New(most, m, m)
	var working sync.WaitGroup
	for i := range callers {
		working.Go(func() { publish(t, q, m, sol, plugs(i, i+3)) })
	}
	working.Wait()
	if n := len(m.devices[sol]); n < most-3 || n > most {
		t.Errorf("%d devices, and %d are allowed", n, most)
	}
}

// A process that has just started makes one query for all waiting callers, not one for each.
func TestCallersThatWaitAreAskedForTogether(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		m.devices[sol], m.hold = plugs(0, 500), make(chan struct{})
		q := New(1000, m, m)
		var working sync.WaitGroup
		for i := range 500 {
			working.Go(func() {
				if publish(t, q, m, sol, plugs(i, i+1)) != 0 {
					t.Error("a device that is known is refused")
				}
			})
		}
		synctest.Wait()
		close(m.hold)
		working.Wait()
		if m.asked > 2 {
			t.Errorf("500 callers took %d questions", m.asked)
		}
	})
}

// While the rows do not answer, publishing continues without a long wait for each batch, and
// the admitted devices are still bounded.
func TestRowsThatDoNotAnswer(t *testing.T) {
	testQuota(t, 10, func(t *testing.T, q *Devices, m *memory) {
		m.devices[sol] = plugs(0, 10)
		m.away = true
		began := time.Now()
		refused := 0
		for i := range 20 {
			refused += publish(t, q, m, sol, plugs(i, i+1))
		}
		if waited := time.Since(began); waited > 2*queryTimeout {
			t.Errorf("20 batches waited for %v", waited)
		}
		if refused != 10 {
			t.Errorf("%d of 20 are refused; the 10 that are known come first", refused)
		}
		m.away = false
		time.Sleep(recountAfter)
		if publish(t, q, m, sol, plugs(30, 31)) != 1 {
			t.Error("a device too many is admitted when the rows answer again")
		}
	})
}

// While the projection is stuck, devices that were admitted since it stopped count.
func TestRowsThatDoNotCatchUp(t *testing.T) {
	testQuota(t, 100, func(t *testing.T, q *Devices, m *memory) {
		publish(t, q, m, sol, plugs(0, 1))
		m.stuck = true
		admitted := 0
		for i := 1; i < 40; i++ {
			m.set(func() { m.lag = len(m.devices[sol]) - 1 })
			admitted += 10 - publish(t, q, m, sol, plugs(10*i, 10*i+10))
			time.Sleep(recountAfter)
		}
		if admitted != 99 {
			t.Errorf("%d devices were admitted beside one, and 100 are allowed", admitted)
		}
	})
}

// A caller that gives up during another caller's query gets an error, and does not end the
// query.
func TestACallerThatGoes(t *testing.T) {
	testQuota(t, 10, func(t *testing.T, q *Devices, m *memory) {
		m.away = true
		var first sync.WaitGroup
		first.Go(func() { publish(t, q, m, sol, plugs(0, 1)) })
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := q.Admit(ctx, sol, plugs(1, 2)); !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
		first.Wait()
	})
}

// The cache is bounded, over all systems and also for one.
func TestMemoryOfTheQuota(t *testing.T) {
	t.Parallel()
	const memory = 20_000
	m := newMemory()
	q := New(1<<30, m, m)
	q.memory = memory
	learn := func(id domain.SystemID, from, to int) {
		s, _, _ := q.use(id, nil)
		q.mu.Lock()
		defer q.mu.Unlock()
		q.learn(id, s, plugs(from, to))
	}
	check := func(what string) {
		t.Helper()
		sum := 0
		for _, s := range q.systems {
			sum += costOfSystem + len(s.known)
		}
		if sum != q.remembered || sum > memory {
			t.Errorf("%s: %d are remembered, and %d are counted", what, sum, q.remembered)
		}
	}
	for i := range 100 {
		learn(domain.SystemID(fmt.Sprint("system-", i)), 0, 1000)
		learn(sol, 0, 1)
		check("many systems")
	}
	if q.systems[sol] == nil {
		t.Error("a system that is in use is forgotten")
	}
	for i := range 12 {
		learn("large", i*2000, (i+1)*2000)
		check("a large system")
	}
}

// BenchmarkKnownDevices measures a batch of 1,000 updates of known devices.
func BenchmarkKnownDevices(b *testing.B) {
	m := newMemory()
	q := New(50_000, m, m)
	all := plugs(0, 50_000)
	s, _, _ := q.use(sol, nil)
	q.learn(sol, s, all)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		from := i * 1000 % len(all)
		if _, err := q.Admit(b.Context(), sol, all[from:from+1000]); err != nil || m.asked != 0 {
			b.Fatal(err, m.asked)
		}
	}
}
