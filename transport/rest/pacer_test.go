package rest

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// The pacer delays a refusal for a moment, and not beyond the end of the request.
func TestRefusalsAreHeldBack(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		over bool
		want time.Duration
	}{
		"a request":              {false, maxDelay},
		"a request that is over": {true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, end := context.WithCancel(t.Context())
				defer end()
				if c.over {
					end()
				}
				if got := newPacer().delay(ctx); got != c.want {
					t.Errorf("held for %v, want %v", got, c.want)
				}
			})
		})
	}
}

// The pacer delays at most maxDelayed refusals at a time.
func TestHeldRefusalsAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPacer()
		var held sync.WaitGroup
		for range maxDelayed {
			held.Go(func() { p.delay(t.Context()) })
		}
		synctest.Wait()
		if got := p.delay(t.Context()); got != 0 {
			t.Errorf("the one too many is held for %v", got)
		}
		held.Wait()
		if got := p.delay(t.Context()); got != maxDelay {
			t.Errorf("afterwards held for %v", got)
		}
	})
}
