// Package backoff spaces repeated attempts: see [Backoff]. It imports nothing else of
// the platform, so that every package may use it.
package backoff

import (
	"context"
	"math/rand/v2"
	"time"
)

// Backoff says how long to wait before the next attempt. Each wait is drawn from a
// window that doubles with every attempt, so that many callers that failed together
// do not come back together. It is not safe for concurrent use.
type Backoff struct {
	// First is the first window, and Max the widest. A first window of less than a
	// millisecond counts as one, so that attempts are never repeated without a pause; a
	// Max below the first window counts as that.
	First, Max time.Duration
	// Stable is how long a connection has to last for [Backoff.Lasted] to start over.
	Stable time.Duration
	// Full draws from the whole window, and not from its upper half. It spreads the
	// most, and some waits are next to nothing.
	Full bool
	// Rand gives numbers in [0, 1]; math/rand does when it is nil.
	Rand func() float64

	window time.Duration // 0 before the first attempt
}

// leastWindow is the narrowest first window.
const leastWindow = time.Millisecond

// Next draws a wait and doubles the window.
func (b *Backoff) Next() time.Duration {
	first := max(b.First, leastWindow)
	widest := max(b.Max, first)
	if b.window == 0 {
		b.window = first
	}
	chance := b.Rand
	if chance == nil {
		chance = rand.Float64
	}
	part := chance()
	if !b.Full {
		part = (1 + part) / 2
	}
	wait := time.Duration(part * float64(b.window))
	if b.window > widest/2 { // twice as much may be more than a duration holds
		b.window = widest
	} else {
		b.window *= 2
	}
	return wait
}

// Wait sleeps for [Backoff.Next]. It returns ctx's error when ctx ends before.
func (b *Backoff) Wait(ctx context.Context) error { return Sleep(ctx, b.Next()) }

// Fresh reports whether the next wait is the first, or the first after a Reset.
func (b *Backoff) Fresh() bool { return b.window == 0 }

// Reset starts over with the first window.
func (b *Backoff) Reset() { b.window = 0 }

// Lasted says for how long an attempt succeeded, and starts over when that was long
// enough. A connection that opens and closes at once is no reason to be quick.
func (b *Backoff) Lasted(d time.Duration) {
	if d >= b.Stable {
		b.Reset()
	}
}

// Jitter draws a duration between half of d and d; 0 when d is not positive.
func Jitter(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return d/2 + rand.N(d/2+1)
}

// Sleep waits for d, or until ctx ends, and then returns ctx's error.
func Sleep(ctx context.Context, d time.Duration) error { return SleepOr(ctx, d, nil) }

// SleepOr is [Sleep] that ends early, without an error, when a value comes on wake or
// wake is closed. A nil wake never does.
func SleepOr(ctx context.Context, d time.Duration, wake <-chan struct{}) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-wake:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
