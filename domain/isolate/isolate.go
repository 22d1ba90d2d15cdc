// Package isolate contains faults. A panic ends the work that panicked and not the
// process: see [Run], [Do] and [Loop]. The work of one key, such as a system, does
// not wait for that of another: see [Keys]. Of the platform the package imports
// nothing but package backoff, so that every package may use it.
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

// PanicError is the error that a panic becomes.
type PanicError struct {
	Where string // the part that panicked
	Value any    // the value of the panic
}

// Error implements error.
func (e *PanicError) Error() string { return fmt.Sprintf("%s: a fault of ours: %v", e.Where, e.Value) }

// Run calls f and returns its error. A panic in f is logged with its stack,
// counted under where, and returned as a [PanicError]. A nil logger drops the log
// line. Goroutines that f starts are not covered: they need a Run of their own.
func Run(logger *slog.Logger, where string, f func() error) (err error) {
	defer func() {
		if value := recover(); value != nil {
			err = Recovered(logger, where, value)
		}
	}()
	return f()
}

// Do is [Run] for a function without an error. It reports whether f returned.
func Do(logger *slog.Logger, where string, f func()) bool {
	return Run(logger, where, func() error { f(); return nil }) == nil
}

// Recovered logs and counts a panic that the caller has recovered, and returns it
// as an error. It is for callers that treat some panics themselves.
func Recovered(logger *slog.Logger, where string, value any) *PanicError {
	count(where)
	if logger != nil {
		logger.Error("caught a panic", "where", where, "panic", value, "stack", string(debug.Stack()))
	}
	return &PanicError{where, value}
}

// Pauses of [Loop] before it calls a function again that panicked.
const (
	firstPause   = 100 * time.Millisecond
	longestPause = 5 * time.Second
)

// Loop calls f, and again when it panicked, after a pause that grows, until f
// returns by itself or ctx ends. It is for goroutines that must live as long as
// their owner.
func Loop(ctx context.Context, logger *slog.Logger, where string, f func()) {
	retry := backoff.Backoff{First: firstPause, Max: longestPause}
	for !Do(logger, where, f) {
		if retry.Wait(ctx) != nil {
			return
		}
	}
}

// panics counts what was caught. A panic is a fault of the program, whichever
// part of it runs, so the count is the process's own and not passed around.
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

// Panics returns how many panics were caught since the process began, by where.
func Panics() map[string]uint64 {
	panics.mu.Lock()
	defer panics.mu.Unlock()
	return maps.Clone(panics.count)
}
