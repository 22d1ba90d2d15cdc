package suite

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/plugcast/plugcast/transport/socketio/prototest"
)

// Every point of both protocols, as clients see it.
func TestProtocol(t *testing.T) {
	t.Parallel()
	prototest.Run(t, prototest.Subject{Start: start})
}

func start(t *testing.T, s prototest.Settings) string {
	config := Config()
	config.PingInterval, config.PingTimeout, config.UpgradeTimeout = s.PingInterval, s.PingTimeout, s.UpgradeTimeout
	config.SettleTimeout, config.MaxPayload = s.ConnectTimeout, int64(s.MaxPayload)
	config.CheckOrigin = func(r *http.Request) bool {
		origin := r.Header.Get("Origin")
		return origin == "" || origin == s.Origin
	}
	server, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	listening := httptest.NewServer(server)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := server.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		listening.Close()
		if n := server.Sessions(); n != 0 {
			t.Errorf("%d sessions are left", n)
		}
	})
	return listening.URL
}
