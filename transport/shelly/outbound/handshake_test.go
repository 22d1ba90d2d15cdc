package outbound

import (
	"context"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
)

// counted is a context that counts the functions that wait for its end.
type counted struct {
	context.Context
	waiting *atomic.Int64
}

func (counted) Value(any) any { return nil } // or package context would not ask

// AfterFunc is the method that package context calls on a foreign context.
func (c counted) AfterFunc(f func()) (stop func() bool) {
	c.waiting.Add(1)
	inner := context.AfterFunc(c.Context, f)
	return func() bool {
		c.waiting.Add(-1)
		return inner()
	}
}

// A failed handshake leaves nothing behind.
func TestHandshakeThatFails(t *testing.T) {
	t.Parallel()
	b := newBundle(t, Config{})
	waiting := new(atomic.Int64)
	b.server.ctx = counted{b.server.ctx, waiting}
	for range 10 {
		r := httptest.NewRequest(http.MethodGet, "/shelly/", nil)
		r.SetPathValue("connectionId", string(acc))
		r.SetPathValue("key", b.keys[acc])
		r.Header.Set("Connection", "Upgrade")
		r.Header.Set("Upgrade", "websocket") // and no Sec-WebSocket-Key
		w := httptest.NewRecorder()
		b.server.ServeHTTP(w, r)
		if w.Code != http.StatusBadRequest {
			t.Fatalf("answered %d %s", w.Code, w.Body)
		}
	}
	if n := waiting.Load(); n > 0 {
		t.Errorf("%d sessions are left", n)
	}
}
