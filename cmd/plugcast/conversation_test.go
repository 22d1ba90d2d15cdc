package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/plugcast/plugcast/domain"
)

// patience is how long a test waits for what a server says, before it fails.
const patience = time.Minute

// conversation is one native socket, a frame at a time.
type conversation struct {
	t       testing.TB
	conn    *websocket.Conn
	pending []frame // of the message that was read last
}

// converse opens a socket with a token, and hangs up when the test ends.
func converse(t testing.TB, base, token string) *conversation {
	t.Helper()
	conn, err := dial(t.Context(), base, token)
	return newConversation(t, conn, err)
}

func newConversation(t testing.TB, conn *websocket.Conn, err error) *conversation {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &conversation{t: t, conn: conn}
}

// say sends a frame. A socket that the server has closed need not take it.
func (c *conversation) say(event string, data any) {
	_ = c.conn.WriteJSON(map[string]any{"event": event, "id": event, "data": data})
}

// next returns the next frame, or the close code.
func (c *conversation) next() (f frame, closed int) {
	c.t.Helper()
	if len(c.pending) == 0 {
		_ = c.conn.SetReadDeadline(time.Now().Add(patience))
		frames, err := readFrames(c.conn)
		if end := new(websocket.CloseError); errors.As(err, &end) {
			return frame{}, end.Code
		} else if err != nil {
			c.t.Fatalf("the socket ended without a close frame: %v", err)
		}
		c.pending = frames
	}
	f, c.pending = c.pending[0], c.pending[1:]
	return f, 0
}

// await passes over frames until one of the given event comes, and reads its
// data into out unless that is nil.
func (c *conversation) await(event string, out any) {
	c.t.Helper()
	for {
		f, closed := c.next()
		if closed != 0 {
			c.t.Fatalf("closed with %d before %s came", closed, event)
		}
		if f.Event != event {
			continue
		}
		if out != nil {
			if err := json.Unmarshal(f.Data, out); err != nil {
				c.t.Fatalf("%v in %s", err, f.raw)
			}
		}
		return
	}
}

// refusal is the data of an error frame.
type refusal struct {
	Code         string `json:"code"`
	RetryAfterMs int64  `json:"retryAfterMs"`
}

// ended passes over frames until the socket is closed.
func (c *conversation) ended() (code int) {
	c.t.Helper()
	for {
		if _, closed := c.next(); closed != 0 {
			return closed
		}
	}
}

// join enters the room of a system.
func (c *conversation) join(system domain.SystemID) {
	c.t.Helper()
	c.say("join-system", map[string]any{"systemId": system})
	c.await("joined", nil)
}

// streamClient has no time limit: an event stream has no end.
var streamClient = &http.Client{Transport: &http.Transport{}}

// eventStream is the body of an SSE response.
type eventStream struct {
	t     testing.TB
	lines *bufio.Scanner
}

// openStream opens an event stream and demands a status of the answer.
func openStream(t testing.TB, want int, base string, system domain.SystemID, query, token string) *eventStream {
	t.Helper()
	return openStreamWith(t, streamClient, want, base, system, query, token)
}

func openStreamWith(t testing.TB, client *http.Client, want int, base string, system domain.SystemID, query, token string) *eventStream {
	t.Helper()
	url := base + "/api/v1/systems/" + string(system) + "/events/stream" + query
	request, err := http.NewRequestWithContext(t.Context(), "GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = response.Body.Close() })
	if response.StatusCode != want {
		t.Fatalf("%s: status %d, want %d", url, response.StatusCode, want)
	}
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, 1<<20)
	return &eventStream{t: t, lines: lines}
}

// next returns the next event's name and data, or false at the end of the stream.
func (s *eventStream) next() (name, data string, ok bool) {
	for s.lines.Scan() {
		field, value, _ := strings.Cut(s.lines.Text(), ": ")
		switch field {
		case "event":
			name = value
		case "data":
			return name, value, true
		}
	}
	return "", "", false
}
