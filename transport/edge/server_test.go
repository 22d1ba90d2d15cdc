package edge

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"github.com/plugcast/plugcast/transport/testpeer"
)

const (
	patienceOfTests = 30 * time.Second
	short           = 200 * time.Millisecond // the times of servers whose clients are slow on purpose
)

// start serves a handler on a free port.
func start(t *testing.T, config Config, handler http.Handler) (*Server, string) {
	t.Helper()
	s, err := New(config, handler)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		_ = s.Close()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return s, l.Addr().String()
}

// dial opens a connection and sends text over it.
func dial(t *testing.T, address, text string, from ...string) *net.TCPConn {
	t.Helper()
	dialer := net.Dialer{Timeout: patienceOfTests}
	for _, ip := range from {
		dialer.LocalAddr = &net.TCPAddr{IP: net.ParseIP(ip)}
	}
	c, err := dialer.DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(patienceOfTests)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	return c.(*net.TCPConn)
}

// ended reads until the server closes the connection, and reports whether it does.
func ended(c net.Conn) (said string, closed bool) {
	all, err := io.ReadAll(c)
	timeout := net.Error(nil)
	return string(all), !errors.As(err, &timeout) || !timeout.Timeout()
}

func mustEnd(t *testing.T, c net.Conn) string {
	t.Helper()
	said, closed := ended(c)
	if !closed {
		t.Errorf("the connection is still open; the server said %q", said)
	}
	return said
}

// takeOver answers with an echo on the bare connection.
func takeOver(w http.ResponseWriter, _ *http.Request) {
	c, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	go func() {
		defer c.Close()
		_, _ = io.Copy(struct{ io.Writer }{c}, buffered)
	}()
}

// kinds are handlers that do different things with a body.
func kinds() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("/ignores", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })
	mux.HandleFunc("/long", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 100<<10)) })
	mux.HandleFunc("/reads", func(_ http.ResponseWriter, r *http.Request) { _, _ = io.ReadAll(r.Body) })
	mux.HandleFunc("/echo", takeOver)
	return mux
}

// TestBodiesThatNeverCome sends headers that announce a body, to handlers of all kinds and to
// none.
func TestBodiesThatNeverCome(t *testing.T) {
	t.Parallel()
	s, address := start(t, Config{HeaderTimeout: short, BodyTimeout: short, UnreadTimeout: short}, kinds())
	open := map[string]net.Conn{}
	for _, method := range []string{"GET", "HEAD", "POST", "DELETE", "OPTIONS", "STRANGE"} {
		for _, path := range []string{"/ignores", "/long", "/reads", "/nothing", "*"} {
			for _, promise := range []string{
				"Content-Length: 9\r\n\r\n", "Content-Length: 9\r\nExpect: 100-continue\r\n\r\n", "Content-Length: 300000\r\n\r\nsome",
				"Transfer-Encoding: chunked\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n5\r\nab", "Transfer-Encoding: chunked\r\n\r\n0\r\nTrailer: ",
				"Unfinished: ",
			} {
				request := method + " " + path + " HTTP/1.1\r\nHost: x\r\n" + promise
				open[request] = dial(t, address, request)
			}
		}
	}
	for request, c := range open {
		if said, closed := ended(c); !closed {
			t.Errorf("%q holds the connection; the server said %q", request, said)
		}
	}
	testpeer.Eventually(t, "the last connection to be counted out", func() bool { return s.Stats().Connections == 0 })
}

// TestLongLivedConnections checks that a connection that a face took over, a stream and
// a waiting GET outlive all request timeouts.
func TestLongLivedConnections(t *testing.T) {
	t.Parallel()
	mux := kinds()
	goOn := make(chan struct{})
	mux.HandleFunc("/waits", func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush()
		select {
		case <-goOn:
			_, _ = io.WriteString(w, "worth the wait")
		case <-r.Context().Done():
			t.Error("the request was cancelled")
		}
	})
	_, address := start(t, Config{HeaderTimeout: short, BodyTimeout: short, WriteTimeout: short, IdleTimeout: short}, mux)
	echo := dial(t, address, "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n")
	waits := dial(t, address, "GET /waits HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	for range 3 {
		mustEnd(t, dial(t, address, "POST /reads HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n"))
	}
	if _, err := io.WriteString(echo, "hello"); err != nil {
		t.Fatal(err)
	}
	var heard [5]byte
	if _, err := io.ReadFull(echo, heard[:]); err != nil || string(heard[:]) != "hello" {
		t.Errorf("the connection that was taken over said %q (%v)", heard, err)
	}
	close(goOn)
	if said := mustEnd(t, waits); !strings.Contains(said, "worth the wait") {
		t.Errorf("the waiting request was answered %q", said)
	}
}

// TestUnreadResponses requests more than the kernel buffers, in one write, in many, through
// io.Copy, and in responses that net/http writes after the handler has returned.
func TestUnreadResponses(t *testing.T) {
	t.Parallel()
	const much = 64 << 20
	mux := http.NewServeMux()
	mux.HandleFunc("/once", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, much)) })
	mux.HandleFunc("/often", func(w http.ResponseWriter, _ *http.Request) {
		for range much >> 10 {
			if _, err := w.Write(make([]byte, 1<<10)); err != nil {
				return
			}
		}
	})
	mux.HandleFunc("/copied", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.Copy(w, io.LimitReader(zeros{}, much))
	})
	mux.HandleFunc("/small", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 1500)) })
	s, address := start(t, Config{WriteTimeout: short}, mux)
	for _, path := range []string{"/once", "/often", "/copied"} {
		dial(t, address, "GET "+path+" HTTP/1.1\r\nHost: x\r\n\r\n")
	}
	pipelined := dial(t, address, "")
	go func() { // until the server gives up
		request := strings.Repeat("GET /small HTTP/1.1\r\nHost: x\r\n\r\n", 1000)
		for {
			if _, err := io.WriteString(pipelined, request); err != nil {
				return
			}
		}
	}()
	testpeer.Eventually(t, "the server to give up", func() bool { return s.Stats().Connections == 0 })
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// TestSlowReader reads slowly for longer than one write may take, and gets everything.
func TestSlowReader(t *testing.T) {
	t.Parallel()
	const much = 48 << 20 // three times as long as the timeout, at the pace below
	_, address := start(t, Config{WriteTimeout: time.Second}, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(make([]byte, much))
	}))
	c := dial(t, address, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	if err := c.SetReadBuffer(64 << 10); err != nil {
		t.Fatal(err)
	}
	response, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	pace := rate.NewLimiter(16<<20, 1<<20) // bytes per second
	got := 0
	for buffer := make([]byte, 256<<10); ; {
		n, err := response.Body.Read(buffer)
		got += n
		if err == io.EOF {
			break
		} else if err != nil {
			t.Fatalf("after %d bytes: %v", got, err)
		}
		if err := pace.WaitN(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
	if got != much {
		t.Errorf("%d bytes of %d", got, much)
	}
}

// TestOwnDeadline has a handler that gives its reader more time than the server, and after
// it a handler that sets no deadline.
func TestOwnDeadline(t *testing.T) {
	t.Parallel()
	written := make(chan error, 1)
	mux := http.NewServeMux()
	mux.HandleFunc("/patient", func(w http.ResponseWriter, _ *http.Request) {
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(patienceOfTests))
		_, err := w.Write(make([]byte, 32<<20))
		written <- err
	})
	mux.HandleFunc("/hasty", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 32<<20)) })
	s, address := start(t, Config{WriteTimeout: short}, mux)
	c := dial(t, address, "GET /patient HTTP/1.1\r\nHost: x\r\n\r\n")
	other := dial(t, address, "GET /hasty HTTP/1.1\r\nHost: x\r\n\r\n")
	testpeer.Eventually(t, "the other reader to be cut", func() bool { return s.Stats().Connections == 1 })
	_ = other.Close()
	response, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, response.Body); err != nil || n != 32<<20 {
		t.Errorf("%d bytes: %v", n, err)
	}
	if err := <-written; err != nil {
		t.Error(err)
	}
	_, _ = io.WriteString(c, "GET /hasty HTTP/1.1\r\nHost: x\r\n\r\n") // on the same connection
	testpeer.Eventually(t, "the reader to be cut", func() bool { return s.Stats().Connections == 0 })
}
