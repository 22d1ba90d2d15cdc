package reactions

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/streams"
)

// memoryLog is one partition's log in memory.
type memoryLog struct {
	mu     sync.Mutex
	events []domain.Event
	gone   int // events that were trimmed
	reads  int
}

func (l *memoryLog) add(system domain.SystemID, n int) []domain.Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	for range n {
		l.events = append(l.events, domain.Event{
			ID: fmt.Sprint(len(l.events)), SystemID: system, Type: wantedType, Position: domain.Position{Ms: uint64(len(l.events) + 1)},
		})
	}
	return slices.Clone(l.events[len(l.events)-n:])
}

// Read implements Log.
func (l *memoryLog) Read(_ context.Context, _ int, after domain.Position, limit int) ([]domain.Event, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reads++
	if after.Before(domain.Position{Ms: uint64(l.gone)}) {
		return nil, streams.ErrTrimmed
	}
	from := int(after.Ms)
	if after.N > 0 {
		from++
	}
	return slices.Clone(l.events[from:min(len(l.events), from+limit)]), nil
}

// Nearest implements Log.
func (l *memoryLog) Nearest(_ context.Context, _ int, at domain.Position) (domain.Position, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return domain.Position{Ms: min(max(at.Ms, uint64(l.gone)), uint64(len(l.events)))}, nil
}

// letters holds dead letters in memory.
type letters struct {
	mu   sync.Mutex
	kept []domain.DeadLetter
}

// Put adds a letter.
func (l *letters) Put(_ context.Context, letter domain.DeadLetter) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.kept = append(l.kept, letter)
	return nil
}

// dispatching is a running dispatcher.
type dispatching struct {
	*Dispatcher
	t    *testing.T
	log  memoryLog
	dead letters

	mu      sync.Mutex
	handled map[domain.SystemID][]time.Duration // when, since the beginning
	began   time.Time
}

func dispatch(t *testing.T, limits Limits, react domain.Reaction) *dispatching {
	d := &dispatching{t: t, handled: map[domain.SystemID][]time.Duration{}, began: time.Now()}
	noting := func(ctx context.Context, e domain.Event) error {
		if err := react(ctx, e); err != nil {
			return err
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		d.handled[e.SystemID] = append(d.handled[e.SystemID], time.Since(d.began))
		return nil
	}
	d.Dispatcher = New(Config{
		On: map[domain.EventType]domain.Reaction{wantedType: noting}, Log: &d.log, DeadLetters: &d.dead, Node: "here", Limits: limits,
	})
	d.StartAt(0, domain.Position{})
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := d.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); running.Wait() })
	return d
}

func (d *dispatching) times(system domain.SystemID) []time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.handled[system])
}

// Many systems that fail, hang or panic, with many events each, do not delay
// another system. The bubble's clock makes the times exact.
func TestTroubleStaysWithItsSystem(t *testing.T) {
	t.Parallel()
	for name, trouble := range map[string]domain.Reaction{
		"an error": func(context.Context, domain.Event) error { return errors.New("no") },
		"a panic":  func(context.Context, domain.Event) error { panic("no") },
		"a hang":   func(ctx context.Context, _ domain.Event) error { <-ctx.Done(); return ctx.Err() },
		"slowness": func(ctx context.Context, _ domain.Event) error {
			select {
			case <-time.After(5 * time.Second):
			case <-ctx.Done():
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				d := dispatch(t, Limits{Workers: 4}, func(ctx context.Context, e domain.Event) error {
					if e.SystemID == "quiet" {
						return nil
					}
					return trouble(ctx, e)
				})
				for i := range 50 { // none is known to be slow yet: each may take a place once
					d.Add(0, d.log.add(domain.SystemID(fmt.Sprint("bad", i)), 100))
				}
				time.Sleep(10 * time.Minute)
				for range 20 {
					added := time.Since(d.began)
					d.Add(0, d.log.add("quiet", 1))
					time.Sleep(time.Second)
					synctest.Wait()
					times := d.times("quiet")
					if len(times) == 0 || times[len(times)-1] != added {
						t.Fatalf("added at %v, handled at %v", added, times)
					}
				}
			})
		})
	}
}

// Many healthy systems that all begin to hang at once delay another system only for moments,
// and no more of them run at once than allowed.
func TestSystemsThatAllBeginToHang(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var running, most atomic.Int32
		d := dispatch(t, Limits{}, func(ctx context.Context, e domain.Event) error {
			if e.SystemID == "quiet" {
				return nil
			}
			now := running.Add(1)
			defer running.Add(-1)
			for seen := most.Load(); now > seen && !most.CompareAndSwap(seen, now); seen = most.Load() {
			}
			<-ctx.Done()
			return ctx.Err()
		})
		const bad = 240 // a few fewer than may run
		for i := range bad {
			d.Add(0, d.log.add(domain.SystemID(fmt.Sprint("bad", i)), 3))
		}
		d.Add(0, d.log.add("quiet", 1))
		time.Sleep(time.Second)
		synctest.Wait()
		if len(d.times("quiet")) != 1 || running.Load() != bad {
			t.Errorf("after a second the healthy system was handled %d times, and %d hang", len(d.times("quiet")), running.Load())
		}
		for i := range 2 * bad {
			d.Add(0, d.log.add(domain.SystemID(fmt.Sprint("more", i)), 1))
		}
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if limits := (Limits{}).withDefaults(); most.Load() != int32(limits.MaxRunning) {
			t.Errorf("%d ran at once, want at most %d", most.Load(), limits.MaxRunning)
		}
	})
}

// A reaction that fails permanently becomes a dead letter, and the next event is handled. A
// temporary failure is retried.
func TestDeadLetter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tries := map[string]int{}
		d := dispatch(t, Limits{Workers: 2}, func(_ context.Context, e domain.Event) error {
			switch tries[e.ID]++; {
			case e.ID == "0", e.ID == "2" && tries[e.ID] < 3:
				return errors.New("not now")
			case e.ID == "1":
				return domain.Permanent(errors.New("never"))
			}
			return nil
		})
		d.Add(0, d.log.add("clinica-sol", 4))
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := fmt.Sprint(tries); got != "map[0:6 1:1 2:3 3:1]" {
			t.Errorf("tried %s", got)
		}
		if len(d.times("clinica-sol")) != 2 || len(d.dead.kept) != 2 {
			t.Fatalf("handled %d, kept %+v", len(d.times("clinica-sol")), d.dead.kept)
		}
		want := domain.DeadLetter{
			SystemID: "clinica-sol", EventID: "0", Position: domain.Position{Ms: 1}, Type: wantedType, Node: "here", Tries: 6, Error: "not now",
			Time: d.dead.kept[0].Time,
		}
		if d.dead.kept[0] != want || d.dead.kept[1].Tries != 1 {
			t.Errorf("kept %+v", d.dead.kept)
		}
		if s := d.Stats(); s.Dead != 2 || s.Handled != 2 || s.Failed != 9 || s.Queued+s.Behind+s.Paused != 0 {
			t.Errorf("figures %+v", s)
		}
	})
}

// A full queue neither holds up the reader nor loses events: the rest is read
// from the log, in order.
func TestFullQueueReadsTheLog(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var order []string
		gate := make(chan struct{})
		d := dispatch(t, Limits{Workers: 2, QueueEvents: 4, Time: time.Hour}, func(_ context.Context, e domain.Event) error {
			<-gate
			order = append(order, e.ID)
			return nil
		})
		const n = 5000
		for range n / 50 {
			d.Add(0, d.log.add("busy", 50))
		}
		synctest.Wait()
		if s := d.Stats(); s.Queued != 4 || s.Behind != 1 || len(order) > 0 {
			t.Errorf("figures %+v", s)
		}
		close(gate)
		time.Sleep(time.Minute)
		synctest.Wait()
		for i := range n {
			if len(order) != n || order[i] != fmt.Sprint(i) {
				t.Fatalf("handled %d in the order %v…", len(order), order[:min(len(order), 10)])
			}
		}
		before := d.log.reads
		d.Add(0, d.log.add("busy", 3))
		synctest.Wait()
		if len(order) != n+3 || d.log.reads != before {
			t.Errorf("handled %d, read %d times more although the queue had room", len(order), d.log.reads-before)
		}
	})
}

// A system that is behind when the log is trimmed continues where the log begins.
func TestTrimmedWhileBehind(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		d := dispatch(t, Limits{Workers: 2, QueueEvents: 4, Time: time.Hour}, func(context.Context, domain.Event) error { <-gate; return nil })
		d.Add(0, d.log.add("busy", 20))
		d.log.mu.Lock()
		d.log.gone = 10
		d.log.mu.Unlock()
		close(gate)
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := len(d.times("busy")); n != 14 {
			t.Errorf("handled %d, want 14: 4 from memory and the 10 that are left", n)
		}
	})
}
