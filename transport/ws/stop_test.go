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

// panicking is an authenticator with a fault.
type panicking struct{ *tokenTable }

func (panicking) Authenticate(context.Context, *http.Request) (domain.Actor, error) {
	panic("on purpose")
}

// A handshake that panics, which net/http survives, does not hold up a stop.
func TestStopAfterAHandshakeThatPanics(t *testing.T) {
	t.Parallel()
	logger := slog.New(slog.DiscardHandler)
	hub, err := rooms.New(clienttest.NewSource(), rooms.Config{}, logger)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(hub.Close)
	s, err := New(Config{}, client.Parts{Rooms: hub, Authenticator: panicking{newTokenTable()}, Logger: logger})
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
