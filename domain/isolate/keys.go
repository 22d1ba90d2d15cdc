package isolate

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/plugcast/plugcast/domain/backoff"
)

// Pauses of a key whose work failed.
const (
	firstKeyPause   = 250 * time.Millisecond
	longestKeyPause = 30 * time.Second
	// keptFailures is how many keys that failed are known before old ones go.
	keptFailures = 1000
)

// Keys runs work by key: one piece per key at a time, and a bounded number in
// all. A key whose work failed pauses, longer each time, and the keys that failed
// last share half of the places, so that the others always find one however long
// a failing key takes. The zero value is not usable: see [NewKeys].
type Keys[K comparable] struct {
	logger  *slog.Logger
	where   string
	most    int
	timeout time.Duration

	mu      sync.Mutex
	running map[K]struct{}
	failed  map[K]*failing
	slow    int // how many of running are of keys that failed last
	working sync.WaitGroup
}

// failing is what is known of a key whose work failed last.
type failing struct {
	retry backoff.Backoff
	until time.Time
}

// NewKeys makes Keys that run at most so many pieces of work at a time, at least
// two, each for at most the timeout. where names the work in the log and among the
// [Panics].
func NewKeys[K comparable](logger *slog.Logger, where string, most int, timeout time.Duration) *Keys[K] {
	return &Keys[K]{
		logger: logger, where: where, most: max(most, 2), timeout: timeout, running: map[K]struct{}{}, failed: map[K]*failing{},
	}
}

// Go runs f in a goroutine of its own and returns at once. It runs nothing when
// work for the key is under way, when the key pauses after a failure, or when all
// places are taken; the caller comes again. The context that f gets ends with ctx
// or after the timeout.
func (k *Keys[K]) Go(ctx context.Context, key K, f func(ctx context.Context) error) (started bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	failed := k.failed[key]
	slow := failed != nil
	switch _, running := k.running[key]; {
	case running, len(k.running) >= k.most, slow && (k.slow >= k.most/2 || time.Now().Before(failed.until)):
		return false
	}
	k.running[key] = struct{}{}
	if slow {
		k.slow++
	}
	k.working.Go(func() {
		working, cancel := context.WithTimeout(ctx, k.timeout)
		defer cancel()
		err := Run(k.logger, k.where, func() error { return f(working) })
		if err != nil && ctx.Err() == nil && k.logger != nil {
			k.logger.Warn(k.where+": failed; trying again later", "key", key, "error", err)
		}
		k.end(key, slow, err)
	})
	return true
}

func (k *Keys[K]) end(key K, slow bool, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.running, key)
	if slow {
		k.slow--
	}
	if err == nil {
		delete(k.failed, key)
		return
	}
	f := k.failed[key]
	if f == nil {
		k.forget()
		f = &failing{retry: backoff.Backoff{First: firstKeyPause, Max: longestKeyPause}}
		k.failed[key] = f
	}
	f.until = time.Now().Add(f.retry.Next())
}

// forget drops keys that failed long ago and never came again. k.mu is held.
func (k *Keys[K]) forget() {
	if len(k.failed) < keptFailures {
		return
	}
	long := time.Now().Add(-longestKeyPause)
	for key, f := range k.failed {
		if f.until.Before(long) {
			delete(k.failed, key)
		}
	}
}

// Wait returns when no work is under way. No Go may run at the same time.
func (k *Keys[K]) Wait() { k.working.Wait() }
