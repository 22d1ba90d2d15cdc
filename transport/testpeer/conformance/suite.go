package conformance

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/plugcast/plugcast/domain"
)

// Subject is a server under test.
type Subject struct {
	// Start serves until the test is over, wired as the package's doc says, at an
	// address of its own, which it returns: like http://127.0.0.1:4000.
	Start func(t *testing.T, s Settings) string
	// Original says that this is the Socket.IO project's own server, which is
	// spared what plugcast does more strictly.
	Original bool
}

// Run makes every check of the two protocols against the subject, in parallel.
func Run(t *testing.T, subject Subject) {
	t.Helper()
	patient, brisk := subject.Start(t, Patient()), subject.Start(t, Brisk())
	t.Run("Engine.IO", func(t *testing.T) {
		t.Parallel()
		subject.run(t, patient+"/engine.io/", handshakeChecks, refusalChecks, messageChecks,
			payloadChecks, requestChecks, closeChecks, upgradeChecks)
		subject.run(t, brisk+"/engine.io/", briskHandshakeChecks, heartbeatChecks, upgradeTimeoutChecks)
	})
	t.Run("Socket.IO", func(t *testing.T) {
		t.Parallel()
		subject.run(t, patient+"/socket.io/", handshakeChecks, refusalChecks, closeChecks,
			connectChecks, disconnectChecks, eventChecks, binaryChecks, badPacketChecks, socketPollingChecks)
		subject.run(t, brisk+"/socket.io/", connectTimeoutChecks)
	})
}

// check is one point of the protocol: the server under test must do what its name
// says.
type check struct {
	name string
	run  func(t *testing.T, at endpoint)
	// stricter is why plugcast does more here than the original server, which is
	// not asked then.
	stricter string
}

func (s Subject) run(t *testing.T, base string, groups ...[]check) {
	t.Helper()
	for _, c := range slices.Concat(groups...) {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if s.Original && c.stricter != "" {
				t.Skip("plugcast is stricter: " + c.stricter)
			}
			ctx, cancel := context.WithTimeout(t.Context(), within)
			t.Cleanup(cancel)
			c.run(t, endpoint{ctx, base})
		})
	}
}

// within is the time for one check. It bounds a failure; nothing waits it out.
const within = 30 * time.Second

// endpoint is where a check talks to the server, and until when.
type endpoint struct {
	ctx context.Context // of the one check
	url string
}

// query is the query of an Engine.IO request, from names and values in turn.
func query(pairs ...string) url.Values {
	values := url.Values{}
	for pair := range slices.Chunk(pairs, 2) {
		values.Add(pair[0], pair[1])
	}
	return values
}

func (at endpoint) polling(t *testing.T) *Polling {
	t.Helper()
	p, err := OpenPolling(at.ctx, at.url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func (at endpoint) webSocket(t *testing.T) *WebSocket {
	t.Helper()
	w, err := OpenWebSocket(at.ctx, at.url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

func (at endpoint) probe(t *testing.T, p *Polling) *WebSocket {
	t.Helper()
	w, err := Probe(at.ctx, p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

// request makes a request outside of a session.
func (at endpoint) request(t *testing.T, method string, header http.Header, values url.Values) Answer {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := do(at.ctx, client, method, at.url+"?"+values.Encode(), header, nil)
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

func (at endpoint) get(t *testing.T, p *Polling) Answer {
	t.Helper()
	answer, err := p.Get(at.ctx)
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

// post sends packets which the server must take.
func (at endpoint) post(t *testing.T, p *Polling, packets ...string) {
	t.Helper()
	answer, err := p.Post(at.ctx, packets...)
	if err != nil {
		t.Fatal(err)
	}
	if answer.Status != http.StatusOK || answer.Body != "ok" {
		t.Fatalf("POST %q was answered %d %q, want 200 ok", packets, answer.Status, answer.Body)
	}
}

// polls fails unless the next packets of p are these.
func (at endpoint) polls(t *testing.T, p *Polling, want ...string) {
	t.Helper()
	for _, packet := range want {
		got, err := p.Next(at.ctx)
		if err != nil {
			t.Fatalf("waiting for %s: %v", short(packet), err)
		}
		if got != packet {
			t.Fatalf("polled %s, want %s", short(got), short(packet))
		}
	}
}

func send(t *testing.T, w *WebSocket, packets ...string) {
	t.Helper()
	if err := w.Send(packets...); err != nil {
		t.Fatal(err)
	}
}

func sendBinary(t *testing.T, w *WebSocket, attachments ...string) {
	t.Helper()
	for _, attachment := range attachments {
		if err := w.SendBinary([]byte(attachment)); err != nil {
			t.Fatal(err)
		}
	}
}

// gets fails unless the next message of w is this text.
func (at endpoint) gets(t *testing.T, w *WebSocket, want ...string) {
	t.Helper()
	for _, text := range want {
		at.getsFrames(t, w, Frame{Data: text})
	}
}

func (at endpoint) getsFrames(t *testing.T, w *WebSocket, want ...Frame) {
	t.Helper()
	for _, frame := range want {
		got, err := w.Next(at.ctx)
		if err != nil {
			t.Fatalf("waiting for %s: %v", short(frame.Data), err)
		}
		if got.Binary != frame.Binary || canonical(got.Data) != canonical(frame.Data) {
			t.Fatalf("got %s (binary: %t), want %s (binary: %t)",
				short(got.Data), got.Binary, short(frame.Data), frame.Binary)
		}
	}
}

// canonical writes the JSON array that a packet ends with in one way, so that
// servers may choose their own.
func canonical(packet string) string {
	at := strings.IndexByte(packet, '[')
	var arguments []any
	if at < 0 || json.Unmarshal([]byte(packet[at:]), &arguments) != nil {
		return packet
	}
	written, _ := json.Marshal(arguments) // it was read from JSON
	return packet[:at] + string(written)
}

// closes fails unless the server closes w and says nothing before.
func (at endpoint) closes(t *testing.T, w *WebSocket) {
	t.Helper()
	if frame, err := w.Next(at.ctx); !errors.Is(err, ErrClosed) {
		t.Fatalf("got %s, %v; want the WebSocket closed", short(frame.Data), err)
	}
}

// echoes fails unless a message comes back on w: the session is well.
func (at endpoint) echoes(t *testing.T, w *WebSocket) {
	t.Helper()
	send(t, w, "4are you there?")
	at.gets(t, w, "4are you there?")
}

// echoesPolling is the same for a polling session.
func (at endpoint) echoesPolling(t *testing.T, p *Polling) {
	t.Helper()
	at.post(t, p, "4are you there?")
	at.polls(t, p, "4are you there?")
}

// forgets fails unless the session of p is soon unknown to the server.
func (at endpoint) forgets(t *testing.T, p *Polling) {
	t.Helper()
	for {
		answer, err := p.Post(at.ctx, "6")
		if err != nil {
			if at.ctx.Err() != nil {
				t.Fatal("the server still knows the session")
			}
			answer.Status = 0 // a request may be cut while the session ends
		}
		if answer.Status == http.StatusBadRequest && strings.Contains(answer.Body, `"code":1`) {
			return
		}
		at.rests(t)
	}
}

// rests gives the server a moment before a condition is looked at again.
func (at endpoint) rests(t *testing.T) {
	t.Helper()
	select {
	case <-time.After(5 * time.Millisecond):
	case <-at.ctx.Done():
		t.Fatal("waited in vain")
	}
}

// short is s, or enough of it to be recognized.
func short(s string) string { return domain.TruncateText(s, 200) }
