package rooms_test

import (
	"context"
	"log/slog"
	"testing"

	"github.com/plugcast/plugcast/transport/rooms"
	"github.com/plugcast/plugcast/transport/testpeer/clienttest"
	"github.com/plugcast/plugcast/transport/testpeer/lifecycle"
)

func TestLifecycle(t *testing.T) {
	t.Parallel()
	source := clienttest.NewSource()
	source.Append(sol, clienttest.Updates(3)...)
	lifecycle.Stress(t, func(t *testing.T) lifecycle.Part {
		hub, err := rooms.New(source, rooms.Config{}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		return lifecycle.Part{
			Shutdown: func(context.Context) error { hub.Close(); return nil },
			Use: func(ctx context.Context) {
				s := &socket{held: true}
				sub, _, err := hub.Join(ctx, sol, rooms.Options{}, s)
				if err != nil {
					return
				}
				defer sub.Leave()
				sub.Start()
				source.Append(sol, clienttest.Updates(1)...)
				<-ctx.Done()
			},
		}
	})
}
