package conformance

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

var requestChecks = []check{
	{name: "ends a session that polls twice at once", run: endsOnSecondPoll},
	{name: "ends a session that posts twice at once", run: endsOnSecondPost},
	{name: "ends a session whose poll is cut", run: endsOnCutPoll},
	{name: "refuses the poll that overtook one that was cut", run: refusesPollBesideCutOne,
		stricter: "the original takes the later to arrive for the later one, and tells the other that it is closed"},
	{name: "refuses other methods and keeps the session", run: refusesMethods},
	{name: "refuses to poll a WebSocket session", run: refusesPollOfWebSocket},
}

// Which of the two arrives first is for the network to say. That one is answered
// with a close packet, and the other is refused.
func endsOnSecondPoll(t *testing.T, at endpoint) {
	p := at.polling(t)
	answers := make(chan string, 2)
	for range 2 {
		go func() {
			answer, err := p.Get(at.ctx)
			if err != nil {
				answer.Body = err.Error()
			}
			if answer.Status == http.StatusBadRequest {
				answer.Body = ""
			}
			answers <- fmt.Sprint(answer.Status, " ", answer.Body)
		}()
	}
	first, second := <-answers, <-answers
	if first > second {
		first, second = second, first
	}
	if first != "200 1" || second != "400 " {
		t.Errorf("the polls were answered %q and %q, want 200 1 and 400", first, second)
	}
	at.forgets(t, p)
}

func endsOnSecondPost(t *testing.T, at endpoint) {
	p := at.polling(t)
	conn, line, err := p.beginPost(at.ctx, 10)
	if err != nil || !strings.Contains(line, "100") {
		t.Fatalf("the first POST was answered %q, %v", line, err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	// The first is being read now, and never ends.
	if answer, err := p.Post(at.ctx, "4hello"); err != nil || answer.Status != http.StatusBadRequest {
		t.Errorf("the second POST was answered %d, %v, want 400", answer.Status, err)
	}
	at.forgets(t, p)
}

// A cut may overtake its own request, which then never arrives. So polls are cut
// until the server has seen it.
func endsOnCutPoll(t *testing.T, at endpoint) {
	p := at.polling(t)
	polled := make(chan struct{})
	for at.ctx.Err() == nil {
		ctx, cut := context.WithCancel(at.ctx)
		go func() {
			_, _ = p.Get(ctx)
			polled <- struct{}{}
		}()
		answer, err := p.Post(at.ctx, "6")
		cut()
		<-polled
		if err == nil && answer.Status == http.StatusBadRequest && strings.Contains(answer.Body, `"code":1`) {
			return
		}
	}
	t.Fatal("the server still knows the session")
}

// A client cuts a poll and polls again. Whichever arrives first, the one that the
// client waits for must not look like one that was in order.
func refusesPollBesideCutOne(t *testing.T, at endpoint) {
	for range 10 {
		p := at.polling(t)
		answers := make(chan Answer, 1)
		go func() {
			answer, err := p.Get(at.ctx)
			if err != nil {
				t.Error(err)
			}
			answers <- answer
		}()
		cut, err := p.send(at.ctx, http.MethodGet, "")
		if err != nil {
			t.Fatal(err)
		}
		_ = cut.Close()
		if answer := <-answers; answer.Status != http.StatusBadRequest {
			t.Errorf("the poll was answered %d %q, want 400", answer.Status, answer.Body)
		}
		at.forgets(t, p)
	}
}

func refusesMethods(t *testing.T, at endpoint) {
	p := at.polling(t)
	for _, method := range []string{http.MethodPut, http.MethodDelete, http.MethodPatch} {
		answer, err := p.Do(at.ctx, method, nil, nil)
		if err != nil || answer.Status < 400 {
			t.Errorf("%s was answered %d, %v", method, answer.Status, err)
		}
	}
	at.echoesPolling(t, p)
}

func refusesPollOfWebSocket(t *testing.T, at endpoint) {
	w := at.webSocket(t)
	values := query("EIO", "4", "transport", "polling", "sid", w.Open.SID)
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		if answer := at.request(t, method, nil, values); answer.Status != http.StatusBadRequest || !strings.Contains(answer.Body, `"code":3`) {
			t.Errorf("%s was answered %d %s, want 400 and code 3", method, answer.Status, answer.Body)
		}
	}
	at.echoes(t, w)
}
