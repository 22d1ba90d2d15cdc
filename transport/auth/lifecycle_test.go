package auth

import (
	"context"
	"log/slog"
	"testing"

	"github.com/plugcast/plugcast/transport/testpeer/lifecycle"
)

func TestLifecycle(t *testing.T) {
	t.Parallel()
	lifecycle.Stress(t, func(t *testing.T) lifecycle.Part {
		// Nobody serves these keys.
		a, err := New(Config{JWKSURL: "http://127.0.0.1:1/keys"}, nil, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		return lifecycle.Part{Run: a.Run, Use: func(ctx context.Context) { _, _ = a.Verify(ctx, "not.a.token") }}
	})
}
