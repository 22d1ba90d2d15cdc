package lifecycle

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestGoodPartPasses(t *testing.T) {
	t.Parallel()
	Stress(t, func(*testing.T) Part {
		return Part{
			Run: func(ctx context.Context) error {
				var running sync.WaitGroup
				running.Go(func() { <-ctx.Done() })
				running.Wait()
				return nil
			},
			Shutdown: func(ctx context.Context) error { return ctx.Err() },
			Use:      func(ctx context.Context) { <-ctx.Done() },
		}
	})
}

// Not parallel, because it shortens the patience of all.
func TestEachBreachIsFound(t *testing.T) {
	usual := patience
	patience = 300 * time.Millisecond
	defer func() { patience = usual }()
	stop := make(chan struct{})
	defer close(stop)
	wait := func(ctx context.Context) error { <-ctx.Done(); return nil }
	for want, part := range map[string]func() Part{
		"New started a goroutine":   func() Part { go func() { <-stop }(); return Part{Run: wait} },
		"goroutines are left":       func() Part { return Part{Run: wait, Use: func(context.Context) { go func() { <-stop }() }} },
		"does not end":              func() Part { return Part{Run: func(context.Context) error { <-stop; return nil }} },
		"Run returned context":      func() Part { return Part{Run: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }} },
		"Shutdown returned refused": func() Part { return Part{Shutdown: func(context.Context) error { return errors.New("refused") }} },
	} {
		if got := strings.Join(breaches(1, part), "\n"); !strings.Contains(got, want) {
			t.Errorf("%s: got %q", want, got)
		}
	}
}
