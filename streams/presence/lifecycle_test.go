package presence

import (
	"context"
	"encoding/json"
	"log/slog"
	"testing"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/streams/redisserver/redistest"
	"github.com/plugcast/plugcast/transport/testpeer/lifecycle"
)

func TestLifecycle(t *testing.T) {
	t.Parallel()
	client := redistest.Connect(t, redistest.URL(t))
	lifecycle.Stress(t, func(t *testing.T) lifecycle.Part {
		r := New(client, "test", t.Name(), slog.New(slog.DiscardHandler))
		return lifecycle.Part{
			Run: func(ctx context.Context) error {
				return r.Run(ctx, func() json.RawMessage { return json.RawMessage(`{}`) })
			},
			Use: func(ctx context.Context) {
				r.Put(domain.Socket{SocketID: "one"})
				_, _, _ = r.Page(ctx, nil, "", 10)
				r.Remove("one")
			},
		}
	})
}
