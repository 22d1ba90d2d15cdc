package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/auth"
)

const testSecret = "a-secret-of-at-least-32-bytes-for-tests"

// testToken makes a token for the systems; none means all of them.
func testToken(t testing.TB, role domain.Role, systems ...domain.SystemID) string {
	t.Helper()
	actor := domain.Actor{
		Subject: "test-" + string(role), Role: role, Systems: systems, AllSystems: len(systems) == 0, ExpiresAt: time.Now().Add(time.Hour),
	}
	token, err := auth.Config{Secret: []byte(testSecret)}.Sign(actor, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// httpClient keeps connections for as many callers as the tests have.
var httpClient = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}, Timeout: time.Minute}

// call sends a request and returns status and body. The body may be nil, bytes,
// a string, or a value to be written as JSON.
func call(ctx context.Context, method, url, token string, body any, headers ...string) (int, http.Header, []byte, error) {
	var reader io.Reader
	switch b := body.(type) {
	case nil:
	case []byte:
		reader = bytes.NewReader(b)
	case string:
		reader = strings.NewReader(b)
	default:
		raw, err := json.Marshal(b)
		if err != nil {
			return 0, nil, nil, err
		}
		reader = bytes.NewReader(raw)
	}
	request, err := http.NewRequestWithContext(ctx, method, url, reader)
	if err != nil {
		return 0, nil, nil, err
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	if reader != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := httpClient.Do(request)
	if err != nil {
		return 0, nil, nil, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	return response.StatusCode, response.Header, answer, err
}

// mustCall fails the test unless the answer has the wanted status, and reads it
// into out unless that is nil.
func mustCall(t testing.TB, want int, method, url, token string, body, out any, headers ...string) http.Header {
	t.Helper()
	status, header, answer, err := call(t.Context(), method, url, token, body, headers...)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	if status != want {
		t.Fatalf("%s %s: status %d, want %d: %s", method, url, status, want, answer)
	}
	if out != nil {
		if err := json.Unmarshal(answer, out); err != nil {
			t.Fatalf("%s %s: %v in %s", method, url, err, answer)
		}
	}
	return header
}

// frame is any frame of the native protocol.
type frame struct {
	Event    string          `json:"event"`
	ID       json.RawMessage `json:"id"`
	Position domain.Position `json:"position"`
	Seq      uint64          `json:"seq"`
	Data     json.RawMessage `json:"data"`
	raw      json.RawMessage
}

// dial opens a native socket with a token.
func dial(ctx context.Context, base, token string) (*websocket.Conn, error) {
	dialer := websocket.Dialer{Subprotocols: []string{"plugcast.v1"}, HandshakeTimeout: 20 * time.Second}
	header := http.Header{}
	if token != "" {
		header.Set("Authorization", "Bearer "+token)
	}
	conn, _, err := dialer.DialContext(ctx, strings.Replace(base, "http://", "ws://", 1)+"/ws", header)
	return conn, err
}

// readFrames reads one message, which is a frame or an array of them.
func readFrames(conn *websocket.Conn) ([]frame, error) {
	_, message, err := conn.ReadMessage()
	if err != nil {
		return nil, err
	}
	raws := []json.RawMessage{message}
	if message[0] == '[' {
		if err := json.Unmarshal(message, &raws); err != nil {
			return nil, err
		}
	}
	frames := make([]frame, len(raws))
	for i, raw := range raws {
		if err := json.Unmarshal(raw, &frames[i]); err != nil {
			return nil, err
		}
		frames[i].raw = raw
	}
	return frames, nil
}

// socket is a reader of one system that notes which events it got. It looks at
// the bytes for the three members that it checks, because decoding a million
// frames whole would make the test measure itself.
type socket struct {
	system domain.SystemID

	mu     sync.Mutex
	got    []place
	faults []string
}

// place is what one delivered event said of itself.
type place struct {
	seq      uint64
	position domain.Position
}

// last returns the newest place, or zero.
func (s *socket) last() place {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.got) == 0 {
		return place{}
	}
	return s.got[len(s.got)-1]
}

func (s *socket) fault(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.faults) < 5 {
		s.faults = append(s.faults, fmt.Sprintf(format, args...))
	}
}

// join asks for everything after the last event that the socket has.
func (s *socket) join(conn *websocket.Conn) error {
	return conn.WriteJSON(map[string]any{
		"event": "join-system", "id": 1, "data": map[string]any{"systemId": s.system, "after": s.last().position},
	})
}

// read takes messages until the connection ends or stop says so.
func (s *socket) read(conn *websocket.Conn, stop func(place) bool) error {
	for {
		_, message, err := conn.ReadMessage()
		if err != nil {
			return err
		}
		for rest := message; ; {
			at, event, found := nextEvent(&rest)
			if !found {
				break
			}
			s.take(at, event)
		}
		// Also after a heartbeat: the end may be known only when all is here.
		if stop(s.last()) {
			return nil
		}
	}
}

// nextEvent finds the next envelope of a device update in a message. Its members
// stand in one order, which TestEnvelopeForm of package domain pins.
func nextEvent(rest *[]byte) (at place, event []byte, found bool) {
	const mark = `{"event":"device-update","position":"`
	i := bytes.Index(*rest, []byte(mark))
	if i < 0 {
		return place{}, nil, false
	}
	event = (*rest)[i:]
	position, after, _ := bytes.Cut(event[len(mark):], []byte(`","seq":`))
	seq, after, _ := bytes.Cut(after, []byte(`,`))
	*rest = after
	at.position, _ = domain.ParsePosition(string(position))
	at.seq, _ = strconv.ParseUint(string(seq), 10, 64)
	return at, event, at.seq > 0
}

// take checks an event against the one before: the very next, later in the log,
// and of this system.
func (s *socket) take(at place, event []byte) {
	before := s.last()
	if at.seq != before.seq+1 {
		s.fault("seq %d after %d", at.seq, before.seq)
	}
	if !at.position.After(before.position) {
		s.fault("position %s after %s", at.position, before.position)
	}
	_, system, _ := bytes.Cut(event, []byte(`"systemId":"`))
	if !bytes.HasPrefix(system, []byte(s.system+`"`)) {
		s.fault("an event of another system: %.120s", event)
	}
	s.mu.Lock()
	s.got = append(s.got, at)
	s.mu.Unlock()
}

// stay joins and reads until the event with the given seq, connecting again and
// resuming from the last event whenever the connection ends. base says where to
// connect each time.
func (s *socket) stay(ctx context.Context, base func() string, token string, until func() uint64, opened func(*websocket.Conn)) {
	done := func(at place) bool { last := until(); return last > 0 && at.seq >= last }
	for ctx.Err() == nil && !done(s.last()) {
		conn, err := dial(ctx, base(), token)
		if err != nil {
			pause(ctx, 50*time.Millisecond)
			continue
		}
		stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
		opened(conn)
		if s.join(conn) == nil {
			_ = s.read(conn, done)
		}
		stop()
		_ = conn.Close()
	}
	if !done(s.last()) {
		s.fault("ended at seq %d of %d", s.last().seq, until())
	}
}
