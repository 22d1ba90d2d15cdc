package outbound

import (
	"context"
	"net/http"
	"testing"

	"github.com/plugcast/plugcast/transport/testpeer/lifecycle"
)

func TestLifecycle(t *testing.T) {
	t.Parallel()
	b := newBundle(t, Config{})
	path := "/shelly/acc1/" + b.keys[acc]
	lifecycle.Stress(t, func(t *testing.T) lifecycle.Part {
		s, err := New(b.server.config, b.server.parts)
		if err != nil {
			t.Fatal(err)
		}
		mux := http.NewServeMux()
		mux.Handle(Pattern, s)
		return lifecycle.Part{Shutdown: s.Shutdown, Use: func(ctx context.Context) {
			lifecycle.Visit(ctx, mux, path, "", true)
		}}
	})
}
