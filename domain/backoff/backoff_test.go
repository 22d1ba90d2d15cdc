package backoff

import (
	"context"
	"errors"
	"math"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestWindowsDouble(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		full   bool
		lowest time.Duration // of a window of a second
	}{"upper half": {false, time.Second / 2}, "whole": {true, 0}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, chance := range []float64{0, 1} {
				b := Backoff{First: time.Second, Max: 5 * time.Second, FullJitter: c.full, Rand: func() float64 { return chance }}
				for i, window := range []time.Duration{1, 2, 4, 5, 5} {
					if reset := b.IsReset(); reset != (i == 0) {
						t.Errorf("wait %d: reset is %v", i, reset)
					}
					want := window * time.Second
					if chance == 0 {
						want = window * c.lowest
					}
					if got := b.Next(); got != want {
						t.Errorf("wait %d is %s, want %s", i, got, want)
					}
				}
			}
		})
	}
}

// Next returns waits even for windows that make no sense, and IsReset stays correct.
func TestUnusualWindows(t *testing.T) {
	t.Parallel()
	const longest = time.Duration(3 << 61)
	for name, c := range map[string]struct {
		first, most time.Duration
		want        []time.Duration
	}{
		"none":                   {0, 0, []time.Duration{minWindow, minWindow, minWindow}},
		"no first one":           {0, 3 * minWindow, []time.Duration{minWindow, 2 * minWindow, 3 * minWindow}},
		"negative ones":          {-time.Second, -time.Second, []time.Duration{minWindow, minWindow}},
		"no widest one":          {time.Second, 0, []time.Duration{time.Second, time.Second}},
		"a widest one below":     {time.Second, time.Minute / 100, []time.Duration{time.Second, time.Second}},
		"one that cannot double": {1 << 62, longest, []time.Duration{1 << 62, longest, longest}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := Backoff{First: c.first, Max: c.most, FullJitter: true, Rand: func() float64 { return 1 }}
			for i, want := range c.want {
				if reset := b.IsReset(); reset != (i == 0) {
					t.Errorf("wait %d: reset is %v", i, reset)
				}
				if got := b.Next(); got != want {
					t.Errorf("wait %d is %s, want %s", i, got, want)
				}
			}
		})
	}
}

func TestJitter(t *testing.T) {
	t.Parallel()
	for _, d := range []time.Duration{math.MinInt64, -time.Hour, -2, -1, 0, 1, 2, time.Second, math.MaxInt64} {
		for range 100 {
			if got, most := Jitter(d), max(d, 0); got < most/2 || got > most {
				t.Fatalf("drew %d of %d", got, d)
			}
		}
	}
}

func TestStartingOver(t *testing.T) {
	t.Parallel()
	b := Backoff{First: time.Second, Max: time.Minute, StableAfter: time.Minute}
	b.Next()
	if b.ResetIfStable(time.Minute - 1); b.IsReset() {
		t.Error("a short success starts over")
	}
	if b.ResetIfStable(time.Minute); !b.IsReset() {
		t.Error("a long success does not start over")
	}
	b.Next()
	if b.Reset(); !b.IsReset() {
		t.Error("a reset does not start over")
	}
	for range 1000 {
		b.Reset()
		if d := b.Next(); d < time.Second/2 || d > time.Second {
			t.Fatalf("drew %s", d)
		}
		if d := Jitter(time.Second); d < time.Second/2 || d > time.Second {
			t.Fatalf("drew %s", d)
		}
	}
}

func TestSleep(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		b := Backoff{First: time.Minute, Max: time.Minute, Rand: func() float64 { return 1 }}
		if err := b.Wait(t.Context()); err != nil || time.Since(began) != time.Minute {
			t.Errorf("slept %s: %v", time.Since(began), err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := Sleep(ctx, time.Hour); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Minute+time.Second {
			t.Errorf("slept %s: %v", time.Since(began), err)
		}
		wake := make(chan struct{}, 1)
		wake <- struct{}{}
		woken := time.Now()
		if err := SleepOr(t.Context(), time.Hour, wake); err != nil || time.Since(woken) != 0 || len(wake) != 0 {
			t.Errorf("slept %s beside a wake: %v", time.Since(woken), err)
		}
		if err := Sleep(ctx, 0); err == nil {
			t.Error("no sleep hides that the context has ended")
		}
	})
}

func TestEvery(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, end := context.WithCancel(t.Context())
		defer end()
		began := time.Now()
		var calls []time.Duration
		Every(ctx, time.Second, func(now time.Time) {
			calls = append(calls, now.Sub(began))
			switch len(calls) {
			case 2:
				time.Sleep(2500 * time.Millisecond) // over the ticks at 3 s and 4 s, of which the ticker keeps one
			case 4:
				end()
			}
		})
		if want := []time.Duration{time.Second, 2 * time.Second, 3 * time.Second, 5 * time.Second}; !slices.Equal(calls, want) {
			t.Errorf("called at %v, want %v", calls, want)
		}
	})
}
