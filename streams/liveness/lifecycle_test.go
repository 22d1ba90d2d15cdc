package liveness

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/testpeer/lifecycle"
)

func TestLifecycle(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	d := domain.DeviceRef{System: system, Device: "plug"}
	lifecycle.Stress(t, func(t *testing.T) lifecycle.Part {
		r := New(b.log, t.Name(), slog.New(slog.DiscardHandler))
		return lifecycle.Part{
			Run: func(ctx context.Context) error { return r.Run(ctx, nil) },
			Use: func(context.Context) {
				r.Open(d, "session", time.Minute)
				r.Alive(d, "session", time.Minute)
				r.Close(d, "session", time.Minute, domain.ReasonReported)
			},
		}
	})
}
