package cloud

import (
	"context"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/plugcast/plugcast/domain/backoff"
)

// The shortest pause after a 429 without Retry-After, and the longest after any.
const (
	minPenalty = 2 * time.Second
	maxPenalty = time.Minute
)

// throttle spaces the HTTP requests of one account: the vendor allows one a second
// (CCA) and answers bursts with 429.
type throttle struct {
	limiter *rate.Limiter

	mu      sync.Mutex
	until   time.Time // no request before
	penalty time.Duration

	// Guarded by the mutex of throttles.
	users int
	idle  time.Time // since when it has no users
}

// wait returns when a request may be made, or with ctx's error when ctx ends.
func (t *throttle) wait(ctx context.Context) error {
	for {
		t.mu.Lock()
		wait := time.Until(t.until)
		t.mu.Unlock()
		if wait <= 0 {
			return t.limiter.Wait(ctx)
		}
		if err := backoff.Sleep(ctx, wait); err != nil {
			return err
		}
	}
}

// limited notes a 429 that asks for a pause of retryAfter. When that is 0, the pause
// is twice the last one.
func (t *throttle) limited(retryAfter time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.penalty = min(max(2*t.penalty, minPenalty), maxPenalty)
	if retryAfter <= 0 {
		retryAfter = t.penalty
	}
	if until := time.Now().Add(min(retryAfter, maxPenalty)); until.After(t.until) {
		t.until = until
	}
}

// answered notes any other answer.
func (t *throttle) answered() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.penalty = 0
}

// throttles are those of the accounts in use: two credentials of one account share
// one. A throttle outlives its last user for a while, because the account's recent
// requests also count against the next user.
type throttles struct {
	every time.Duration

	mu        sync.Mutex
	byAccount map[string]*throttle
}

func newThrottles(every time.Duration) *throttles {
	return &throttles{every: every, byAccount: map[string]*throttle{}}
}

// of returns the account's throttle, and the function that releases it.
func (ts *throttles) of(account string) (t *throttle, release func()) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	for name, t := range ts.byAccount {
		if t.users == 0 && time.Since(t.idle) > maxPenalty {
			delete(ts.byAccount, name)
		}
	}
	t = ts.byAccount[account]
	if t == nil {
		t = &throttle{limiter: rate.NewLimiter(rate.Every(ts.every), 1)}
		ts.byAccount[account] = t
	}
	t.users++
	return t, sync.OnceFunc(func() {
		ts.mu.Lock()
		defer ts.mu.Unlock()
		t.users--
		t.idle = time.Now()
	})
}
