package cloud

import (
	"context"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/plugcast/plugcast/domain/backoff"
)

// Bounds of what a 429 is answered with when it does not say how long to wait.
const (
	minPenalty = 2 * time.Second
	maxPenalty = time.Minute
)

// gate lets one request at a time through to an account: the vendor allows one a
// second (CCA) and answers bursts with 429.
type gate struct {
	limiter *rate.Limiter

	mu      sync.Mutex
	until   time.Time // no request before
	penalty time.Duration
}

func newGate(every time.Duration) *gate {
	return &gate{limiter: rate.NewLimiter(rate.Every(every), 1)}
}

// pass waits until a request may be made, or for the end of ctx.
func (g *gate) pass(ctx context.Context) error {
	for {
		g.mu.Lock()
		wait := time.Until(g.until)
		g.mu.Unlock()
		if wait <= 0 {
			return g.limiter.Wait(ctx)
		}
		if err := backoff.Sleep(ctx, wait); err != nil {
			return err
		}
	}
}

// limited says that a request was answered with 429, and after how long to come
// back, or 0. Without it the waits double.
func (g *gate) limited(retryAfter time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.penalty = min(max(2*g.penalty, minPenalty), maxPenalty)
	if retryAfter <= 0 {
		retryAfter = g.penalty
	}
	if until := time.Now().Add(min(retryAfter, maxPenalty)); until.After(g.until) {
		g.until = until
	}
}

// answered says that a request was answered otherwise.
func (g *gate) answered() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.penalty = 0
}

// gates are the gates of the accounts in use, by account: two credentials of one
// account share one. A gate is kept for a while after its last use: what the account
// has asked for just now counts also for who comes next.
type gates struct {
	every time.Duration

	mu   sync.Mutex
	open map[string]*sharedGate
}

type sharedGate struct {
	gate  *gate
	users int
	left  time.Time // when the last user left
}

func newGates(every time.Duration) *gates {
	return &gates{every: every, open: map[string]*sharedGate{}}
}

// of returns the account's gate, and what gives it back.
func (g *gates) of(account string) (*gate, func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for name, idle := range g.open {
		if idle.users == 0 && time.Since(idle.left) > maxPenalty {
			delete(g.open, name)
		}
	}
	shared := g.open[account]
	if shared == nil {
		shared = &sharedGate{gate: newGate(g.every)}
		g.open[account] = shared
	}
	shared.users++
	return shared.gate, sync.OnceFunc(func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		shared.users--
		shared.left = time.Now()
	})
}
