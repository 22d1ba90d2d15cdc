package rest

import (
	"context"
	"time"

	"github.com/plugcast/plugcast/domain/backoff"
)

const (
	maxDelay   = 100 * time.Millisecond
	maxDelayed = 1024 // requests
)

// pacer delays answers to callers that are over their rate limit. A client that repeats
// a refused request at once, on each of its connections, gets at most ten refusals a
// second on each. Without the delay, the refusals of one system would take the
// processor from the others. Clients that obey Retry-After lose nothing, because they
// wait longer than the delay anyway. It is safe for concurrent use.
type pacer struct {
	slots chan struct{} // has one entry per delayed answer
}

func newPacer() *pacer { return &pacer{slots: make(chan struct{}, maxDelayed)} }

// delay waits for maxDelay and returns how long it waited. It returns when ctx ends,
// and at once if maxDelayed other answers are delayed already.
func (p *pacer) delay(ctx context.Context) time.Duration {
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	default:
		return 0
	}
	began := time.Now()
	_ = backoff.Sleep(ctx, maxDelay) // it may end early
	return time.Since(began)
}
