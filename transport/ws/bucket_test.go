package ws

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestBucket compares with the definition: in no span of time more than the
// burst and what comes in that span, and a wait that is announced suffices.
func TestBucket(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		rate := Rate{rapid.Float64Range(0.1, 100).Draw(t, "rate"), float64(rapid.IntRange(1, 20).Draw(t, "burst"))}
		var b bucket
		now := time.Unix(1_795_461_046, 0)
		var taken []time.Time
		for range rapid.IntRange(1, 60).Draw(t, "tries") {
			now = now.Add(time.Duration(rapid.IntRange(0, 2000).Draw(t, "pause")) * time.Millisecond)
			ok, wait := b.take(rate, now)
			if ok {
				taken = append(taken, now)
				continue
			}
			if wait <= 0 {
				t.Fatalf("refused with a wait of %s", wait)
			}
			now = now.Add(wait + time.Microsecond)
			if ok, _ := b.take(rate, now); !ok {
				t.Fatalf("refused after the announced wait of %s", wait)
			}
			taken = append(taken, now)
		}
		for i := range taken {
			for j := i; j < len(taken); j++ {
				if most := rate.Burst + rate.PerSecond*taken[j].Sub(taken[i]).Seconds() + 1e-6; float64(j-i+1) > most {
					t.Fatalf("%d in %s", j-i+1, taken[j].Sub(taken[i]))
				}
			}
		}
	})
}
