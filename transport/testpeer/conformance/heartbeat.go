package conformance

import (
	"errors"
	"net/http"
	"testing"
)

var heartbeatChecks = []check{
	{name: "pings by polling, and keeps who answers", run: pingsPolling},
	{name: "pings by WebSocket, and keeps who answers", run: pingsWebSocket},
	{name: "keeps who answers with a payload in the pong", run: keepsPongWithPayload},
	{name: "keeps who sends a pong nobody asked for", run: keepsEarlyPong},
	{name: "ends a polling session that does not answer a ping", run: endsSilentPolling},
	{name: "ends a polling session that never polls", run: endsNeverPolling},
	{name: "ends a WebSocket session that does not answer a ping", run: endsSilentWebSocket},
	{name: "ends a session that sends messages and no pong", run: endsWithoutPong},
	{name: "pings a session after its upgrade", run: pingsUpgraded},
}

func pingsPolling(t *testing.T, at endpoint) {
	p := at.polling(t)
	for range 3 {
		if answer := at.get(t, p); answer.Status != http.StatusOK || answer.Body != "2" {
			t.Fatalf("polled %d %q, want a ping", answer.Status, answer.Body)
		}
		at.post(t, p, "3")
	}
	at.echoesPolling(t, p)
}

// pings fails unless the next thing that w says is a ping.
func (at endpoint) pings(t *testing.T, w *WebSocket) {
	t.Helper()
	if frame, err := w.Read(at.ctx); err != nil || frame != (Frame{Data: "2"}) {
		t.Fatalf("got %q, %v, want a ping", frame.Data, err)
	}
}

func pingsWebSocket(t *testing.T, at endpoint) {
	w := at.webSocket(t)
	for range 3 {
		at.pings(t, w)
		send(t, w, "3")
	}
	at.echoes(t, w)
}

func keepsPongWithPayload(t *testing.T, at endpoint) {
	w := at.webSocket(t)
	for range 2 {
		at.pings(t, w)
		send(t, w, "3and more")
	}
	at.echoes(t, w)
}

func keepsEarlyPong(t *testing.T, at endpoint) {
	w := at.webSocket(t)
	send(t, w, "3")
	at.pings(t, w)
	send(t, w, "3")
	at.echoes(t, w)
}

// The first poll brings the ping, the one that then waits in vain is closed.
func endsSilentPolling(t *testing.T, at endpoint) {
	p := at.polling(t)
	if answer := at.get(t, p); answer.Body != "2" {
		t.Fatalf("polled %q, want a ping", answer.Body)
	}
	if answer := at.get(t, p); answer.Body != "1" && answer.Status != http.StatusBadRequest {
		t.Errorf("polled %d %q, want the session closed", answer.Status, answer.Body)
	}
	at.forgets(t, p)
}

func endsNeverPolling(t *testing.T, at endpoint) { at.forgets(t, at.polling(t)) }

func endsSilentWebSocket(t *testing.T, at endpoint) {
	w := at.webSocket(t)
	at.pings(t, w)
	if frame, err := w.Read(at.ctx); !errors.Is(err, ErrClosed) {
		t.Errorf("got %q, %v; want the WebSocket closed", frame.Data, err)
	}
	at.forgetsWebSocket(t, w)
}

func endsWithoutPong(t *testing.T, at endpoint) {
	w := at.webSocket(t)
	for {
		if err := w.Send("4still here"); err != nil {
			return
		}
		frame, err := w.Read(at.ctx)
		for err == nil && frame.Data == "2" { // the message's echo comes behind it
			frame, err = w.Read(at.ctx)
		}
		if errors.Is(err, ErrClosed) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func pingsUpgraded(t *testing.T, at endpoint) {
	p := at.polling(t)
	w := at.upgrade(t, p)
	at.pings(t, w)
	send(t, w, "3")
	at.pings(t, w)
}
