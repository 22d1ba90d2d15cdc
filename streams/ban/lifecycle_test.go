package ban

import (
	"context"
	"log/slog"
	"testing"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/streams/redisserver/redistest"
	"github.com/plugcast/plugcast/transport/testpeer/lifecycle"
)

func TestLifecycle(t *testing.T) {
	t.Parallel()
	client := redistest.Connect(t, redistest.URL(t))
	lifecycle.Stress(t, func(*testing.T) lifecycle.Part {
		list := New(client, "test", slog.New(slog.DiscardHandler))
		return lifecycle.Part{
			Run: func(ctx context.Context) error { return list.Run(ctx, unlearned) },
			Use: func(ctx context.Context) {
				_ = list.Raise(ctx, domain.Ban{Subject: "maria", Until: soon})
				_ = list.Load(ctx)
				list.Check(maria, "clinica-sol")
			},
		}
	})
}
