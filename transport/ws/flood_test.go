package ws

import (
	"bytes"
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/client"
	"github.com/plugcast/plugcast/transport/limit"
)

func TestRateLimits(t *testing.T) {
	t.Parallel()
	limiter := &stubbornLimiter{}
	ts := serve(t, Config{Rates: limit.Rates{
		Frames:  limit.Rate{PerSecond: 1e6, Burst: 1e6},
		Joins:   limit.Rate{PerSecond: 0.001, Burst: 2},
		Refused: limit.Rate{PerSecond: 1e6, Burst: 1e6},
	}}, func(p *client.Parts) { p.Limiter = limiter })
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
	// The socket counts framesAtOnce frames together. If the limiter refuses them, the
	// socket refuses all frames that follow until the wait is over.
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

func (l *stubbornLimiter) Allow(_ context.Context, flow domain.Flow, system domain.SystemID, n int) (bool, time.Duration) {
	if flow == domain.FlowJoins && system == sol && n == 1 {
		l.joins++
		return true, 0
	}
	return n == 1, 7 * time.Millisecond
}

// The limit counts pings and pongs too, although the WebSocket library answers pings by
// itself. It also counts a frame with a bad id and a frame to a room that the client has
// not joined.
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
					break // the server closed the connection
				}
			}
			if code, last := c.expectClose(); code != 4429 || last.code(t) != limit.CodeRateLimited {
				t.Errorf("closed with %d behind %s", code, last.raw)
			}
		})
	}
}

// The server answers a client's occasional pings.
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

// A handshake counts for the system of its token, even if the client does nothing else.
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

// countingLimiter allows the given number of frames of sol.
type countingLimiter struct {
	mu   sync.Mutex
	left int
}

func (l *countingLimiter) Allow(_ context.Context, flow domain.Flow, system domain.SystemID, n int) (bool, time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if flow != domain.FlowFrames || system != sol {
		return true, 0
	}
	l.left -= n
	return l.left >= 0, time.Second
}

// The limit does not see an endless frame of empty fragments, so the server cuts its
// connection. It accepts fragments that complete a frame.
func TestFrameInPieces(t *testing.T) {
	t.Parallel()
	ts := serve(t, Config{})
	c, _ := ts.join("viewer", sol)
	// A text and a continuation fragment: not final, masked, empty.
	begin, more := []byte{0x01, 0x80, 0, 0, 0, 0}, []byte{0x00, 0x80, 0, 0, 0, 0}
	whole := append(bytes.Repeat(more, 10_000), 0x80, 0x80|16, 0, 0, 0, 0)
	for range 50 { // together more bytes than one frame may have
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
