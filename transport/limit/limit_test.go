package limit

import (
	"context"
	"errors"
	"testing"
	"time"

	"golang.org/x/time/rate"
	"pgregory.net/rapid"

	"github.com/plugcast/plugcast/domain"
)

func waitIn(t interface{ Fatalf(string, ...any) }, err error) time.Duration {
	e := new(domain.Error)
	if !errors.As(err, &e) || e.Kind != domain.KindLimited || e.Code != CodeRateLimited {
		t.Fatalf("refused with %v", err)
	}
	return time.Duration(e.Params["retryAfterMs"].(int64)) * time.Millisecond
}

// TestFrames compares with the definition: no span of time allows more than the burst and
// the rate times that span, and waiting as long as announced is enough.
func TestFrames(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		r := Rate{rate.Limit(rapid.Float64Range(0.1, 100).Draw(t, "rate")), rapid.IntRange(1, 20).Draw(t, "burst")}
		rates := &Rates{Frames: r}
		var b Budget
		take := func(now time.Time) error { return b.Frame(t.Context(), now, rates, nil, nil) }
		now := time.Unix(1_795_461_046, 0)
		var taken []time.Time
		for range rapid.IntRange(1, 60).Draw(t, "tries") {
			now = now.Add(time.Duration(rapid.IntRange(0, 2000).Draw(t, "pause")) * time.Millisecond)
			if err := take(now); err != nil {
				now = now.Add(waitIn(t, err))
				if err := take(now); err != nil {
					t.Fatalf("refused after the announced wait: %v", err)
				}
			}
			taken = append(taken, now)
		}
		for i := range taken {
			for j := i; j < len(taken); j++ {
				if most := float64(r.Burst) + float64(r.PerSecond)*taken[j].Sub(taken[i]).Seconds() + 1e-6; float64(j-i+1) > most {
					t.Fatalf("%d in %s", j-i+1, taken[j].Sub(taken[i]))
				}
			}
		}
	})
}

// counter is a limiter that allows a fixed number.
type counter struct {
	left  int
	calls int
}

func (c *counter) Allow(_ context.Context, _ domain.Flow, _ domain.SystemID, n int) (bool, time.Duration) {
	c.calls++
	if c.left < n {
		return false, time.Second
	}
	c.left -= n
	return true, 0
}

// Frames are counted across sockets in batches, and a limiter that refused is not called
// again before the time that it named.
func TestFramesAcrossSockets(t *testing.T) {
	t.Parallel()
	rates := &Rates{Frames: Rate{1e6, 1e6}}
	across := &counter{left: 2 * frameBatch}
	home := func() (domain.SystemID, bool) { return "clinica-sol", true }
	var b Budget
	now := time.Unix(1_795_461_046, 0)
	for i := range 3*frameBatch - 1 {
		if err := b.Frame(t.Context(), now, rates, across, home); err != nil {
			t.Fatalf("frame %d: %v", i, err)
		}
	}
	for range 5 {
		if wait := waitIn(t, b.Frame(t.Context(), now, rates, across, home)); wait != time.Second {
			t.Errorf("to wait %v", wait)
		}
	}
	if across.calls != 3 {
		t.Errorf("%d calls", across.calls)
	}
	if err := b.Frame(t.Context(), now.Add(time.Second), rates, across, home); err != nil {
		t.Error(err)
	}
	if err := Joins(t.Context(), across, "clinica-sol"); err == nil {
		t.Error("a join was let in")
	}
}

// The frames that a socket sent before its first join do not count for the joined system.
func TestFramesOfNoSystem(t *testing.T) {
	t.Parallel()
	rates := &Rates{Frames: Rate{1e6, 1e6}}
	across := &counter{left: frameBatch}
	var system domain.SystemID
	home := func() (domain.SystemID, bool) { return system, system != "" }
	var b Budget
	now := time.Unix(1_795_461_046, 0)
	for range 100 * frameBatch {
		if err := b.Frame(t.Context(), now, rates, across, home); err != nil {
			t.Fatal(err)
		}
	}
	system = "clinica-sol"
	for i := range frameBatch {
		if err := b.Frame(t.Context(), now, rates, across, home); err != nil {
			t.Fatalf("frame %d: %v", i, err)
		}
	}
}
