package socketio

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/limit"
	"github.com/plugcast/plugcast/transport/testpeer/conformance"
)

// few lets a socket send five frames, and five more that are refused.
var few = Config{Rates: limit.Rates{Frames: limit.Rate{PerSecond: 0.01, Burst: 5}, Refused: limit.Rate{PerSecond: 0.01, Burst: 5}}}

// endsWith reads until the connection is closed, and returns the code of the last
// error that came before.
func (c *testClient) endsWith() (code domain.Code) {
	c.b.t.Helper()
	for {
		f, err := c.ws.Read(c.ctx)
		switch {
		case errors.Is(err, conformance.ErrClosed):
			return code
		case err != nil:
			c.b.t.Fatalf("neither told nor closed: %v", err)
		}
		if data, ok := strings.CutPrefix(f.Data, `42["error",`); ok {
			var e struct{ Code domain.Code }
			if err := json.Unmarshal([]byte(strings.TrimSuffix(data, "]")), &e); err != nil {
				c.b.t.Fatalf("%s: %v", f.Data, err)
			}
			code = e.Code
		}
	}
}

// What carries no event counts as well: the packets of Engine.IO that the server
// answers with nothing, and acknowledgements of nothing.
func TestFloodsOfPacketsWithoutAnEvent(t *testing.T) {
	t.Parallel()
	for name, packet := range map[string]string{"noop": "6", "pong": "3", "upgrade": "5", "unknown event": `42["nothing"]`} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, few)
			c := b.client("eva:clinica-sol").connect()
			for range 100 {
				if c.ws.Send(packet) != nil {
					break
				}
			}
			if code := c.endsWith(); code != limit.CodeRateLimited {
				t.Errorf("told %q", code)
			}
			b.client("eva:clinica-sol").connect()
		})
	}
}

// What ends a frame that never ends does not end a client that sends much.
func TestManyLargeFrames(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{})
	c := b.client("eva:clinica-sol").connect()
	for range 100 {
		c.send(`42["ping","` + strings.Repeat("x", 60<<10) + `"]`)
		if e := c.next(); e.name != "pong" {
			t.Fatalf("got %s %s", e.name, e.args)
		}
	}
}

// A connection that shows no token has a bound of its own.
func TestFloodBeforeTheToken(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{})
	c := b.client("eva:clinica-sol")
	var err error
	if c.ws, err = conformance.OpenWebSocket(c.ctx, b.endpoint); err != nil {
		t.Fatal(err)
	}
	defer c.cut()
	for range 1_000 {
		if c.ws.Send("6") != nil {
			break
		}
	}
	c.endsWith()
}

// The pings and pongs of WebSocket count too; gorilla answers each ping by itself.
func TestFloodOfControlFrames(t *testing.T) {
	t.Parallel()
	for name, kind := range map[string]int{"ping": websocket.PingMessage, "pong": websocket.PongMessage} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, few)
			conn, response, err := websocket.DefaultDialer.DialContext(t.Context(),
				"ws"+strings.TrimPrefix(b.endpoint, "http")+"?EIO=4&transport=websocket", nil)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = response.Body.Close()
			_ = conn.SetReadDeadline(time.Now().Add(patience))
			if err := conn.WriteMessage(websocket.TextMessage, []byte(`40{"token":"eva:clinica-sol"}`)); err != nil {
				t.Fatal(err)
			}
			pongs, told := 0, false
			conn.SetPongHandler(func(string) error { pongs++; return nil })
			for range 3 { // open, CONNECT, connection-status
				if _, _, err := conn.ReadMessage(); err != nil {
					t.Fatal(err)
				}
			}
			for range 100 {
				if conn.WriteControl(kind, nil, time.Now().Add(patience)) != nil {
					break
				}
			}
			for {
				_, message, err := conn.ReadMessage()
				if end := new(websocket.CloseError); errors.As(err, &end) {
					break
				} else if err != nil {
					t.Fatalf("not closed: %v", err)
				}
				told = told || strings.Contains(string(message), string(limit.CodeRateLimited))
			}
			if !told || pongs > 5 {
				t.Errorf("told: %v; %d pongs", told, pongs)
			}
		})
	}
}

// Requests of a session that cannot be served count for the session.
func TestFloodOfRequestsThatCannotBeServed(t *testing.T) {
	t.Parallel()
	b := setup(t, few)
	p, err := conformance.OpenPolling(t.Context(), b.endpoint)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if _, err := p.Post(t.Context(), `40{"token":"eva:clinica-sol"}`); err != nil {
		t.Fatal(err)
	}
	if answered, err := p.Next(t.Context()); err != nil || !strings.HasPrefix(answered, "40{") {
		t.Fatalf("%s, %v", answered, err)
	}
	for range 50 {
		if _, err := p.Do(t.Context(), http.MethodPut, nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	for told := false; ; {
		packet, err := p.Next(t.Context())
		if err != nil || packet == "1" {
			if !told {
				t.Errorf("ended with %q, %v", packet, err)
			}
			break
		}
		told = told || strings.Contains(packet, string(limit.CodeRateLimited))
	}
}

// Attempts to upgrade count for the session, also those that a client gives up.
func TestFloodOfUpgrades(t *testing.T) {
	t.Parallel()
	b := setup(t, few)
	p, err := conformance.OpenPolling(t.Context(), b.endpoint)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if _, err := p.Post(t.Context(), `40{"token":"eva:clinica-sol"}`); err != nil {
		t.Fatal(err)
	}
	address := strings.Replace(b.endpoint, "http", "ws", 1) + "?EIO=4&transport=websocket&sid=" + p.Open.SID
	refused := false
	for range 50 {
		conn, answer, err := websocket.DefaultDialer.DialContext(t.Context(), address, nil)
		if err != nil {
			if answer == nil {
				t.Fatal(err)
			}
			refused = refused || answer.StatusCode == http.StatusBadRequest
			continue
		}
		_ = conn.WriteMessage(websocket.TextMessage, []byte("2probe"))
		_, _, _ = conn.ReadMessage()
		_ = conn.Close()
	}
	if !refused {
		t.Error("50 attempts, and none too many")
	}
	b.client("eva:clinica-sol").connect()
}

// A handshake counts for the system of its token.
func TestFloodOfHandshakes(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{})
	b.limiter = frames{}
	b.start()
	c := b.client("eva:clinica-sol")
	if text, closed := c.attempt(); !closed {
		t.Errorf("connected: %s", text)
	}
	b.client("eva:centro-luna").connect()
}

// frames is a limiter that has none left for sol.
type frames struct{}

func (frames) Allow(_ context.Context, flow domain.Flow, system domain.SystemID, _ int) (bool, time.Duration) {
	return flow != domain.FlowFrames || system != sol, time.Second
}

// An event with binary data is refused with a word, and then the connection ends:
// the attachments cannot be told from what follows.
func TestBinaryData(t *testing.T) {
	t.Parallel()
	for name, send := range map[string]func(c *testClient) error{
		"event":      func(c *testClient) error { return c.ws.Send(`451-["join-system",{"_placeholder":true,"num":0}]`) },
		"with ack":   func(c *testClient) error { return c.ws.Send(`451-7["join-system",{"_placeholder":true,"num":0}]`) },
		"attachment": func(c *testClient) error { return c.ws.SendBinary([]byte{1, 2, 3}) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, Config{})
			c := b.client("eva:clinica-sol").connect()
			if err := send(c); err != nil {
				t.Fatal(err)
			}
			if code := c.endsWith(); code != CodeBinary {
				t.Errorf("told %q", code)
			}
		})
	}
}
