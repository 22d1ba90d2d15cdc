package ws

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/client"
	"github.com/plugcast/plugcast/transport/rooms"
	"github.com/plugcast/plugcast/transport/testpeer/clienttest"
)

// panicking is an authenticator that panics.
type panicking struct{ *clienttest.Authenticator }

func (panicking) Authenticate(context.Context, *http.Request) (domain.Actor, error) {
	panic("on purpose")
}

// A panic in a handshake, which net/http survives, does not delay the stop.
func TestStopAfterAHandshakeThatPanics(t *testing.T) {
	t.Parallel()
	logger := slog.New(slog.DiscardHandler)
	hub := clienttest.NewHub(t, clienttest.NewSource(), rooms.Config{})
	s, err := New(Config{}, client.Parts{Rooms: hub, Authenticator: panicking{newAuthenticator()}, Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodGet, "/ws", nil)
	r.Header.Set("Connection", "Upgrade")
	r.Header.Set("Upgrade", "websocket")
	func() {
		defer func() { _ = recover() }()
		s.ServeHTTP(httptest.NewRecorder(), r)
	}()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	stopped := make(chan error, 1)
	go func() { stopped <- s.Shutdown(t.Context()) }()
	select {
	case err := <-stopped:
		if err != nil {
			t.Error(err)
		}
	case <-ctx.Done():
		t.Fatal("the stop waits")
	}
}
