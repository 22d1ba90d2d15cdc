package conformance

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/gorilla/websocket"
)

var payloadChecks = []check{
	{name: "ends a polling session on an unknown packet", run: endsPolling("abc")},
	{name: "ends a polling session on an empty payload", run: endsPolling("")},
	{name: "ends a polling session on an empty packet", run: endsPolling("4one" + Separator)},
	{name: "ends a polling session on a packet type past the last", run: endsPolling("7")},
	{name: "ends a polling session on a ping of the client", run: endsPolling("2")},
	{name: "ends a polling session on base64 that is none", run: endsPolling("b@@@@"),
		stricter: "the original takes what it can read of it, so bytes get lost without a word"},
	{name: "ends a WebSocket session on an unknown packet", run: endsWebSocket("abc")},
	{name: "ends a WebSocket session on an empty message", run: endsWebSocket("")},
	{name: "ends a WebSocket session on a packet type past the last", run: endsWebSocket("7")},
	{name: "ends a WebSocket session on a ping of the client", run: endsWebSocket("2")},
	{name: "ends a WebSocket session on text that is not UTF-8", run: endsWebSocket("4\xff\xfe")},
	{name: "gives text that is UTF-8 or nothing, whatever it got by polling", run: givesUTF8},
	{name: "takes a payload of just the allowed size", run: takesLargest},
	{name: "refuses a larger payload", run: refusesLarger("4" + strings.Repeat("x", Patient().MaxPayload))},
	{name: "counts bytes and not characters", run: refusesLarger("4" + strings.Repeat("é", Patient().MaxPayload/2))},
	{name: "refuses a larger payload of unknown length", run: refusesLargerChunked},
	{name: "takes a WebSocket message of just the allowed size", run: takesLargestWebSocket},
	{name: "closes a WebSocket on a larger message", run: closesOnLarger},
	{name: "refuses a polling body that is declared as bytes", run: refusesOctetStream},
}

// endsPolling is a check that a payload ends the session. How its own request is
// answered, or cut, the protocol does not say.
func endsPolling(payload string) func(*testing.T, endpoint) {
	return func(t *testing.T, at endpoint) {
		p := at.polling(t)
		_, _ = p.Post(at.ctx, payload)
		at.forgets(t, p)
	}
}

func endsWebSocket(message string) func(*testing.T, endpoint) {
	return func(t *testing.T, at endpoint) {
		w := at.webSocket(t)
		send(t, w, message)
		at.closes(t, w)
	}
}

func givesUTF8(t *testing.T, at endpoint) {
	p := at.polling(t)
	if answer, err := p.Post(at.ctx, "4\xff\xfe"); err != nil || answer.Status != http.StatusOK {
		at.forgets(t, p)
		return
	}
	if packet, err := p.Next(at.ctx); err != nil || packet != strings.ToValidUTF8(packet, "") {
		t.Errorf("polled %q, %v", packet, err)
	}
}

func takesLargest(t *testing.T, at endpoint) {
	p := at.polling(t)
	largest := "4" + strings.Repeat("x", Patient().MaxPayload-1)
	at.post(t, p, largest)
	at.polls(t, p, largest)
}

func refusesLarger(payload string) func(*testing.T, endpoint) {
	return func(t *testing.T, at endpoint) {
		answer, err := at.polling(t).Post(at.ctx, payload)
		if err != nil || answer.Status != http.StatusRequestEntityTooLarge {
			t.Errorf("answered %d, %v, want 413", answer.Status, err)
		}
	}
}

func refusesLargerChunked(t *testing.T, at endpoint) {
	body := struct{ *strings.Reader }{strings.NewReader("4" + strings.Repeat("x", Patient().MaxPayload))}
	answer, err := at.polling(t).Do(at.ctx, http.MethodPost, nil, body)
	if err != nil || answer.Status != http.StatusRequestEntityTooLarge {
		t.Errorf("answered %d, %v, want 413", answer.Status, err)
	}
}

func takesLargestWebSocket(t *testing.T, at endpoint) {
	w := at.webSocket(t)
	largest := "4" + strings.Repeat("x", Patient().MaxPayload-1)
	send(t, w, largest)
	at.gets(t, w, largest)
}

func closesOnLarger(t *testing.T, at endpoint) {
	w := at.webSocket(t)
	_ = w.Send("4" + strings.Repeat("x", Patient().MaxPayload)) // may fail: the server need not read to the end
	_, err := w.Next(at.ctx)
	if !errors.Is(err, ErrClosed) {
		t.Fatalf("want the WebSocket closed, not %v", err)
	}
	var closed *websocket.CloseError
	if errors.As(err, &closed) && closed.Code != websocket.CloseMessageTooBig && closed.Code != websocket.CloseAbnormalClosure {
		t.Errorf("closed with %d", closed.Code)
	}
}

func refusesOctetStream(t *testing.T, at endpoint) {
	p := at.polling(t)
	header := http.Header{"Content-Type": {"application/octet-stream"}}
	answer, err := p.Do(at.ctx, http.MethodPost, header, strings.NewReader("4hello"))
	if err == nil && answer.Status != http.StatusBadRequest {
		t.Errorf("answered %d %q, want 400", answer.Status, answer.Body)
	}
	at.forgets(t, p)
}
