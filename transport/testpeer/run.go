package testpeer

import (
	"context"
	"testing"
)

// Run calls run, which blocks until its context ends, in a new goroutine. The context ends
// after all cleanups that are registered later, and the test fails if run returns an error.
// It works inside a synctest bubble as well.
func Run(t testing.TB, run func(context.Context) error) {
	t.Helper()
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("run: %v", err)
		}
	})
}
