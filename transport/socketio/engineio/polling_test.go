package engineio

import (
	"context"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"

	"github.com/plugcast/plugcast/domain/isolate"
	"github.com/plugcast/plugcast/transport/testpeer"
)

// A client may hang up at the moment when its GET ends. The session goes on if the
// answer carried nothing, as at an upgrade.
func TestHangUpWhileThePollEnds(t *testing.T) {
	t.Parallel()
	message := outgoing{bytes: []byte("4hello")}
	for name, one := range map[string]struct {
		items []outgoing
		ended bool // otherwise the GET still waits
		want  bool
	}{
		"waits":                  {want: true},
		"ended by an upgrade":    {ended: true, want: false},
		"ended by a noop":        {ended: true, items: []outgoing{{bytes: noopPacket}}, want: false},
		"has taken a message":    {ended: true, items: []outgoing{message}, want: true},
		"has taken two":          {ended: true, items: []outgoing{message, message}, want: true},
		"has taken bytes like 6": {ended: true, items: []outgoing{{bytes: noopPacket, binary: true}}, want: true},
	} {
		s, waiting := new(Session), &poll{items: make(chan []outgoing, 1)}
		if one.ended {
			waiting.items <- one.items
		} else {
			s.poll = waiting
		}
		if got := s.hungUp(waiting); got != one.want {
			t.Errorf("a GET that %s: the session ends: %v", name, got)
		}
	}
}

// Requests and the ticker both check the clock, but the server sends a due ping only
// once.
func TestOnePingAtATime(t *testing.T) {
	t.Parallel()
	server, err := New(Config{Open: func(*Session, *http.Request) Handler { return silent{} }})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = server.Shutdown(context.Background()) }()
	server.open.Enter()
	defer server.open.Leave()
	s := server.begin(httptest.NewRequest(http.MethodGet, "/", nil), nil)
	queued := func() int {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.queue)
	}
	before, due := queued(), s.clock.ping
	s.ping(due)
	s.ping(due)
	if n := queued() - before; n != 1 {
		t.Errorf("%d pings are queued", n)
	}
	s.Close(ReasonForced)
	s.cut()
}

// A session that the server closes for a reason reports that reason, even if the
// connection ends before the handler learns of it.
func TestReasonThatWasGiven(t *testing.T) {
	t.Parallel()
	reasons := make(chan string, 1)
	server, err := New(Config{Open: func(*Session, *http.Request) Handler { return reasoned{reasons: reasons} }})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = server.Shutdown(context.Background()) }()
	for range 1000 { // the scheduler decides the order of the two
		server.open.Enter()
		s := server.begin(httptest.NewRequest(http.MethodGet, "/", nil), nil)
		waiting := &poll{items: make(chan []outgoing, 1)}
		s.mu.Lock()
		s.queue, s.queued, s.poll = nil, 0, waiting
		s.mu.Unlock()
		over := make(chan struct{})
		go func() {
			defer close(over)
			<-waiting.items
			s.finish(ReasonClosed, nil)
		}()
		s.Close("given")
		<-over
		server.open.Leave()
		if reason := <-reasons; reason != "given" {
			t.Fatalf("it ended because of %q", reason)
		}
	}
}

// reasoned is a handler that passes on the reason why its session ended.
type reasoned struct {
	silent
	reasons chan string
}

func (r reasoned) Closed(reason string) { r.reasons <- reason }

type silent struct{}

func (silent) Message([]byte, bool) {}
func (silent) Closed(string)        {}

func (silent) Control() (answer, stays bool) { return true, true }

// A panic in a handshake, which net/http survives, does not delay the stop.
func TestStopAfterAHandshakeThatPanics(t *testing.T) {
	t.Parallel()
	s, err := New(Config{Open: func(*Session, *http.Request) Handler { panic("on purpose") }})
	if err != nil {
		t.Fatal(err)
	}
	func() {
		defer func() { _ = recover() }()
		s.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/?EIO=4&transport=polling", nil))
	}()
	stopped := make(chan error, 1)
	go func() { stopped <- s.Shutdown(t.Context()) }()
	select {
	case err := <-stopped:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the stop waits")
	}
}

// The server closes a WebSocket whose handshake panics, and keeps nothing of it: the
// stop waits for open sessions and for nothing else.
func TestStopAfterAWebSocketThatPanics(t *testing.T) {
	t.Parallel()
	closed := make(chan struct{})
	s, err := New(Config{Open: func(_ *Session, r *http.Request) Handler {
		if r.URL.Query().Has("panic") {
			panic("on purpose")
		}
		return telling{closed: closed}
	}})
	if err != nil {
		t.Fatal(err)
	}
	testpeer.Run(t, s.Run)
	server := httptest.NewServer(s)
	defer server.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	dial := func(more string) *websocket.Conn {
		url := "ws" + strings.TrimPrefix(server.URL, "http") + "/?EIO=4&transport=websocket" + more
		conn, response, err := websocket.DefaultDialer.DialContext(ctx, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		deadline, _ := ctx.Deadline()
		_ = conn.SetReadDeadline(deadline)
		return conn
	}
	healthy := dial("")
	defer healthy.Close()
	if _, packet, err := healthy.ReadMessage(); err != nil || packet[0] != packetOpen {
		t.Fatalf("%s, %v", packet, err)
	}
	before := isolate.Panics()[where]
	for range 3 {
		conn := dial("&panic=1")
		if _, packet, err := conn.ReadMessage(); err == nil || ctx.Err() != nil {
			t.Errorf("the connection is open, and has sent %q", packet)
		}
		_ = conn.Close()
	}
	for len(s.open.All()) > 1 && ctx.Err() == nil {
		runtime.Gosched()
	}
	if n := s.Len(); n != 1 {
		t.Errorf("%d sessions are listed", n)
	}
	stopped := make(chan error, 1)
	go func() { stopped <- s.Shutdown(ctx) }()
	<-closed
	go func() {
		for {
			if _, _, err := healthy.ReadMessage(); err != nil {
				return
			}
		}
	}()
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if n := isolate.Panics()[where] - before; n != 3 {
		t.Errorf("%d panics are counted", n)
	}
}

// telling is a handler that reports the end of its session.
type telling struct {
	silent
	closed chan struct{}
}

func (c telling) Closed(string) { close(c.closed) }

// counting counts the packets that are not messages.
type counting struct {
	silent
	controls *atomic.Int64
}

func (c counting) Control() (answer, stays bool) { return true, c.controls.Add(1) < 3 }

// While the server closes a session because its client sends too much, it stops handling
// that client's packets but still answers its requests, so that the client learns the
// reason.
func TestPostToASessionThatIsEnding(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var controls atomic.Int64
		server, err := New(Config{Open: func(*Session, *http.Request) Handler { return counting{controls: &controls} }})
		if err != nil {
			t.Fatal(err)
		}
		testpeer.Run(t, server.Run)
		defer func() { _ = server.Shutdown(context.Background()) }()
		f := flooded{t, server}
		id := f.begin("192.0.2.1")
		packets := strings.Repeat("6"+string(rune(Separator)), 999) + "6"
		for range 10 {
			w, r := httptest.NewRecorder(), httptest.NewRequest("POST", "/?EIO=4&transport=polling&sid="+id, strings.NewReader(packets))
			if server.ServeHTTP(w, r); w.Code != http.StatusOK {
				t.Fatalf("status %d: %s", w.Code, w.Body)
			}
		}
		if n := controls.Load(); n > 3+10 {
			t.Errorf("%d of 10,000 packets were worked on", n)
		}
		if w := f.request("GET", "192.0.2.1", "&sid="+id); w.Code != http.StatusOK || w.Body.String() != "1" {
			t.Errorf("the client is not told: %d %s", w.Code, w.Body)
		}
	})
}
