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

// few allows a socket five frames, and five more that the server refuses.
var few = Config{Rates: limit.Rates{Frames: limit.Rate{PerSecond: 0.01, Burst: 5}, Refused: limit.Rate{PerSecond: 0.01, Burst: 5}}}

// endsWith reads until the server closes the connection, and returns the code of the
// last error before that.
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

// The limit also counts packets without an event: Engine.IO packets that the server does
// not answer, and unknown events.
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

// The bound on an endless frame does not stop a client that sends many large frames.
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

// A connection without a token has its own limit.
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

// The limit counts WebSocket pings and pongs too; gorilla answers each ping by itself.
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

// Invalid requests count for their session.
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

// Attempts to upgrade count for the session, even if the client abandons them.
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

// frames is a limiter that refuses all frames of sol.
type frames struct{}

func (frames) Allow(_ context.Context, flow domain.Flow, system domain.SystemID, _ int) (bool, time.Duration) {
	return flow != domain.FlowFrames || system != sol, time.Second
}

// The server answers binary data with an error and closes the connection, because it
// cannot tell attachments from the packets that follow.
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
