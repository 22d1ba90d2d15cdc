package socketio

import (
	"context"
	"log/slog"
	"testing"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/client"
	"github.com/plugcast/plugcast/transport/rooms"
	"github.com/plugcast/plugcast/transport/testpeer/clienttest"
	"github.com/plugcast/plugcast/transport/testpeer/lifecycle"
)

func TestLifecycle(t *testing.T) {
	t.Parallel()
	hub := clienttest.NewHub(t, clienttest.NewSource(), rooms.Config{Linger: -1})
	lifecycle.Stress(t, func(t *testing.T) lifecycle.Part {
		s, err := New(Config{Node: "node-1"}, client.Parts{
			Rooms: hub, Authenticator: &clienttest.Authenticator{}, Logger: slog.New(slog.DiscardHandler),
		}, newMemory())
		if err != nil {
			t.Fatal(err)
		}
		return lifecycle.Part{Run: s.Run, Shutdown: s.Shutdown, Use: func(ctx context.Context) {
			lifecycle.Visit(ctx, s, "/socket.io/?EIO=4&transport=polling", "", false)
			lifecycle.Visit(ctx, s, "/socket.io/?EIO=4&transport=websocket", "", true)
			s.Disconnect(func(domain.Socket) bool { return true }, client.ForcedDisconnect{})
		}}
	})
}
