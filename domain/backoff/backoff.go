// Package backoff spaces what is repeated: retries with [Backoff], and regular work with [Every]. It imports no other package of plugcast, so that every package may use
// it.
package backoff

import (
	"context"
	"math/rand/v2"
	"time"
)

// Backoff determines how long to wait before the next attempt. It draws each wait at random from a window that doubles
// with every attempt, so that callers that failed at the same time do not retry at the same time. It is not safe for
// concurrent use.
type Backoff struct {
	// First is the first window, and Max the largest. A First of less than a millisecond counts as one millisecond, so
	// that there is a pause between all attempts. A Max below First counts as First.
	First, Max time.Duration
	// StableAfter is how long an attempt must have succeeded for [Backoff.ResetIfStable] to start over.
	StableAfter time.Duration
	// FullJitter draws from the whole window instead of its upper half. That spreads callers the most, and makes some
	// waits very short.
	FullJitter bool
	// Rand returns numbers in [0, 1]; nil means math/rand.
	Rand func() float64

	window time.Duration // 0 before the first attempt
}

// minWindow is the smallest first window.
const minWindow = time.Millisecond

// Next returns the next wait and doubles the window up to Max.
func (b *Backoff) Next() time.Duration {
	first := max(b.First, minWindow)
	largest := max(b.Max, first)
	if b.window == 0 {
		b.window = first
	}
	chance := b.Rand
	if chance == nil {
		chance = rand.Float64
	}
	part := chance()
	if !b.FullJitter {
		part = (1 + part) / 2
	}
	wait := time.Duration(part * float64(b.window))
	if b.window > largest/2 { // twice the window may overflow a Duration
		b.window = largest
	} else {
		b.window *= 2
	}
	return wait
}

// Wait sleeps for [Backoff.Next]. If ctx ends first, it returns ctx's error.
func (b *Backoff) Wait(ctx context.Context) error { return Sleep(ctx, b.Next()) }

// IsReset reports whether the next wait is the first one, or the first one since a reset.
func (b *Backoff) IsReset() bool { return b.window == 0 }

// Reset starts over with the first window.
func (b *Backoff) Reset() { b.window = 0 }

// ResetIfStable resets b if an attempt that succeeded for d has lasted long enough. A connection that opens and closes at
// once is no reason to retry faster.
func (b *Backoff) ResetIfStable(d time.Duration) {
	if d >= b.StableAfter {
		b.Reset()
	}
}

// Jitter returns a random duration between d/2 and d, or 0 if d is not positive.
func Jitter(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return d/2 + rand.N(d/2+1)
}

// Sleep waits for d. If ctx ends first, or has ended, it returns ctx's error.
func Sleep(ctx context.Context, d time.Duration) error { return SleepOr(ctx, d, nil) }

// SleepOr is [Sleep], except that it also ends, without an error, when it receives from wake or wake is closed. A nil
// wake never ends it.
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

// Every calls fn every d with the time, for the first time after d, until ctx ends. While a call takes longer than d,
// Every skips the calls that would be due.
func Every(ctx context.Context, d time.Duration, fn func(now time.Time)) {
	ticker := time.NewTicker(d)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			fn(now)
		}
	}
}
