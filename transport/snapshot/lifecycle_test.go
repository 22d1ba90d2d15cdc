package snapshot

import (
	"context"
	"testing"

	"github.com/plugcast/plugcast/transport/testpeer/lifecycle"
)

func TestLifecycle(t *testing.T) {
	t.Parallel()
	lifecycle.Stress(t, func(t *testing.T) lifecycle.Part {
		c, _ := newCache(t, &source{}, 1<<20)
		return lifecycle.Part{
			Shutdown: func(context.Context) error { c.Close(); return nil },
			Use: func(ctx context.Context) {
				if s, err := c.Snapshot(ctx, "a"); err == nil {
					s.Release()
				}
			},
		}
	})
}
