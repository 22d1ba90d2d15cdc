package ws

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/client"
	"github.com/plugcast/plugcast/transport/rooms"
	"github.com/plugcast/plugcast/transport/testpeer"
	"github.com/plugcast/plugcast/transport/testpeer/clienttest"
)

const (
	sol  = clienttest.Sol
	luna = clienttest.Luna
)

// patience is how long a test waits for an expected event.
const patience = 20 * time.Second

// testServer is a server on loopback whose events are in memory.
type testServer struct {
	*Server
	t        *testing.T
	source   *clienttest.Source
	hub      *rooms.Hub
	http     *httptest.Server
	auth     *clienttest.Authenticator
	registry *clienttest.Registry
	feed     *clienttest.Feed
}

func serve(t *testing.T, config Config, change ...func(*client.Parts)) *testServer {
	t.Helper()
	source := clienttest.NewSource()
	hub := clienttest.NewHub(t, source, rooms.Config{TailBytes: 20_000})
	ts := &testServer{t: t, source: source, hub: hub, auth: newAuthenticator(), registry: &clienttest.Registry{}, feed: &clienttest.Feed{}}
	parts := client.Parts{Rooms: hub, Authenticator: ts.auth, Registry: ts.registry, Metrics: ts.feed, Logger: slog.New(slog.DiscardHandler)}
	for _, f := range change {
		f(&parts)
	}
	config.Node = "node-1"
	if config.Tick == 0 {
		config.Tick = 5 * time.Millisecond
	}
	var err error
	if ts.Server, err = New(config, parts); err != nil {
		t.Fatal(err)
	}
	testpeer.Run(t, ts.Run)
	ts.http = httptest.NewServer(ts.Server)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := ts.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		ts.http.Close()
		if left := ts.registry.All(); len(left) > 0 {
			t.Errorf("%d sockets are still listed", len(left))
		}
	})
	return ts
}

func newAuthenticator() *clienttest.Authenticator {
	a := &clienttest.Authenticator{}
	far := time.Now().Add(time.Hour)
	a.Name("viewer", domain.Actor{Subject: "eva", Role: domain.RoleViewer, Systems: []domain.SystemID{sol}, ExpiresAt: far})
	a.Name("both", domain.Actor{Subject: "eva", Role: domain.RoleOperator, Systems: []domain.SystemID{sol, luna}, ExpiresAt: far})
	a.Name("luna", domain.Actor{Subject: "eva", Role: domain.RoleViewer, Systems: []domain.SystemID{luna}, ExpiresAt: far})
	a.Name("staff", domain.Actor{Subject: "root", Role: domain.RoleStaff, AllSystems: true, ExpiresAt: far})
	return a
}

// all returns the listed sockets.
func (ts *testServer) all() (list []*socket) {
	ts.clients.Each(func(f client.Face) { list = append(list, f.(*socket)) })
	return list
}

// testClient is a WebSocket client.
type testClient struct {
	*websocket.Conn
	t       *testing.T
	pending []frame
}

// frame is a frame from the server.
type frame struct {
	Event string          `json:"event"`
	ID    json.RawMessage `json:"id"`
	Data  json.RawMessage `json:"data"`
	Seq   uint64          `json:"seq"`
	raw   json.RawMessage
}

func (f frame) into(t *testing.T, v any) {
	t.Helper()
	if err := json.Unmarshal(f.Data, v); err != nil {
		t.Fatalf("data of %s: %v", f.raw, err)
	}
}

func (f frame) code(t *testing.T) domain.Code {
	t.Helper()
	var e struct {
		Code   domain.Code `json:"code"`
		Detail string      `json:"detail"`
	}
	f.into(t, &e)
	if f.Event != eventError || e.Detail == "" {
		t.Fatalf("%s is not an error with a detail", f.raw)
	}
	return e.Code
}

func (ts *testServer) url() string { return "ws" + strings.TrimPrefix(ts.http.URL, "http") + "/ws" }

// dial connects with a token, or without one, and leaves the first frame unread.
func (ts *testServer) dial(token string) *testClient {
	ts.t.Helper()
	header := http.Header{}
	if token != "" {
		header.Set("Authorization", "Bearer "+token)
	}
	conn, _, err := (&websocket.Dialer{Subprotocols: []string{Subprotocol}}).Dial(ts.url(), header)
	if err != nil {
		ts.t.Fatalf("dial: %v", err)
	}
	c := &testClient{Conn: conn, t: ts.t}
	ts.t.Cleanup(func() { _ = conn.Close() })
	return c
}

// connect dials and reads the first frame.
func (ts *testServer) connect(token string) *testClient {
	ts.t.Helper()
	c := ts.dial(token)
	c.expect(eventConnectionStatus)
	return c
}

// joined connects, joins a system, and also returns the answer.
func (ts *testServer) join(token string, system domain.SystemID, extra ...string) (*testClient, client.Joined) {
	ts.t.Helper()
	c := ts.connect(token)
	return c, c.join(system, extra...)
}

func (c *testClient) join(system domain.SystemID, extra ...string) client.Joined {
	c.t.Helper()
	c.send(fmt.Sprintf(`{"event":"join-system","id":"j","data":{%s}}`,
		strings.Join(append([]string{fmt.Sprintf(`"systemId":%q`, system)}, extra...), ",")))
	var j client.Joined
	f := c.expect(eventJoined)
	f.into(c.t, &j)
	if string(f.ID) != `"j"` || j.SystemID != system {
		c.t.Fatalf("the answer to a join of %s is %s", system, f.raw)
	}
	return j
}

func (c *testClient) send(text string) {
	c.t.Helper()
	if err := c.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
		c.t.Fatalf("send: %v", err)
	}
}

// read returns the next frame, and splits arrays of frames.
func (c *testClient) read() (frame, error) {
	for len(c.pending) == 0 {
		_ = c.SetReadDeadline(time.Now().Add(patience))
		_, message, err := c.ReadMessage()
		if err != nil {
			return frame{}, err
		}
		raws := []json.RawMessage{message}
		if message[0] == '[' {
			if len(message) > 64<<10 {
				return frame{}, fmt.Errorf("an array of %d bytes", len(message))
			}
			if err := json.Unmarshal(message, &raws); err != nil {
				return frame{}, err
			}
		}
		for _, raw := range raws {
			f := frame{raw: raw}
			if err := json.Unmarshal(raw, &f); err != nil {
				return frame{}, err
			}
			c.pending = append(c.pending, f)
		}
	}
	f := c.pending[0]
	c.pending = c.pending[1:]
	return f, nil
}

// next returns the next frame that is not a heartbeat.
func (c *testClient) next() frame {
	c.t.Helper()
	for {
		f, err := c.read()
		if err != nil {
			c.t.Fatalf("read: %v", err)
		}
		if f.Event != eventHeartbeat {
			return f
		}
	}
}

// expect demands that the next frame has this event.
func (c *testClient) expect(event string) frame {
	c.t.Helper()
	f := c.next()
	if f.Event != event {
		c.t.Fatalf("the next frame is %s, not %s", f.raw, event)
	}
	return f
}

// events reads n events.
func (c *testClient) events(n int) []domain.Event {
	c.t.Helper()
	var events []domain.Event
	for len(events) < n {
		f := c.next()
		var e domain.Event
		if err := json.Unmarshal(f.raw, &e); err != nil || e.Seq == 0 {
			c.t.Fatalf("%s is not an event (%v)", f.raw, err)
		}
		events = append(events, e)
	}
	return events
}

// expectClose reads to the end and returns the close code and the last frame.
func (c *testClient) expectClose() (int, frame) {
	c.t.Helper()
	var last frame
	for {
		f, err := c.read()
		if err == nil {
			last = f
			continue
		}
		var end *websocket.CloseError
		if !errors.As(err, &end) {
			c.t.Fatalf("the connection ended without a close frame: %v (last frame %s)", err, last.raw)
		}
		return end.Code, last
	}
}

// stillOpen demands that the server still answers the socket.
func (c *testClient) stillOpen() {
	c.t.Helper()
	c.send(`{"event":"ping","id":"open?"}`)
	if f := c.expect(eventPong); string(f.ID) != `"open?"` {
		c.t.Fatalf("the pong is %s", f.raw)
	}
}
