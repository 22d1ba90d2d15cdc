package conformance

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

var closeChecks = []check{
	{name: "closes a polling session that asks for it", run: closesPolling},
	{name: "ends the waiting poll of a session that is closed", run: endsWaitingPoll},
	{name: "closes a WebSocket session that asks for it", run: closesWebSocket,
		stricter: "the original only stops hearing pongs, and so closes at the ping timeout"},
	{name: "forgets a WebSocket session whose connection is cut", run: forgetsCut},
	{name: "forgets a WebSocket session that says goodbye", run: forgetsGoodbye},
}

func closesPolling(t *testing.T, at endpoint) {
	p := at.polling(t)
	at.post(t, p, "1")
	at.forgets(t, p)
}

// The poll may arrive after the close; then the check is made again.
func endsWaitingPoll(t *testing.T, at endpoint) {
	for {
		p := at.polling(t)
		answers := make(chan Answer, 1)
		go func() {
			answer, err := p.Get(at.ctx)
			if err != nil {
				answer.Body = err.Error()
			}
			answers <- answer
		}()
		at.post(t, p, "1")
		answer := <-answers
		if answer.Status == http.StatusBadRequest && at.ctx.Err() == nil {
			continue
		}
		if answer.Status != http.StatusOK || answer.Body != "6" {
			t.Errorf("the waiting poll was answered %d %q, want 200 6", answer.Status, answer.Body)
		}
		at.forgets(t, p)
		return
	}
}

func closesWebSocket(t *testing.T, at endpoint) {
	w := at.webSocket(t)
	send(t, w, "1")
	at.closes(t, w)
	at.forgetsWebSocket(t, w)
}

func forgetsCut(t *testing.T, at endpoint) {
	w := at.webSocket(t)
	w.Close()
	at.forgetsWebSocket(t, w)
}

func forgetsGoodbye(t *testing.T, at endpoint) {
	w := at.webSocket(t)
	goodbye := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")
	if err := w.conn.WriteControl(websocket.CloseMessage, goodbye, time.Time{}); err != nil {
		t.Fatal(err)
	}
	at.closes(t, w)
	w.Close()
	at.forgetsWebSocket(t, w)
}

// forgetsWebSocket fails unless the session of w is soon unknown to the server.
func (at endpoint) forgetsWebSocket(t *testing.T, w *WebSocket) {
	t.Helper()
	values := query("EIO", "4", "transport", "polling", "sid", w.Open.SID)
	for !strings.Contains(at.request(t, http.MethodGet, nil, values).Body, `"code":1`) {
		at.rests(t)
	}
}
