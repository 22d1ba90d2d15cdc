package ws

import "time"

// bucket is a token bucket. It has no clock: times are given to it and only
// grow. The zero bucket is full.
type bucket struct {
	spent float64 // of the burst
	at    time.Time
}

// take takes one token, or says after how long there will be one.
func (b *bucket) take(rate Rate, now time.Time) (ok bool, retryAfter time.Duration) {
	b.spent = max(0, b.spent-rate.PerSecond*now.Sub(b.at).Seconds())
	b.at = now
	if missing := b.spent + 1 - rate.Burst; missing > 0 {
		return false, time.Duration(missing / rate.PerSecond * float64(time.Second))
	}
	b.spent++
	return true, 0
}
