package lifecycle

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
)

// Visit serves the handler on loopback, sends it one request for the path as a client does that knows the token, and reads
// the answer until it or ctx ends. With upgrade, it asks for a WebSocket.
func Visit(ctx context.Context, handler http.Handler, path, token string, upgrade bool) {
	server := httptest.NewServer(handler)
	defer server.Close()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+path, nil)
	if err != nil {
		return
	}
	request.Header = http.Header{"Authorization": {"Bearer " + token}, "Connection": {"close"}}
	if upgrade {
		request.Header.Set("Connection", "Upgrade")
		request.Header.Set("Upgrade", "websocket")
		request.Header.Set("Sec-WebSocket-Version", "13")
		request.Header.Set("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
	}
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		return
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	if request.Write(conn) == nil {
		_, _ = io.Copy(io.Discard, conn)
	}
}
