// Package isolate contains faults, so that one part of plugcast does not take others with it. A panic ends the work that
// panicked and not the process: see [Run], [Do] and [Loop]. The work for one key, such as a system, does not wait for
// the work for another: see [KeyedPool]. The package imports no other package of plugcast than backoff, so that every
// package may use it.
package isolate

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"runtime/debug"
	"sync"
	"time"

	"github.com/plugcast/plugcast/domain/backoff"
)

// PanicError is the error that [Run] returns for a panic.
type PanicError struct {
	Where string // the part that panicked, as passed to Run
	Value any    // the value of the panic
}

// Error implements error.
func (e *PanicError) Error() string { return fmt.Sprintf("%s: panic: %v", e.Where, e.Value) }

// Run calls f and returns its error. If f panics, Run logs the panic with its stack, counts it under where, and returns
// it as a [PanicError]. A nil logger logs nothing. Run does not cover goroutines that f starts: each needs its own Run.
func Run(logger *slog.Logger, where string, f func() error) (err error) {
	defer func() {
		if value := recover(); value != nil {
			err = Recovered(logger, where, value)
		}
	}()
	return f()
}

// Do is [Run] for a function without an error. It reports whether f returned without a panic.
func Do(logger *slog.Logger, where string, f func()) bool {
	return Run(logger, where, func() error { f(); return nil }) == nil
}

// Recovered logs and counts a panic that the caller has recovered, and returns it as an error. It is for callers that
// handle some panics themselves. value is the result of recover.
func Recovered(logger *slog.Logger, where string, value any) *PanicError {
	count(where)
	if logger != nil {
		logger.Error("caught a panic", "where", where, "panic", value, "stack", string(debug.Stack()))
	}
	return &PanicError{where, value}
}

// The first and the longest pause of [Loop] after a panic.
const (
	firstPause   = 100 * time.Millisecond
	longestPause = 5 * time.Second
)

// Loop calls f until f returns without a panic. After a panic it pauses, for 0.1 to 5 s, and calls f again unless ctx has
// ended. It is for goroutines that must live as long as their owner.
func Loop(ctx context.Context, logger *slog.Logger, where string, f func()) {
	retry := backoff.Backoff{First: firstPause, Max: longestPause}
	for !Do(logger, where, f) {
		if retry.Wait(ctx) != nil {
			return
		}
	}
}

// panics counts the panics of the whole process. A panic is a bug in the program, no matter which part of it runs, so
// callers need not pass a counter around.
var panics struct {
	mu    sync.Mutex
	count map[string]uint64
}

func count(where string) {
	panics.mu.Lock()
	defer panics.mu.Unlock()
	if panics.count == nil {
		panics.count = map[string]uint64{}
	}
	panics.count[where]++
}

// Panics returns the number of panics since the process started, by the where of [Run]. It is safe for concurrent use.
func Panics() map[string]uint64 {
	panics.mu.Lock()
	defer panics.mu.Unlock()
	return maps.Clone(panics.count)
}
