package cloud

import (
	"math/rand/v2"
	"time"
)

// backoff says how long to wait before the next attempt. The waits are drawn from
// the whole of a window that doubles (full jitter): after an outage of the vendor's
// all credentials come back at once, and a window with a fixed part would keep them
// together. It is a value without a clock.
type backoff struct {
	from, to time.Duration // the first window and the widest
	stable   time.Duration // how long a socket lasts that is worth starting over for
	random   func() float64

	window time.Duration
}

func newBackoff(c Config) backoff {
	return backoff{from: c.BackoffMin, to: c.BackoffMax, stable: c.StableAfter, random: rand.Float64}
}

// next draws a wait and widens the window.
func (b *backoff) next() time.Duration {
	if b.window == 0 {
		b.window = b.from
	}
	wait := time.Duration(b.random() * float64(b.window))
	b.window = min(2*b.window, b.to)
	return wait
}

// lasted says how long a socket was open. One that opens and closes again is no
// reason to be quick the next time: an expired token does just that (measured).
func (b *backoff) lasted(d time.Duration) {
	if d >= b.stable {
		b.window = 0
	}
}
