package forward

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// A client that stops in the middle does not hold up a stop, whether it is its turn
// to read or to send: it is cut off.
func TestStopCutsOffWhoStalls(t *testing.T) {
	t.Parallel()
	for name, request := range map[string]string{
		"reads nothing of a poll":      "GET / HTTP/1.1\r\nHost: here\r\n\r\n",
		"reads nothing of a WebSocket": "GET / HTTP/1.1\r\nHost: here\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
		"sends half of its packets":    "POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 100\r\n\r\n4",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			stuck := make(chan struct{})
			p, here := passingOn(t, func(w http.ResponseWriter, r *http.Request) {
				defer close(stuck)
				if r.Method == http.MethodPost {
					_, _ = io.ReadFull(r.Body, make([]byte, 1))
					return
				}
				flood(t, w, r.Header.Get("Upgrade"))
			})
			client, err := net.Dial("tcp", here.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = client.Close() })
			if _, err := io.WriteString(client, request); err != nil {
				t.Fatal(err)
			}
			<-stuck
			ctx, cancel := context.WithCancel(t.Context())
			cancel() // at once
			stopped := make(chan struct{})
			go func() {
				defer close(stopped)
				_ = p.Shutdown(ctx)
			}()
			select {
			case <-stopped:
			case <-time.After(patience):
				t.Error("the stop waits for the client")
			}
			_ = client.Close()
			<-stopped
		})
	}
}

// flood writes over a connection until all buffers on the way are full.
func flood(t *testing.T, w http.ResponseWriter, upgrade string) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close()
	head := "HTTP/1.1 200 OK\r\n\r\n"
	if upgrade != "" {
		head = fmt.Sprintf("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", upgrade)
	}
	if _, err := io.WriteString(conn, head); err != nil {
		t.Error(err)
		return
	}
	for chunk := make([]byte, 64<<10); err == nil; {
		_ = conn.SetWriteDeadline(time.Now().Add(time.Second / 2)) // so long nothing moves
		_, err = conn.Write(chunk)
	}
}
