package sse

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/client"
	"github.com/plugcast/plugcast/transport/rooms"
	"github.com/plugcast/plugcast/transport/testpeer/clienttest"
	"github.com/plugcast/plugcast/transport/testpeer/lifecycle"
)

func TestLifecycle(t *testing.T) {
	t.Parallel()
	var config Config
	auth := &clienttest.Authenticator{}
	auth.Name("viewer", domain.Actor{
		Subject: "eva", Role: domain.RoleViewer, Systems: []domain.SystemID{clienttest.Sol}, ExpiresAt: time.Now().Add(time.Hour),
	})
	newFace(t, func(_ *face, c *Config) { config = *c })
	config.Parts.Authenticator = auth
	// The hub owns a room that lingers, and the room outlives the server that opened it.
	config.Parts.Rooms = clienttest.NewHub(t, clienttest.NewSource(), rooms.Config{Linger: -1})
	lifecycle.Stress(t, func(t *testing.T) lifecycle.Part {
		s, err := New(config)
		if err != nil {
			t.Fatal(err)
		}
		mux := http.NewServeMux()
		mux.Handle(Pattern, s)
		return lifecycle.Part{Run: s.Run, Shutdown: s.Shutdown, Use: func(ctx context.Context) {
			lifecycle.Visit(ctx, mux, "/api/v1/systems/clinica-sol/events/stream", "viewer", false)
			s.Disconnect(func(domain.Socket) bool { return true }, client.ForcedDisconnect{})
		}}
	})
}
