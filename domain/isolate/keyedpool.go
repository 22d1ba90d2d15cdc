package isolate

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/plugcast/plugcast/domain/backoff"
)

const (
	// The first and the longest pause of a key after its work failed.
	firstKeyPause   = 250 * time.Millisecond
	longestKeyPause = 30 * time.Second
	// maxFailedKeys is the number of failed keys from which on the pool forgets old ones.
	maxFailedKeys = 1000
)

// KeyedPool runs work in goroutines, by key: at most one piece of work per key at a time, and a limited number in all. A
// key whose work failed pauses, for longer after each failure in a row. Keys whose last work failed share half of the
// goroutines, so that the other keys always find one, no matter how long the work of a failing key takes. Use
// [NewKeyedPool]. A KeyedPool is safe for concurrent use.
type KeyedPool[K comparable] struct {
	logger  *slog.Logger
	where   string
	limit   int
	timeout time.Duration

	mu            sync.Mutex
	running       map[K]struct{}
	failed        map[K]*failedKey // keys whose last work failed
	failedRunning int              // number of running whose key was in failed at the start
	goroutines    sync.WaitGroup
}

// failedKey is a key whose last work failed.
type failedKey struct {
	retry backoff.Backoff
	until time.Time // end of the pause
}

// NewKeyedPool returns a pool that runs at most limit pieces of work at a time, and at least two. It cancels the context
// of each after the timeout. where names the work in the log and in [Panics]. A nil logger logs nothing.
func NewKeyedPool[K comparable](logger *slog.Logger, where string, limit int, timeout time.Duration) *KeyedPool[K] {
	return &KeyedPool[K]{
		logger: logger, where: where, limit: max(limit, 2), timeout: timeout, running: map[K]struct{}{}, failed: map[K]*failedKey{},
	}
}

// Go starts f in a goroutine and returns at once. It starts nothing, and returns false, if work for the key is running, if
// the key pauses after a failure, or if the pool is full; the caller may try again later. The context that f receives
// ends with ctx or after the timeout.
func (k *KeyedPool[K]) Go(ctx context.Context, key K, f func(ctx context.Context) error) (started bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	failed := k.failed[key]
	hasFailed := failed != nil
	switch _, running := k.running[key]; {
	case running, len(k.running) >= k.limit, hasFailed && (k.failedRunning >= k.limit/2 || time.Now().Before(failed.until)):
		return false
	}
	k.running[key] = struct{}{}
	if hasFailed {
		k.failedRunning++
	}
	k.goroutines.Go(func() {
		limited, cancel := context.WithTimeout(ctx, k.timeout)
		defer cancel()
		err := Run(k.logger, k.where, func() error { return f(limited) })
		if err != nil && ctx.Err() == nil && k.logger != nil {
			k.logger.Warn(k.where+": failed; will retry", "key", key, "error", err)
		}
		k.end(key, hasFailed, err)
	})
	return true
}

// end records the result of a key's work.
func (k *KeyedPool[K]) end(key K, hadFailed bool, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.running, key)
	if hadFailed {
		k.failedRunning--
	}
	if err == nil {
		delete(k.failed, key)
		return
	}
	f := k.failed[key]
	if f == nil {
		k.forgetOldFailures()
		f = &failedKey{retry: backoff.Backoff{First: firstKeyPause, Max: longestKeyPause}}
		k.failed[key] = f
	}
	f.until = time.Now().Add(f.retry.Next())
}

// forgetOldFailures removes keys that failed long ago and that nobody tried again. The caller must hold k.mu.
func (k *KeyedPool[K]) forgetOldFailures() {
	if len(k.failed) < maxFailedKeys {
		return
	}
	long := time.Now().Add(-longestKeyPause)
	for key, f := range k.failed {
		if f.until.Before(long) {
			delete(k.failed, key)
		}
	}
}

// Wait waits until no work is running. Do not call Go at the same time.
func (k *KeyedPool[K]) Wait() { k.goroutines.Wait() }
