package rest

import (
	"context"
	"time"
)

const (
	longestHold = 100 * time.Millisecond
	maxHeld     = 1024 // requests
)

// pacer holds answers to callers that are over their rate limit. A client that repeats
// a refused request at once, on each of its connections, gets at most ten refusals a
// second on each: otherwise the refusals of one system take the processor from the
// others. Clients that heed Retry-After lose nothing, because they have to wait longer
// than that anyway. It is safe for concurrent use.
type pacer struct {
	held chan struct{} // a place for each answer that is held back
}

func newPacer() *pacer { return &pacer{held: make(chan struct{}, maxHeld)} }

// hold waits until the caller may try again, for at most longestHold, and returns how
// long it waited. It returns at once when ctx ends, and when it holds maxHeld answers
// already.
func (p *pacer) hold(ctx context.Context, wait time.Duration) time.Duration {
	select {
	case p.held <- struct{}{}:
		defer func() { <-p.held }()
	default:
		return 0
	}
	wait = min(wait, longestHold)
	timer := time.NewTimer(wait)
	defer timer.Stop()
	began := time.Now()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	return time.Since(began)
}
