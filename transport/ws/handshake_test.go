package ws

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

func TestFirstFrame(t *testing.T) {
	t.Parallel()
	ts := serve(t, Config{})
	var status connectionStatus
	ts.dial("viewer").expect(eventConnectionStatus).into(t, &status)
	if !status.Connected || status.Node != "node-1" || status.SocketID != ts.Sockets()[0].SocketID {
		t.Errorf("connection-status %+v", status)
	}
}

func TestSubprotocols(t *testing.T) {
	t.Parallel()
	ts := serve(t, Config{})
	for offered, chosen := range map[string]string{
		"plugcast.v1, bearer.viewer": "plugcast.v1",
		"bearer.viewer, plugcast.v1": "plugcast.v1",
		"bearer.viewer":              "",
	} {
		conn, _, err := (&websocket.Dialer{Subprotocols: strings.Split(offered, ", ")}).Dial(ts.url(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if conn.Subprotocol() != chosen {
			t.Errorf("offered %s, chosen %q", offered, conn.Subprotocol())
		}
		c := &testClient{Conn: conn, t: t}
		c.expect(eventConnectionStatus)
		c.join(sol)
		_ = conn.Close()
	}
}

func TestRefusedUpgrades(t *testing.T) {
	t.Parallel()
	ts := serve(t, Config{})
	upgrade := func(change func(http.Header)) int {
		t.Helper()
		request, err := http.NewRequest(http.MethodGet, ts.http.URL+"/ws", nil)
		if err != nil {
			t.Fatal(err)
		}
		for name, value := range map[string]string{
			"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
			"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Authorization": "Bearer viewer",
		} {
			request.Header.Set(name, value)
		}
		change(request.Header)
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusSwitchingProtocols {
			_, _ = io.Copy(io.Discard, response.Body)
		}
		return response.StatusCode
	}
	host := strings.TrimPrefix(ts.http.URL, "http://")
	for name, one := range map[string]struct {
		change func(http.Header)
		status int
	}{
		"as it should be": {func(http.Header) {}, 101},
		"same origin":     {func(h http.Header) { h.Set("Origin", "https://"+host) }, 101},
		"foreign origin":  {func(h http.Header) { h.Set("Origin", "https://evil.example") }, 403},
		"broken origin":   {func(h http.Header) { h.Set("Origin", "null") }, 403},
		"no upgrade":      {func(h http.Header) { h.Del("Upgrade") }, 426},
		"no key":          {func(h http.Header) { h.Del("Sec-WebSocket-Key") }, 400},
		"old version":     {func(h http.Header) { h.Set("Sec-WebSocket-Version", "8") }, 400},
	} {
		if status := upgrade(one.change); status != one.status {
			t.Errorf("%s: status %d, not %d", name, status, one.status)
		}
	}
	if err := ts.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if status := upgrade(func(http.Header) {}); status != 503 {
		t.Errorf("after the shutdown: status %d", status)
	}
}

// TestImpatientClient sends a frame without waiting for the handshake.
func TestImpatientClient(t *testing.T) {
	t.Parallel()
	ts := serve(t, Config{})
	conn, err := net.Dial("tcp", strings.TrimPrefix(ts.http.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n\x81\x80\x00\x00\x00\x00")
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	if answer, err := io.ReadAll(conn); err != nil || len(answer) > 0 {
		t.Errorf("answered %q (%v)", answer, err)
	}
}
