package timeline_test

import (
	"context"
	"testing"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/streams/redisserver/redistest"
	"github.com/plugcast/plugcast/streams/timeline"
	"github.com/plugcast/plugcast/transport/testpeer/lifecycle"
)

func TestLifecycle(t *testing.T) {
	t.Parallel()
	b := setup(t, redistest.URL(t), timeline.Config{})
	b.append(t, "clinica-sol", 3)
	lifecycle.Stress(t, func(*testing.T) lifecycle.Part {
		tl := timeline.New(b.log, b.archive, timeline.Config{})
		return lifecycle.Part{
			Shutdown: func(context.Context) error { return tl.Close() },
			Use: func(ctx context.Context) {
				_ = timeline.Follow(ctx, tl, "clinica-sol", domain.Position{}, func([]domain.Event, uint64) error { return nil })
			},
		}
	})
}
