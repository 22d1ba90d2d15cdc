package ws

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/client"
	"github.com/plugcast/plugcast/transport/limit"
	"github.com/plugcast/plugcast/transport/testpeer/clienttest"
)

func TestJoinAndFollow(t *testing.T) {
	t.Parallel()
	ts := serve(t, Config{})
	ts.source.Append(sol, clienttest.Updates(5)...)
	c, now := ts.join("viewer", sol)
	if now.Seq != 5 || now.Recovered {
		t.Errorf("joined %+v", now)
	}
	ts.source.Append(sol, clienttest.Updates(3)...)
	clienttest.RequireEvents(t, c.events(3), ts.source.Events(sol)[5:])

	all := ts.source.Events(sol)
	for _, join := range []struct {
		after     string
		from      int
		recovered bool
	}{
		{"0-0", 0, true},
		{all[3].Position.String(), 4, true},
		{all[7].Position.String(), 8, true},
		{"99999999999999-0", 8, false}, // a position of another log
	} {
		c, at := ts.join("viewer", sol, fmt.Sprintf(`"after":%q`, join.after))
		if at.Seq != uint64(join.from) || at.Recovered != join.recovered {
			t.Errorf("after %s: joined %+v", join.after, at)
		}
		clienttest.RequireEvents(t, c.events(8-join.from), all[join.from:])
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
		{`{"event":"join-system","ID":3,"Data":{"systemId":"clinica-sol"}}`, CodeInvalidFrame, ""}, // member names are case-sensitive
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
		{`{"event":"join-system","data":{"systemId":"clinica-sol",` +
			`"types":["a"` + strings.Repeat(`,"a"`, 64) + `]}}`, domain.CodeInvalidFilter, ""},
		{`{"event":"join-system","id":"x","data":{"systemId":"somebody-else"}}`, domain.CodeForbidden, `"x"`},
		{`{"event":"join-system","data":{"systemId":"_platform"}}`, domain.CodeForbidden, ""},
		{`{"event":"join-system","data":{"systemId":"centro-luna"}}`, client.CodeTooManyRooms, ""},
		{`{"event":"leave-system","data":{"systemId":"centro-luna"}}`, client.CodeNotJoined, ""},
		{`{"event":"leave-system","data":{}}`, domain.CodeInvalidSystemID, ""},
		{`{"event":"join-admin-dashboard"}`, domain.CodeForbidden, ""},
		{`{"event":"leave-admin-dashboard"}`, client.CodeNotJoined, ""},
		{`{"event":"authenticate","data":{"token":"forged"}}`, "token-invalid", ""},
		{`{"event":"authenticate","data":{"token":"broken"}}`, domain.CodeUnavailable, ""},
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
	ts.source.Append(sol, clienttest.Updates(1)...)
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
		last   domain.Code // the code of the error before the close frame, if any
	}{
		{"binary frame", Config{}, "viewer", func(_ *testServer, c *testClient) {
			_ = c.WriteMessage(websocket.BinaryMessage, []byte(`{"event":"ping"}`))
		}, 4400, CodeBadFrame},
		{"not JSON", Config{}, "viewer", sends(`{"event":`), 4400, CodeBadFrame},
		{"an array", Config{}, "viewer", sends(`[{"event":"ping"}]`), 4400, CodeBadFrame},
		{"empty", Config{}, "viewer", sends(``), 4400, CodeBadFrame},
		{"more behind", Config{}, "viewer", sends(`{"event":"ping"} {}`), 4400, CodeBadFrame},
		{"no event", Config{}, "viewer", sends(`{"data":{}}`), 4400, CodeBadFrame},
		{"another case", Config{}, "viewer", sends(`{"Event":"ping"}`), 4400, CodeBadFrame},
		{"event twice", Config{}, "viewer", sends(`{"event":"ping","event":"leave-system"}`), 4400, CodeBadFrame},
		{"data twice", Config{}, "viewer", sends(`{"data":{},"event":"ping","data":{}}`), 4400, CodeBadFrame},
		{"not UTF-8", Config{}, "viewer", sends("{\"event\":\"ping\",\"x\":\"\xff\"}"), 4400, CodeBadFrame},
		{"event is no string", Config{}, "viewer", sends(`{"event":1}`), 4400, CodeBadFrame},
		{"no token", Config{}, "", sends(`{"event":"join-system","data":{"systemId":"clinica-sol"}}`), 4401, "token-missing"},
		{"invalid token", Config{}, "forged", nil, 4401, "token-invalid"},
		{"token expires", Config{}, "short", nil, 4401, client.CodeTokenExpired},
		{"kept out", Config{}, "banned", nil, 4403, domain.CodeForbidden},
		{"no keys", Config{}, "broken", nil, 1012, domain.CodeUnavailable},
		{"no join", Config{JoinWithin: 20 * time.Millisecond}, "viewer", nil, 4408, client.CodeNoJoin},
		{"only refused joins", Config{JoinWithin: 100 * time.Millisecond}, "viewer",
			sends(`{"event":"join-system","data":{"systemId":"somebody-else"}}`), 4408, client.CodeNoJoin},
		{"thrown out", Config{}, "viewer", func(ts *testServer, c *testClient) {
			c.stillOpen()
			ts.Disconnect(func(domain.Socket) bool { return true }, client.ForcedDisconnect{Reason: "closing time"})
		}, 4409, ""},
		{"flood", Config{
			Rates: limit.Rates{Frames: limit.Rate{PerSecond: 1, Burst: 5}, Refused: limit.Rate{PerSecond: 1, Burst: 5}},
		}, "viewer", func(_ *testServer, c *testClient) {
			for range 50 {
				c.send(`{"event":"ping"}`)
			}
		}, 4429, limit.CodeRateLimited},
		{"shutdown", Config{}, "viewer", func(ts *testServer, c *testClient) {
			c.stillOpen()
			go func() { _ = ts.Shutdown(context.Background()) }()
		}, 1012, ""},
		{"large frame", Config{}, "viewer", sends(`{"event":"ping","data":"` + strings.Repeat("x", 300<<10) + `"}`), 1009, ""},
	} {
		closed[one.close] = true
		t.Run(one.name, func(t *testing.T) {
			t.Parallel()
			ts := serve(t, one.config)
			ts.auth.Name("short", domain.Actor{
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
	for _, rule := range closeRules() {
		if !closed[rule.Code] || rule.Reconnect == "" || rule.Reason == "" {
			t.Errorf("close code %d is not tested or not described", rule.Code)
		}
	}
}

// sends returns a step that sends one text frame.
func sends(text string) func(*testServer, *testClient) {
	return func(_ *testServer, c *testClient) { c.send(text) }
}

func TestFrameOfTheLargestSize(t *testing.T) {
	t.Parallel()
	ts := serve(t, Config{})
	c := ts.connect("viewer")
	padding := strings.Repeat("x", 64<<10-len(`{"event":"ping","data":""}`))
	c.send(`{"event":"ping","data":"` + padding + `"}`)
	c.expect(eventPong)
}

// stubbornLimiter allows joins and handshakes but no frames.
type stubbornLimiter struct{ joins int }

// closeRules lists every code with which this server closes sockets. The WebSocket
// library itself sends 1009, without a reason.
func closeRules() []CloseRule {
	return []CloseRule{
		closeTooBig, closeRestart, closeBadFrame, closeToken, closeForbidden, closeNoJoin, closeForced, closeFlood,
	}
}
