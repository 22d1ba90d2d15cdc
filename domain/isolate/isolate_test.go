package isolate

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestRunMakesAPanicAnError(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	before := Panics()["run test"]
	err := Run(slog.New(slog.NewTextHandler(&out, nil)), "run test", func() error { panic("boom") })
	var caught *PanicError
	if !errors.As(err, &caught) || caught.Value != "boom" || caught.Where != "run test" {
		t.Errorf("got %v", err)
	}
	if !strings.Contains(out.String(), "isolate_test.go") || !strings.Contains(out.String(), "boom") {
		t.Errorf("logged without the stack: %s", out.String())
	}
	if n := Panics()["run test"] - before; n != 1 {
		t.Errorf("counted %d", n)
	}
	want := errors.New("usual")
	if err := Run(nil, "run test", func() error { return want }); err != want {
		t.Errorf("got %v", err)
	}
	if Do(nil, "do test", func() { panic(want) }) || !Do(nil, "do test", func() {}) {
		t.Error("Do does not tell a panic from a return")
	}
}

func TestLoopCallsAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		Loop(t.Context(), nil, "loop test", func() {
			if calls++; calls < 4 {
				panic("again")
			}
		})
		if calls != 4 {
			t.Errorf("called %d times", calls)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		Loop(ctx, nil, "loop test", func() { panic("for ever") })
		if ctx.Err() == nil {
			t.Error("ended before its context")
		}
	})
}

// Keys whose work hangs or fails leave goroutines for the others, and may be tried again.
func TestKeyedPoolKeysAreIndependent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		keys := NewKeyedPool[int](nil, "keys test", 4, time.Second)
		hang := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		var tries atomic.Int32
		for key := range 4 {
			if !keys.Go(t.Context(), key, hang) {
				t.Fatal("not started")
			}
		}
		if keys.Go(t.Context(), 9, hang) {
			t.Error("more run at a time than may")
		}
		time.Sleep(2 * time.Second) // the bubble's clock
		for key := range 4 {
			if keys.Go(t.Context(), key, func(context.Context) error { tries.Add(1); panic("again") }) != (key < 2) {
				t.Errorf("key %d: keys that failed take more or less than half of the places", key)
			}
		}
		if !keys.Go(t.Context(), 9, hang) || keys.Go(t.Context(), 9, hang) {
			t.Error("a healthy key does not have one place")
		}
		synctest.Wait()
		if keys.Go(t.Context(), 0, hang) {
			t.Error("a key that failed does not pause")
		}
		time.Sleep(longestKeyPause)
		done := false
		if !keys.Go(t.Context(), 0, func(context.Context) error { done = true; return nil }) {
			t.Error("a key that failed is not tried again")
		}
		keys.Wait()
		if !done || tries.Load() != 2 || len(keys.failed) != 4 || len(keys.running) != 0 || keys.failedRunning != 0 {
			t.Errorf("done %v after %d tries; %d failed, %d running, %d of them failed before",
				done, tries.Load(), len(keys.failed), len(keys.running), keys.failedRunning)
		}
	})
}
