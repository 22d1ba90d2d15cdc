package sioclient

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"

	"github.com/plugcast/plugcast/transport/testpeer"
	"github.com/plugcast/plugcast/transport/testpeer/legacyserver"
)

const room = "clinica-sol"

func dial(t *testing.T, cfg Config, resume Session) *Conn {
	t.Helper()
	c, err := Dial(t.Context(), cfg, resume)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func join(t *testing.T, c *Conn) {
	t.Helper()
	answer, err := c.EmitAck(t.Context(), "join-system", room)
	if err != nil {
		t.Fatal(err)
	}
	select {
	case args := <-answer:
		if len(args) != 1 || string(args[0]) != `{"ok":true}` {
			t.Fatalf("join-system was answered with %s", args)
		}
	case <-c.Done():
		t.Fatal(c.Err())
	}
}

func next(t *testing.T, c *Conn) Event {
	t.Helper()
	late := time.AfterFunc(20*time.Second, c.Close)
	defer late.Stop()
	for e := range c.Events() {
		return e
	}
	t.Fatalf("no event came, and the connection ended: %v", c.Err())
	panic("unreachable")
}

func update(id string, n int) legacyserver.Emission {
	return legacyserver.Emission{Room: room, Event: "device-update", Args: []any{map[string]any{"deviceId": id, "n": n}}}
}

// The result of a write is known even if the connection ends at the same time, so that a
// caller does not send a written event again.
func TestEmitWhileTheConnectionEnds(t *testing.T) {
	t.Parallel()
	for name, outcome := range map[string]error{"written": nil, "not written": io.ErrShortWrite} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c := &Conn{writes: make(chan write), namespace: "/"}
				c.closing, c.end = context.WithCancelCause(context.Background())
				result := make(chan error, 1)
				go func() { result <- c.Emit(t.Context(), "device-update", 1) }()
				w := <-c.writes
				c.end(io.EOF)
				synctest.Wait()
				w.done <- outcome
				if err := <-result; !errors.Is(err, outcome) {
					t.Errorf("ended with %v, want %v", err, outcome)
				}
			})
		})
	}
}

// The client connects over TLS to a server behind a proxy, and refuses a certificate of an
// unknown issuer.
func TestTLS(t *testing.T) {
	t.Parallel()
	server := legacyserver.Start(t, legacyserver.Options{Ack: true})
	behind, err := url.Parse(server.URL())
	if err != nil {
		t.Fatal(err)
	}
	proxy := httptest.NewUnstartedServer(httputil.NewSingleHostReverseProxy(behind))
	proxy.Config.ErrorLog = log.New(io.Discard, "", 0)
	proxy.StartTLS()
	t.Cleanup(proxy.Close)
	known := proxy.Client().Transport.(*http.Transport).TLSClientConfig
	c := dial(t, Config{URL: proxy.URL, TLS: &tls.Config{RootCAs: known.RootCAs}}, Session{})
	join(t, c)
	server.Emit(update("d1", 1))
	for next(t, c).Name != "device-update" {
	}
	unknown := new(tls.CertificateVerificationError)
	if _, err := Dial(t.Context(), Config{URL: proxy.URL}, Session{}); !errors.As(err, &unknown) {
		t.Errorf("a server that anybody could be: %v", err)
	}
}

// A caller stores the offset in a database, which cannot store every text.
func TestOffsets(t *testing.T) {
	t.Parallel()
	for last, want := range map[string]string{
		`"abc"`: "abc", `""`: "", `7`: "", `"a\u0000b"`: "", `"` + strings.Repeat("x", 257) + `"`: "",
	} {
		e := Event{Args: []json.RawMessage{json.RawMessage(`{}`), json.RawMessage(last)}}
		e.takeOffset("pid")
		if e.Offset != want || (len(e.Args) == 1) != (want != "") {
			t.Errorf("%.20s: offset %q, %d arguments", last, e.Offset, len(e.Args))
		}
	}
}

func TestEventsBothWays(t *testing.T) {
	t.Parallel()
	server := legacyserver.Start(t, legacyserver.Options{Token: "let-me-in", Ack: true})
	auth := func(context.Context) (map[string]json.RawMessage, error) {
		return map[string]json.RawMessage{"token": json.RawMessage(`"let-me-in"`)}, nil
	}
	c := dial(t, Config{URL: server.URL(), Auth: auth}, Session{})
	if e := next(t, c); e.Name != "connection-status" || !strings.Contains(string(e.Args[0]), c.SocketID()) {
		t.Fatalf("first came %+v", e)
	}
	join(t, c)
	server.Emit(update("d1", 1), update("d1", 2))
	for _, want := range []string{`{"deviceId":"d1","n":1}`, `{"deviceId":"d1","n":2}`} {
		if e := next(t, c); e.Name != "device-update" || len(e.Args) != 1 || string(e.Args[0]) != want || e.Offset != "" {
			t.Fatalf("got %+v, want %s", e, want)
		}
	}
	server.EmitBinary(room)
	if e := next(t, c); !e.Binary {
		t.Fatalf("got %+v, want a binary event", e)
	}
	replied := make(chan int, 1)
	go func() { replied <- server.Ask(update("d1", 3)) }()
	e := next(t, c)
	if e.Ack == "" {
		t.Fatal("the event asks for no acknowledgement")
	}
	if err := c.Acknowledge(t.Context(), e.Ack); err != nil {
		t.Fatal(err)
	}
	if n := <-replied; n != 1 {
		t.Fatalf("%d replies", n)
	}
	answer, err := c.EmitAck(t.Context(), "device-update", map[string]any{"deviceId": "d2"})
	if err != nil {
		t.Fatal(err)
	}
	if args := <-answer; string(args[0]) != `{"ok":true}` {
		t.Fatalf("acknowledged with %s", args)
	}
	if got := server.Received(); len(got) != 1 || string(got[0].Payload) != `{"deviceId":"d2"}` {
		t.Fatalf("the server got %s", got)
	}
	if err := c.Sync(t.Context()); err != nil || c.Confirmed() != c.Written() {
		t.Fatalf("in step: %v, %d of %d are confirmed", err, c.Confirmed(), c.Written())
	}
	if err := c.Emit(t.Context(), "device-update", map[string]any{"deviceId": "d3"}); err != nil {
		t.Fatal(err)
	}
	if err := c.Emit(t.Context(), "device-update", strings.Repeat("x", 2<<20)); !errors.Is(err, ErrTooLarge) {
		t.Fatalf("a giant was answered with %v", err)
	}
	testpeer.Eventually(t, "all to be confirmed", func() bool { return c.Confirmed() >= c.Written() }) // the server pings twice a second
}

func TestRefused(t *testing.T) {
	t.Parallel()
	server := legacyserver.Start(t, legacyserver.Options{Token: "let-me-in"})
	refused := new(RefusedError)
	if _, err := Dial(t.Context(), Config{URL: server.URL()}, Session{}); !errors.As(err, &refused) || refused.Message != "invalid token" {
		t.Fatalf("without a token: %v", err)
	}
	_, err := Dial(t.Context(), Config{URL: server.URL() + "/nowhere"}, Session{})
	if !errors.As(err, &refused) || refused.Message != "Invalid namespace" {
		t.Fatalf("in a namespace that does not exist: %v", err)
	}
	if _, err := Dial(t.Context(), Config{URL: server.URL(), Path: "/elsewhere/"}, Session{}); err == nil {
		t.Fatal("no error where there is no Socket.IO server")
	}
	for _, url := range []string{"ftp://host", "http://", "http://user:secret@host", "http://host/a,b", ":%zz"} {
		if err := (Config{URL: url}).Validate(); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", url, err)
		}
	}
}

func TestRecovery(t *testing.T) {
	t.Parallel()
	server := legacyserver.Start(t, legacyserver.Options{Recovery: true})
	c := dial(t, Config{URL: server.URL()}, Session{})
	next(t, c) // connection-status
	join(t, c)
	server.Emit(update("d1", 1))
	offset := next(t, c).Offset
	if offset == "" {
		t.Fatal("no offset")
	}
	server.Drop(room)
	<-c.Done()
	server.Emit(update("d1", 2), update("d1", 3))
	again := dial(t, Config{URL: server.URL()}, c.Session(offset))
	if !again.Recovered() {
		t.Fatal("not recovered")
	}
	for _, want := range []string{`{"deviceId":"d1","n":2}`, `{"deviceId":"d1","n":3}`} {
		if e := next(t, again); string(e.Args[0]) != want || e.Offset == "" {
			t.Fatalf("got %+v, want %s", e, want)
		}
	}
	server.Kill()
	<-again.Done()
	server.Restart()
	if third := dial(t, Config{URL: server.URL()}, again.Session(offset)); third.Recovered() {
		t.Fatal("a server that was killed remembers nothing")
	}
}

func TestKicked(t *testing.T) {
	t.Parallel()
	server := legacyserver.Start(t, legacyserver.Options{})
	c := dial(t, Config{URL: server.URL()}, Session{})
	join(t, c)
	server.Kick(room)
	<-c.Done()
	if !errors.Is(c.Err(), ErrDisconnected) {
		t.Fatalf("ended with %v", c.Err())
	}
	if err := c.Emit(t.Context(), "x"); err == nil {
		t.Fatal("it can still be written to")
	}
}

// Dial ends with its context, even if the server accepts the connection and then sends
// nothing.
func TestDialGivesUp(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		if conn, err := listener.Accept(); err == nil {
			defer conn.Close()
			_, _ = conn.Read(make([]byte, 1)) // the handshake has begun
			cancel()
			_, _ = conn.Read(make([]byte, 1<<16))
			<-ctx.Done()
			_, _ = io.Copy(io.Discard, conn) // until the client closes
		}
	}()
	if _, err := Dial(ctx, Config{URL: "http://" + listener.Addr().String(), Timeout: time.Hour}, Session{}); err == nil {
		t.Fatal("connected to nothing")
	}
}

// A server that sends more than the caller takes does not fill the memory: it has to wait. So
// does a server that sends much before its answer to CONNECT.
func TestLargeEventsWait(t *testing.T) {
	t.Parallel()
	const total, most = 300, 5
	event := `42["device-update",{"n":%d,"text":"` + strings.Repeat("x", 60<<10) + `"}]`
	stalled := make(chan bool, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ws, err := (&websocket.Upgrader{}).Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer ws.Close()
		say := func(frame string) error { return ws.WriteMessage(websocket.TextMessage, []byte(frame)) }
		_ = say(`0{"sid":"a","pingInterval":60000,"pingTimeout":60000}`)
		if _, _, err := ws.ReadMessage(); err != nil {
			return
		}
		if r.URL.Query().Get("early") == "" {
			_ = say(`40{"sid":"b"}`)
		}
		for n := range total {
			_ = ws.SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
			if say(fmt.Sprintf(event, n)) != nil {
				stalled <- true
				return
			}
		}
		stalled <- false
	}))
	defer server.Close()
	cfg := Config{URL: server.URL, MaxFrame: 64 << 10}
	c := dial(t, cfg, Session{})
	if !<-stalled {
		t.Error("the server could say all of it")
	}
	if n := c.Waiting(); n > most {
		t.Errorf("%d large events wait", n)
	}
	for n := range 2 * most {
		if got := string(next(t, c).Args[0]); !strings.HasPrefix(got, fmt.Sprintf(`{"n":%d,`, n)) {
			t.Errorf("event %d is %.20s", n, got)
		}
	}
	cfg.URL += "?early=1"
	if _, err := Dial(t.Context(), cfg, Session{}); err == nil || !strings.Contains(err.Error(), "too many packets") {
		t.Errorf("ended with %v", err)
	}
	<-stalled
}

// Close and Abort return, even if the server has stopped reading.
func TestAbort(t *testing.T) {
	t.Parallel()
	begun, gone := make(chan struct{}), make(chan struct{})
	defer close(gone)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ws, err := (&websocket.Upgrader{}).Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer ws.Close()
		_ = ws.WriteMessage(websocket.TextMessage, []byte(`0{"sid":"a","pingInterval":60000,"pingTimeout":60000}`))
		_, _, _ = ws.ReadMessage()
		_ = ws.WriteMessage(websocket.TextMessage, []byte(`40{"sid":"b"}`))
		_, _ = ws.NetConn().Read(make([]byte, 1))
		close(begun)
		<-gone
	}))
	defer server.Close()
	c := dial(t, Config{URL: server.URL, Timeout: time.Hour}, Session{})
	failed := make(chan error, 1)
	go func() { failed <- c.Emit(t.Context(), "device-update", strings.Repeat("x", 64<<20)) }()
	<-begun
	c.Abort()
	select {
	case err := <-failed:
		if err == nil {
			t.Error("it was written")
		}
	case <-time.After(20 * time.Second):
		t.Error("it is still being written")
	}
}
