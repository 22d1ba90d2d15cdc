package main

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/gorilla/websocket"

	"github.com/plugcast/plugcast/transport/testpeer"
)

// plugServer is a server that plugs dial into: it answers with the status, and 0 lets
// them in.
func plugServer(t *testing.T, status *atomic.Int64) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if code := int(status.Load()); code != 0 {
			w.WriteHeader(code)
			return
		}
		conn, err := (&websocket.Upgrader{}).Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer conn.Close()
		for {
			if _, _, err := conn.ReadMessage(); err != nil {
				return
			}
		}
	}))
	t.Cleanup(server.Close)
	return "ws" + strings.TrimPrefix(server.URL, "http") + "/shelly/c1/hunter2"
}

func TestSimulate(t *testing.T) {
	t.Parallel()
	var status atomic.Int64
	status.Store(http.StatusForbidden)
	url := plugServer(t, &status)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var stdout, stderr testpeer.Buffer
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, []string{"simulate", "--url", url, "--devices", "5", "--log-level", "debug"}, &stdout, &stderr)
	}()
	testpeer.Eventually(t, "the plugs to say that they are not let in", func() bool {
		return strings.Contains(stderr.String(), "is stopped (403)")
	})
	status.Store(0)
	testpeer.Eventually(t, "all to be connected", func() bool { return strings.Contains(stderr.String(), "5 of 5 plugs connected to ws://") })
	cancel()
	if got := <-code; got != exitDone || stdout.String() != "" || !strings.Contains(stderr.String(), "5 plugs sent ") {
		t.Errorf("exit code %d, %q %q", got, stdout.String(), stderr.String())
	}
	if strings.Contains(stderr.String(), "hunter2") {
		t.Errorf("it shows the key: %s", stderr.String())
	}
}

func TestSimulateWithAWrongKey(t *testing.T) {
	t.Parallel()
	var status atomic.Int64
	status.Store(http.StatusUnauthorized)
	r := plugcast(t, []string{"PLUGCAST_URL=" + plugServer(t, &status)}, "simulate", "--devices", "3")
	if r.code != exitFailed || !strings.Contains(r.stderr, "plugcast: connect to ws://") ||
		!strings.Contains(r.stderr, "knows no such connection or key (401)") {
		t.Errorf("%+v", r)
	}
	if strings.Contains(r.stderr, "hunter2") {
		t.Errorf("it shows the key: %s", r.stderr)
	}
}

// A server that is not there yet is waited for.
func TestSimulateWithoutAServer(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	url := "ws://" + listener.Addr().String() + "/shelly/c1/hunter2"
	_ = listener.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var stdout, stderr testpeer.Buffer
	code := make(chan int, 1)
	go func() { code <- run(ctx, []string{"simulate", "--url", url, "--devices", "2"}, &stdout, &stderr) }()
	testpeer.Eventually(t, "the command to say that nobody is there", func() bool {
		return strings.Contains(stderr.String(), "cannot be reached")
	})
	cancel()
	if got := <-code; got != exitDone || strings.Contains(stderr.String(), "hunter2") {
		t.Errorf("exit code %d, %q", got, stderr.String())
	}
}
