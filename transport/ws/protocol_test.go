package ws

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/client"
	"github.com/plugcast/plugcast/transport/limit"
	"github.com/plugcast/plugcast/transport/rooms"
	"github.com/plugcast/plugcast/transport/rooms/roomstest"
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

func TestJoinAndFollow(t *testing.T) {
	t.Parallel()
	ts := serve(t, Config{})
	ts.source.Append(sol, updates(5)...)
	c, now := ts.join("viewer", sol)
	if now.Seq != 5 || now.Recovered {
		t.Errorf("joined %+v", now)
	}
	ts.source.Append(sol, updates(3)...)
	requireEvents(t, c.events(3), ts.source.Events(sol)[5:])

	all := ts.source.Events(sol)
	for _, join := range []struct {
		after     string
		from      int
		recovered bool
	}{
		{"0-0", 0, true},
		{all[3].Position.String(), 4, true},
		{all[7].Position.String(), 8, true},
		{"99999999999999-0", 8, false}, // of another log
	} {
		c, at := ts.join("viewer", sol, fmt.Sprintf(`"after":%q`, join.after))
		if at.Seq != uint64(join.from) || at.Recovered != join.recovered {
			t.Errorf("after %s: joined %+v", join.after, at)
		}
		requireEvents(t, c.events(8-join.from), all[join.from:])
		c.stillOpen()
	}
}

func TestErrorsLeaveTheSocketOpen(t *testing.T) {
	t.Parallel()
	ts := serve(t, Config{MaxRooms: 1})
	c, _ := ts.join("both", sol)
	for _, bad := range []struct {
		sent string
		code domain.Code
		id   string
	}{
		{`{"event":"device-update","id":1}`, CodeUnknownEvent, "1"},
		{`{"event":"` + strings.Repeat("x", 5000) + `","id":"a"}`, CodeUnknownEvent, `"a"`},
		{`{"event":"join-system","id":2}`, CodeInvalidFrame, "2"},
		{`{"event":"join-system","ID":3,"Data":{"systemId":"clinica-sol"}}`, CodeInvalidFrame, ""}, // members of its own
		{`{"event":"join-system","id":4,"data":{"systemId":"clinica-sol","type":"a,"}}`, domain.CodeInvalidFilter, "4"},
		{`{"event":"join-system","id":5,"data":{"systemId":"clinica-sol","types":[null]}}`, domain.CodeInvalidFilter, "5"},
		{`{"event":"join-system","data":null}`, domain.CodeInvalidSystemID, ""},
		{`{"event":"join-system","data":"clinica-sol"}`, CodeInvalidFrame, ""},
		{`{"event":"join-system","id":-1.5,"data":{"systemId":7}}`, CodeInvalidFrame, "-1.5"},
		{`{"event":"join-system","data":{"systemId":"a b"}}`, domain.CodeInvalidSystemID, ""},
		{`{"event":"join-system","data":{"systemId":"clinica-sol","after":"soon"}}`, domain.CodeInvalidPosition, ""},
		{`{"event":"join-system","data":{"systemId":"clinica-sol","after":12}}`, CodeInvalidFrame, ""},
		{`{"event":"join-system","data":{"systemId":"clinica-sol","types":[""]}}`, domain.CodeInvalidFilter, ""},
		{`{"event":"join-system","data":{"systemId":"clinica-sol","types":{"device-update":true}}}`, CodeInvalidFrame, ""},
		{`{"event":"join-system","data":{"systemId":"clinica-sol","devices":["a b"]}}`, domain.CodeInvalidDeviceID, ""},
		{`{"event":"join-system","data":{"systemId":"clinica-sol","types":["a"` + strings.Repeat(`,"a"`, 64) + `]}}`, domain.CodeInvalidFilter, ""},
		{`{"event":"join-system","id":"x","data":{"systemId":"somebody-else"}}`, domain.CodeForbidden, `"x"`},
		{`{"event":"join-system","data":{"systemId":"_platform"}}`, domain.CodeForbidden, ""},
		{`{"event":"join-system","data":{"systemId":"centro-luna"}}`, client.CodeTooManyRooms, ""},
		{`{"event":"leave-system","data":{"systemId":"centro-luna"}}`, client.CodeNotJoined, ""},
		{`{"event":"leave-system","data":{}}`, domain.CodeInvalidSystemID, ""},
		{`{"event":"join-admin-dashboard"}`, domain.CodeForbidden, ""},
		{`{"event":"leave-admin-dashboard"}`, client.CodeNotJoined, ""},
		{`{"event":"authenticate","data":{"token":"forged"}}`, "token-invalid", ""},
		{`{"event":"authenticate","data":{"token":"unlucky"}}`, domain.CodeUnavailable, ""},
		{`{"event":"authenticate","id":9}`, CodeInvalidFrame, "9"},
		{`{"event":"ping","id":{"a":1}}`, CodeInvalidFrame, ""},
		{`{"event":"ping","id":true}`, CodeInvalidFrame, ""},
		{`{"event":"ping","id":"` + strings.Repeat("x", 200) + `"}`, CodeInvalidFrame, ""},
	} {
		c.send(bad.sent)
		f := c.next()
		if code := f.code(t); code != bad.code || string(f.ID) != bad.id {
			t.Errorf("%.120s: answer %s, want code %s and id %s", bad.sent, f.raw, bad.code, bad.id)
		}
	}
	c.stillOpen()
	ts.source.Append(sol, updates(1)...)
	c.events(1)
}

func TestCloseCodes(t *testing.T) {
	t.Parallel()
	closed := map[int]bool{}
	for _, one := range []struct {
		name   string
		config Config
		token  string
		do     func(*testServer, *testClient)
		close  int
		last   domain.Code // of the error before the close frame, if any
	}{
		{"binary frame", Config{}, "viewer", func(_ *testServer, c *testClient) {
			_ = c.WriteMessage(websocket.BinaryMessage, []byte(`{"event":"ping"}`))
		}, 4400, CodeBadFrame},
		{"not JSON", Config{}, "viewer", func(_ *testServer, c *testClient) { c.send(`{"event":`) }, 4400, CodeBadFrame},
		{"an array", Config{}, "viewer", func(_ *testServer, c *testClient) { c.send(`[{"event":"ping"}]`) }, 4400, CodeBadFrame},
		{"empty", Config{}, "viewer", func(_ *testServer, c *testClient) { c.send(``) }, 4400, CodeBadFrame},
		{"more behind", Config{}, "viewer", func(_ *testServer, c *testClient) { c.send(`{"event":"ping"} {}`) }, 4400, CodeBadFrame},
		{"no event", Config{}, "viewer", func(_ *testServer, c *testClient) { c.send(`{"data":{}}`) }, 4400, CodeBadFrame},
		{"another case", Config{}, "viewer", func(_ *testServer, c *testClient) { c.send(`{"Event":"ping"}`) }, 4400, CodeBadFrame},
		{"event twice", Config{}, "viewer", func(_ *testServer, c *testClient) { c.send(`{"event":"ping","event":"leave-system"}`) }, 4400, CodeBadFrame},
		{"data twice", Config{}, "viewer", func(_ *testServer, c *testClient) { c.send(`{"data":{},"event":"ping","data":{}}`) }, 4400, CodeBadFrame},
		{"not UTF-8", Config{}, "viewer", func(_ *testServer, c *testClient) { c.send("{\"event\":\"ping\",\"x\":\"\xff\"}") }, 4400, CodeBadFrame},
		{"event is no string", Config{}, "viewer", func(_ *testServer, c *testClient) { c.send(`{"event":1}`) }, 4400, CodeBadFrame},
		{"no token", Config{}, "", func(_ *testServer, c *testClient) {
			c.send(`{"event":"join-system","data":{"systemId":"clinica-sol"}}`)
		}, 4401, "token-missing"},
		{"invalid token", Config{}, "forged", nil, 4401, "token-invalid"},
		{"token expires", Config{}, "short", nil, 4401, client.CodeTokenExpired},
		{"kept out", Config{}, "banned", nil, 4403, domain.CodeForbidden},
		{"no keys", Config{}, "unlucky", nil, 1012, domain.CodeUnavailable},
		{"no join", Config{JoinWithin: 20 * time.Millisecond}, "viewer", nil, 4408, client.CodeNoJoin},
		{"only refused joins", Config{JoinWithin: 100 * time.Millisecond}, "viewer", func(_ *testServer, c *testClient) {
			c.send(`{"event":"join-system","data":{"systemId":"somebody-else"}}`)
		}, 4408, client.CodeNoJoin},
		{"thrown out", Config{}, "viewer", func(ts *testServer, c *testClient) {
			c.stillOpen()
			ts.Disconnect(func(rooms.Socket) bool { return true }, client.ForcedDisconnect{Reason: "closing time"})
		}, 4409, ""},
		{"flood", Config{Rates: limit.Rates{Frames: limit.Rate{PerSecond: 1, Burst: 5}, Refused: limit.Rate{PerSecond: 1, Burst: 5}}}, "viewer", func(_ *testServer, c *testClient) {
			for range 50 {
				c.send(`{"event":"ping"}`)
			}
		}, 4429, limit.CodeRateLimited},
		{"shutdown", Config{}, "viewer", func(ts *testServer, c *testClient) {
			c.stillOpen()
			go func() { _ = ts.Shutdown(context.Background()) }()
		}, 1012, ""},
		{"large frame", Config{}, "viewer", func(_ *testServer, c *testClient) {
			c.send(`{"event":"ping","data":"` + strings.Repeat("x", 300<<10) + `"}`)
		}, 1009, ""},
	} {
		closed[one.close] = true
		t.Run(one.name, func(t *testing.T) {
			t.Parallel()
			ts := serve(t, one.config)
			ts.auth.add("short", domain.Actor{
				Subject: "eva", Role: domain.RoleViewer, Systems: []domain.SystemID{sol}, ExpiresAt: time.Now().Add(30 * time.Millisecond),
			})
			c := ts.dial(one.token)
			c.expect(eventConnectionStatus)
			if one.do != nil {
				one.do(ts, c)
			}
			code, last := c.expectClose()
			if code != one.close {
				t.Errorf("closed with %d, not %d (last frame %s)", code, one.close, last.raw)
			}
			if one.last != "" && last.code(t) != one.last {
				t.Errorf("the last frame is %s", last.raw)
			}
		})
	}
	for _, rule := range CloseRules() {
		if !closed[rule.Code] || rule.Reconnect == "" || rule.Reason == "" {
			t.Errorf("close code %d is not tested or not described", rule.Code)
		}
	}
}

func TestFrameOfTheLargestSize(t *testing.T) {
	t.Parallel()
	ts := serve(t, Config{})
	c := ts.connect("viewer")
	padding := strings.Repeat("x", 64<<10-len(`{"event":"ping","data":""}`))
	c.send(`{"event":"ping","data":"` + padding + `"}`)
	c.expect(eventPong)
}

func TestRateLimits(t *testing.T) {
	t.Parallel()
	limiter := &stubbornLimiter{}
	ts := serve(t, Config{Rates: limit.Rates{Frames: limit.Rate{PerSecond: 1e6, Burst: 1e6}, Joins: limit.Rate{PerSecond: 0.001, Burst: 2}, Refused: limit.Rate{PerSecond: 1e6, Burst: 1e6}}}, func(p *client.Parts) { p.Limiter = limiter })
	c := ts.connect("viewer")
	requireWait := func(f frame) time.Duration {
		t.Helper()
		var e struct {
			RetryAfterMs int64 `json:"retryAfterMs"`
		}
		f.into(t, &e)
		if f.code(t) != limit.CodeRateLimited || e.RetryAfterMs <= 0 {
			t.Errorf("the answer is %s", f.raw)
		}
		return time.Duration(e.RetryAfterMs) * time.Millisecond
	}
	c.join(sol)
	c.join(sol)
	c.send(`{"event":"join-system","data":{"systemId":"clinica-sol"}}`)
	requireWait(c.next())
	// framesAtOnce frames are counted together. When they are too many, all that
	// follow are refused, until the wait is over.
	for _, until := range []string{eventError, eventPong} {
		for event := ""; event != until; {
			c.send(`{"event":"ping"}`)
			f := c.next()
			if event = f.Event; event == eventError {
				requireWait(f)
			}
		}
	}
	if limiter.joins != 2 {
		t.Errorf("the limiter was asked for %d joins", limiter.joins)
	}
}

// stubbornLimiter allows joins and handshakes, and no frames.
type stubbornLimiter struct{ joins int }

func (l *stubbornLimiter) Allow(_ context.Context, flow string, system domain.SystemID, n int) (bool, time.Duration) {
	if flow == limit.FlowJoins && system == sol && n == 1 {
		l.joins++
		return true, 0
	}
	return n == 1, 7 * time.Millisecond
}

// What the protocol below answers by itself counts as well, and so does a frame with
// a bad id, an empty one and one to a room that is not joined.
func TestFloodsOfWhatIsNoRequest(t *testing.T) {
	t.Parallel()
	for name, send := range map[string]func(c *testClient) error{
		"pings": func(c *testClient) error { return c.WriteControl(websocket.PingMessage, nil, time.Now().Add(patience)) },
		"pongs": func(c *testClient) error { return c.WriteControl(websocket.PongMessage, nil, time.Now().Add(patience)) },
		"ids": func(c *testClient) error {
			return c.WriteMessage(websocket.TextMessage, []byte(`{"event":"ping","id":[]}`))
		},
		"rooms": func(c *testClient) error {
			return c.WriteMessage(websocket.TextMessage, []byte(`{"event":"leave-system","data":{"systemId":"nowhere"}}`))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ts := serve(t, Config{Rates: limit.Rates{Frames: limit.Rate{PerSecond: 1, Burst: 5}, Refused: limit.Rate{PerSecond: 1, Burst: 5}}})
			c, _ := ts.join("viewer", sol)
			for range 100 {
				if send(c) != nil {
					break // it is closed
				}
			}
			if code, last := c.expectClose(); code != 4429 || last.code(t) != limit.CodeRateLimited {
				t.Errorf("closed with %d behind %s", code, last.raw)
			}
		})
	}
}

// A client that pings now and then gets its pongs, and is alive for it.
func TestPingIsAnswered(t *testing.T) {
	t.Parallel()
	ts := serve(t, Config{})
	c, _ := ts.join("viewer", sol)
	pongs := make(chan string, 1)
	c.SetPongHandler(func(data string) error {
		pongs <- data
		return nil
	})
	if err := c.WriteControl(websocket.PingMessage, []byte("here"), time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	c.send(`{"event":"ping"}`)
	c.expect(eventPong)
	if got := <-pongs; got != "here" {
		t.Errorf("the pong says %q", got)
	}
}

// Handshakes count for the system of their token, also of a client that does nothing
// else.
func TestFloodOfHandshakes(t *testing.T) {
	t.Parallel()
	limiter := &countingLimiter{left: 3}
	ts := serve(t, Config{}, func(p *client.Parts) { p.Limiter = limiter })
	for range 3 {
		ts.connect("viewer")
	}
	c := ts.dial("viewer")
	if code, last := c.expectClose(); code != 4429 || last.code(t) != limit.CodeRateLimited {
		t.Errorf("closed with %d behind %s", code, last.raw)
	}
	var status connectionStatus
	if ts.dial("luna").expect(eventConnectionStatus).into(t, &status); !status.Connected {
		t.Error("another system pays for it")
	}
}

// countingLimiter lets so many frames of sol through.
type countingLimiter struct {
	mu   sync.Mutex
	left int
}

func (l *countingLimiter) Allow(_ context.Context, flow string, system domain.SystemID, n int) (bool, time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if flow != limit.FlowFrames || system != sol {
		return true, 0
	}
	l.left -= n
	return l.left >= 0, time.Second
}

func TestSeveralRooms(t *testing.T) {
	t.Parallel()
	ts := serve(t, Config{})
	c, _ := ts.join("both", sol)
	c.join(luna)
	ts.source.Append(sol, updates(2)...)
	ts.source.Append(luna, updates(2)...)
	seen := map[domain.SystemID]int{}
	for _, e := range c.events(4) {
		seen[e.SystemID]++
	}
	if seen[sol] != 2 || seen[luna] != 2 {
		t.Errorf("events %v", seen)
	}
	c.send(`{"event":"leave-system","id":3,"data":{"systemId":"clinica-sol"}}`)
	if f := c.expect(eventLeft); string(f.ID) != "3" {
		t.Errorf("the answer is %s", f.raw)
	}
	ts.source.Append(sol, updates(2)...)
	ts.source.Append(luna, updates(1)...)
	if e := c.events(1)[0]; e.SystemID != luna {
		t.Errorf("an event of %s, which was left", e.SystemID)
	}
	c.stillOpen()
}

// TestJoinAgain joins a room anew while events of the first join are on their
// way: none of them may come behind the second answer.
func TestJoinAgain(t *testing.T) {
	t.Parallel()
	ts := serve(t, Config{Rates: limit.Rates{Joins: limit.Rate{PerSecond: 1000, Burst: 1000}}})
	ts.source.Append(sol, updates(300)...)
	all := ts.source.Events(sol)
	c := ts.connect("viewer")
	for i := range 40 {
		c.send(`{"event":"join-system","id":"old","data":{"systemId":"clinica-sol","after":"0-0"}}`)
		c.send(fmt.Sprintf(`{"event":"join-system","id":"new","data":{"systemId":"clinica-sol","after":%q}}`, all[290+i%9].Position))
		for f := c.next(); f.Event != eventJoined || string(f.ID) != `"new"`; f = c.next() {
		}
		requireEvents(t, c.events(9-i%9), all[291+i%9:])
	}
	if n := ts.hub.Stats(1).Cursors; n != 1 {
		t.Errorf("%d cursors of one socket", n)
	}
}

func TestFilters(t *testing.T) {
	t.Parallel()
	ts := serve(t, Config{HeartbeatEvery: 30 * time.Millisecond})
	c, _ := ts.join("viewer", sol, `"types":["device-update"]`, `"devices":["plug-1"]`, `"after":"0-0"`)
	offline := domain.DeviceOfflineStatus{DeviceID: "plug-1", Reason: domain.ReasonReported}
	ts.source.Append(sol, update("plug-1", 1), update("plug-2", 2), offline, update("plug-1", 3), update("plug-2", 4))
	if got := c.events(2); got[0].Seq != 1 || got[1].Seq != 4 {
		t.Errorf("events %d and %d", got[0].Seq, got[1].Seq)
	}
	// It is told that it has passed what it does not get.
	for {
		f, err := c.read()
		if err != nil {
			t.Fatal(err)
		}
		var h heartbeat
		f.into(t, &h)
		if at := h.Rooms[sol]; at == ts.source.Events(sol)[4].Cursor() {
			return
		}
	}
}

func TestConflate(t *testing.T) {
	t.Parallel()
	ts := serve(t, Config{})
	const n = 3000
	ts.source.Append(sol, updates(n)...)
	c, _ := ts.join("viewer", sol, `"after":"0-0"`, `"conflate":true`)
	last, got := uint64(0), 0
	for last < n {
		f := c.next()
		var e struct {
			Seq     uint64                     `json:"seq"`
			Skipped *struct{ From, To uint64 } `json:"skipped"`
		}
		if err := json.Unmarshal(f.raw, &e); err != nil {
			t.Fatal(err)
		}
		if next := last + 1; e.Skipped != nil && (e.Skipped.From != next || e.Skipped.To != e.Seq-1) || e.Skipped == nil && e.Seq != next {
			t.Fatalf("after %d comes %s", last, f.raw)
		}
		last = e.Seq
		got++
	}
	if got != 3 {
		t.Errorf("%d events for 3 devices", got)
	}
	ts.source.Append(sol, update("plug-1", 1))
	c.events(1)
}

func TestAuthenticate(t *testing.T) {
	t.Parallel()
	ts := serve(t, Config{})
	ts.auth.add("short", domain.Actor{
		Subject: "eva", Role: domain.RoleViewer, Systems: []domain.SystemID{sol, luna}, ExpiresAt: time.Now().Add(2 * time.Second),
	})
	c, _ := ts.join("short", sol)
	c.join(luna)
	c.send(`{"event":"authenticate","id":5,"data":{"token":"luna"}}`)
	f := c.expect(eventAuthenticated)
	var a client.Authenticated
	if f.into(t, &a); string(f.ID) != "5" || a.Subject != "eva" || time.Until(a.ExpiresAt) < time.Minute {
		t.Errorf("authenticated %s", f.raw)
	}
	var l client.Left
	if c.expect(eventLeft).into(t, &l); l.SystemID != sol || l.Reason == "" {
		t.Errorf("left %+v", l)
	}
	ts.source.Append(sol, updates(1)...)
	ts.source.Append(luna, updates(1)...)
	if e := c.events(1)[0]; e.SystemID != luna {
		t.Errorf("an event of %s, which the new token is not for", e.SystemID)
	}
	<-time.After(2100 * time.Millisecond) // beyond the end of the first token
	c.stillOpen()
	c.send(`{"event":"join-system","data":{"systemId":"clinica-sol"}}`)
	if code := c.next().code(t); code != domain.CodeForbidden {
		t.Errorf("joining with the old rights: %s", code)
	}
}

func TestHeartbeat(t *testing.T) {
	t.Parallel()
	ts := serve(t, Config{HeartbeatEvery: time.Hour, IdleAfter: 30 * time.Millisecond})
	c, _ := ts.join("viewer", sol)
	c.stillOpen() // no traffic of events, so no heartbeat
	ts.source.Append(sol, updates(2)...)
	c.events(2)
	f, err := c.read()
	if err != nil || f.Event != eventHeartbeat {
		t.Fatalf("%s (%v) is not a heartbeat", f.raw, err)
	}
	var h heartbeat
	f.into(t, &h)
	if len(h.Rooms) != 1 || h.Rooms[sol] != ts.source.Events(sol)[1].Cursor() {
		t.Errorf("heartbeat %s", f.raw)
	}
	if _, err := domain.ParseTime(h.Time); err != nil {
		t.Error(err)
	}
}

func TestAdminDashboard(t *testing.T) {
	t.Parallel()
	ts := serve(t, Config{})
	c := ts.connect("staff")
	c.send(`{"event":"join-admin-dashboard","id":1}`)
	if f := c.expect(eventJoined); string(f.ID) != "1" {
		t.Errorf("the answer is %s", f.raw)
	}
	c.stillOpen()
	ts.feed.send(`{"event":"metrics","data":{"rooms":1}}`)
	c.expect("metrics")
	c.send(`{"event":"leave-admin-dashboard"}`)
	c.expect(eventLeft)
	if n := ts.feed.watchers(); n != 0 {
		t.Errorf("%d watchers after leaving", n)
	}
	c.send(`{"event":"join-admin-dashboard"}`)
	c.expect(eventJoined)
	c.send(`{"event":"authenticate","data":{"token":"viewer"}}`)
	c.expect(eventAuthenticated)
	c.expect(eventLeft)
	waitFor(t, "the end of the metrics", func() bool { return ts.feed.watchers() == 0 })
	if !ts.all()[0].session.HasJoined() {
		t.Error("the dashboard does not count as a join, and the socket would be closed for having none")
	}
}

func TestRegistryAndDisconnect(t *testing.T) {
	t.Parallel()
	ts := serve(t, Config{})
	eva, _ := ts.join("both", sol)
	eva.join(luna)
	root, _ := ts.join("staff", luna)
	waitFor(t, "both to be listed", func() bool {
		for _, s := range ts.registry.all() {
			if s.Subject == "eva" && !slices.Equal(s.Systems, []domain.SystemID{luna, sol}) || s.Face != "ws" || s.Remote == "" {
				return false
			}
		}
		return len(ts.registry.all()) == 2 && len(ts.Sockets()) == 2
	})
	// Of one system, it leaves that room and lives on; so does staff's.
	ofSol, ofLuna := client.ForcedDisconnect{Reason: "cleaning", CommandID: "c-0", Room: sol}, client.ForcedDisconnect{Room: luna}
	if n := ts.Disconnect(func(s rooms.Socket) bool { return slices.Contains(s.Systems, sol) }, ofSol); n != 1 {
		t.Errorf("%d sockets left a room", n)
	}
	var out client.Left
	if f := eva.expect(eventLeft); true {
		if f.into(t, &out); out != (client.Left{SystemID: sol, Reason: "cleaning"}) {
			t.Errorf("told %s", f.raw)
		}
	}
	if n := ts.Disconnect(func(s rooms.Socket) bool { return s.Role == domain.RoleStaff }, ofLuna); n != 1 {
		t.Errorf("%d sockets of staff left a room", n)
	}
	root.expect(eventLeft)
	waitFor(t, "the rooms to be listed", func() bool {
		for _, s := range ts.registry.all() {
			if s.Subject == "eva" && !slices.Equal(s.Systems, []domain.SystemID{luna}) || s.Subject != "eva" && len(s.Systems) > 0 {
				return false
			}
		}
		return len(ts.registry.all()) == 2
	})
	eva.stillOpen()
	eva.join(sol)

	why := client.ForcedDisconnect{Reason: "maintenance", CommandID: "c-1", Reconnect: true}
	isEva := func(s rooms.Socket) bool { return s.Subject == "eva" && slices.Contains(s.Systems, sol) }
	if n := ts.Disconnect(isEva, why); n != 1 {
		t.Errorf("%d sockets thrown out", n)
	}
	var told client.ForcedDisconnect
	f := eva.expect(eventForcedDisconnect)
	if f.into(t, &told); told != why {
		t.Errorf("told %s", f.raw)
	}
	if code, _ := eva.expectClose(); code != 4409 {
		t.Errorf("closed with %d", code)
	}
	if n := ts.Disconnect(isEva, why); n != 0 {
		t.Errorf("%d sockets thrown out a second time", n)
	}
	waitFor(t, "one to be listed", func() bool { return len(ts.registry.all()) == 1 })
	root.stillOpen()
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

func TestTroubledSource(t *testing.T) {
	t.Parallel()
	ts := serve(t, Config{})
	ts.source.Append(sol, updates(2)...)
	ts.source.Fail(true)
	c := ts.connect("viewer")
	c.send(`{"event":"join-system","id":1,"data":{"systemId":"clinica-sol","snapshot":true}}`)
	f := c.next()
	if f.code(t) != domain.CodeUnavailable || strings.Contains(string(f.raw), roomstest.ErrBroken.Error()) {
		t.Errorf("the answer is %s", f.raw)
	}
	ts.source.Fail(false)
	c.join(sol)

	// A log that lost its newest events: the client is told where it goes on.
	c.join(sol, `"after":"0-0"`)
	c.events(2)
	ts.source.Forget(sol, 1)
	var again client.Joined
	if c.expect(eventJoined).into(t, &again); again.Recovered || again.Seq != 1 {
		t.Errorf("told %+v", again)
	}
	ts.source.Append(sol, updates(1)...)
	if e := c.events(1)[0]; e.Seq != 2 {
		t.Errorf("the next event is %d", e.Seq)
	}
}

// A frame that comes in empty pieces, on and on, is none that anything counts: its
// connection is cut. Pieces that make a frame are fine.
func TestFrameInPieces(t *testing.T) {
	t.Parallel()
	ts := serve(t, Config{})
	c, _ := ts.join("viewer", sol)
	begin, more := []byte{0x01, 0x80, 0, 0, 0, 0}, []byte{0x00, 0x80, 0, 0, 0, 0} // text and continuation: not the last, masked, empty
	whole := append(bytes.Repeat(more, 10_000), 0x80, 0x80|16, 0, 0, 0, 0)
	for range 50 { // more bytes together than there may be of one frame
		if _, err := c.NetConn().Write(append(slices.Concat(begin, whole), `{"event":"ping"}`...)); err != nil {
			t.Fatal(err)
		}
		c.expect(eventPong)
	}
	_ = c.NetConn().SetWriteDeadline(time.Now().Add(patience))
	if _, err := c.NetConn().Write(begin); err != nil {
		t.Fatal(err)
	}
	pieces := bytes.Repeat(more, 10_000)
	for range 1000 {
		if _, err := c.NetConn().Write(pieces); err != nil {
			if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
				t.Error("the server neither reads nor cuts")
			}
			return
		}
	}
	t.Error("a frame of 60 MB in empty pieces is read on and on")
}
