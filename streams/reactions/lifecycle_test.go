package reactions

import (
	"context"
	"encoding/json"
	"testing"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/testpeer/lifecycle"
)

// The events come from a real log, and their reactions last until the dispatcher ends.
func TestLifecycle(t *testing.T) {
	t.Parallel()
	log := openLog(t)
	wait := func(ctx context.Context, _ domain.Event) error { <-ctx.Done(); return ctx.Err() }
	lifecycle.Stress(t, func(*testing.T) lifecycle.Part {
		d := New(Config{On: map[domain.EventType]domain.Reaction{domain.TypeDisconnectRequested: wait}, Log: log})
		return lifecycle.Part{
			Once: true,
			Run:  func(ctx context.Context) error { return Follow(ctx, log, d, make(chan struct{})) },
			Use: func(ctx context.Context) {
				_, _ = log.Append(ctx, []domain.Event{{
					Type: domain.TypeDisconnectRequested, Version: 1, SystemID: "clinica-sol", Actor: "test", Data: json.RawMessage(`{}`),
				}}, domain.AppendOptions{})
				d.Stats()
			},
		}
	})
}
