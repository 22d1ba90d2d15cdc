package metrics

import (
	"context"
	"encoding/json"
	"log/slog"
	"testing"

	"github.com/plugcast/plugcast/transport/testpeer/lifecycle"
)

// noNodes is a registry in which nobody is listed.
type noNodes struct{}

func (noNodes) Nodes(context.Context) (map[string]json.RawMessage, error) { return nil, nil }

func TestFeedLifecycle(t *testing.T) {
	t.Parallel()
	lifecycle.Stress(t, func(*testing.T) lifecycle.Part {
		f := NewFeed(noNodes{}, slog.New(slog.DiscardHandler))
		return lifecycle.Part{Run: f.Run, Use: func(ctx context.Context) {
			cancel := f.Subscribe(func([]byte) {})
			<-ctx.Done()
			cancel()
		}}
	})
}
