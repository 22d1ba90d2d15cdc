package conformance

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

var upgradeChecks = []check{
	{name: "upgrades a session from polling to WebSocket", run: upgrades},
	{name: "releases the waiting poll for the upgrade", run: releasesPoll},
	{name: "carries what nobody polled over to the WebSocket, once and in order", run: carriesOver},
	{name: "loses and repeats nothing while messages flow through an upgrade", run: flowsThroughUpgrade},
	{name: "refuses polls and posts after the upgrade", run: refusesPollAfterUpgrade},
	{name: "turns away a second WebSocket while one probes", run: turnsAwaySecondProbe},
	{name: "turns away a second WebSocket after the upgrade", run: turnsAwaySecondUpgrade},
	{name: "turns away a WebSocket for a session that began with one", run: turnsAwayForWebSocket,
		stricter: "the original lets a WebSocket session upgrade to another WebSocket"},
	{name: "keeps polling when the probe is no probe", run: keepsPolling("4hello")},
	{name: "keeps polling when the probe has another payload", run: keepsPolling("2nope")},
	{name: "keeps polling when the probe is a ping", run: keepsPolling("2")},
	{name: "keeps polling when the probe is unreadable", run: keepsPolling("abc")},
	{name: "keeps polling when the probe is cut", run: keepsPollingWhenCut},
	{name: "upgrades after a probe that failed", run: upgradesAfterFailure},
	{name: "closes the probe of a session that is closed", run: closesProbe},
	{name: "ends an upgraded session with its WebSocket", run: endsUpgraded},
}

var upgradeTimeoutChecks = []check{
	{name: "gives up a probe that is not completed, and keeps polling", run: givesUpProbe},
}

// upgrade takes p to a WebSocket, and returns when the server has done so too.
func (at endpoint) upgrade(t *testing.T, p *Polling) *WebSocket {
	t.Helper()
	w := at.probe(t, p)
	send(t, w, "2probe")
	at.gets(t, w, "3probe")
	send(t, w, "5")
	for { // only when the server has upgraded does it refuse to be polled
		answer, err := p.Post(at.ctx, "6")
		if err != nil {
			t.Fatal(err)
		}
		if answer.Status == http.StatusBadRequest {
			return w
		}
	}
}

func upgrades(t *testing.T, at endpoint) {
	w := at.probe(t, at.polling(t))
	send(t, w, "2probe")
	at.gets(t, w, "3probe")
	send(t, w, "5", "4hello")
	at.gets(t, w, "4hello")
	sendBinary(t, w, "bytes")
	at.getsFrames(t, w, Frame{true, "bytes"})
}

func releasesPoll(t *testing.T, at endpoint) {
	p := at.polling(t)
	answers := make(chan string, 1)
	go func() {
		answer, err := p.Get(at.ctx)
		answers <- fmt.Sprint(answer.Status, " ", answer.Body, " ", err)
	}()
	w := at.probe(t, p)
	send(t, w, "2probe")
	at.gets(t, w, "3probe")
	if got := <-answers; got != "200 6 <nil>" {
		t.Fatalf("the waiting poll was answered %s, want 200 6", got)
	}
	send(t, w, "5", "4hello")
	at.gets(t, w, "4hello")
}

func carriesOver(t *testing.T, at endpoint) {
	p := at.polling(t)
	at.post(t, p, "4one")
	w := at.probe(t, p)
	at.post(t, p, "4two", "bAQIDBA==")
	send(t, w, "2probe")
	at.gets(t, w, "3probe")
	at.post(t, p, "4three")
	send(t, w, "5", "4four")
	at.gets(t, w, "4one", "4two")
	at.getsFrames(t, w, Frame{true, "\x01\x02\x03\x04"})
	at.gets(t, w, "4three", "4four")
}

// A client that upgrades as the original does: it stops polling when its probe is
// answered, waits for the last poll, and goes on with the WebSocket.
func flowsThroughUpgrade(t *testing.T, at endpoint) {
	const before, after = 40, 40
	p := at.polling(t)
	w := at.probe(t, p)
	var got []string
	polled := make(chan error, 1)
	probed, stopPolling := context.WithCancel(at.ctx)
	defer stopPolling()
	go func() {
		for probed.Err() == nil {
			answer, err := p.Get(at.ctx)
			if err == nil && answer.Status != http.StatusOK {
				err = fmt.Errorf("polled %d %s", answer.Status, answer.Body)
			}
			if err != nil {
				polled <- err
				return
			}
			got = append(got, answer.Packets()...)
		}
		polled <- nil
	}()
	for i := range before {
		if i == before/2 {
			send(t, w, "2probe")
		}
		at.post(t, p, fmt.Sprint("4", i))
	}
	at.gets(t, w, "3probe")
	stopPolling()
	if err := <-polled; err != nil {
		t.Fatal(err)
	}
	send(t, w, "5")
	for i := range after {
		send(t, w, fmt.Sprint("4", before+i))
	}
	for last := fmt.Sprint("4", before+after-1); len(got) == 0 || got[len(got)-1] != last; {
		frame, err := w.Next(at.ctx)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, frame.Data)
	}
	next := 0
	for _, packet := range got {
		if packet == "6" {
			continue
		}
		if packet != fmt.Sprint("4", next) {
			t.Fatalf("got %s where message %d was due", packet, next)
		}
		next++
	}
}

func refusesPollAfterUpgrade(t *testing.T, at endpoint) {
	p := at.polling(t)
	w := at.upgrade(t, p)
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		answer, err := p.Do(at.ctx, method, nil, strings.NewReader("4hello"))
		if err != nil || answer.Status != http.StatusBadRequest || !strings.Contains(answer.Body, `"code":3`) {
			t.Errorf("%s was answered %d %s, %v, want 400 and code 3", method, answer.Status, answer.Body, err)
		}
	}
	at.echoes(t, w)
}

// turnedAway fails unless a further WebSocket for p's session is refused or closed.
func (at endpoint) turnedAway(t *testing.T, p *Polling) {
	t.Helper()
	second, err := Probe(at.ctx, p)
	if err != nil {
		var status Refused
		if !errors.As(err, &status) {
			t.Fatal(err)
		}
		return
	}
	t.Cleanup(second.Close)
	_ = second.Send("2probe")
	at.closes(t, second)
}

func turnsAwaySecondProbe(t *testing.T, at endpoint) {
	p := at.polling(t)
	w := at.probe(t, p)
	send(t, w, "2probe")
	at.gets(t, w, "3probe")
	at.turnedAway(t, p)
	send(t, w, "5", "4hello")
	at.gets(t, w, "4hello")
}

func turnsAwaySecondUpgrade(t *testing.T, at endpoint) {
	p := at.polling(t)
	w := at.upgrade(t, p)
	at.turnedAway(t, p)
	at.echoes(t, w)
}

func turnsAwayForWebSocket(t *testing.T, at endpoint) {
	w := at.webSocket(t)
	at.turnedAway(t, &Polling{endpoint: at.url, Open: w.Open})
	at.echoes(t, w)
}

func keepsPolling(probe string) func(*testing.T, endpoint) {
	return func(t *testing.T, at endpoint) {
		p := at.polling(t)
		w := at.probe(t, p)
		send(t, w, probe)
		at.closes(t, w)
		at.echoesPolling(t, p)
	}
}

func keepsPollingWhenCut(t *testing.T, at endpoint) {
	p := at.polling(t)
	w := at.probe(t, p)
	send(t, w, "2probe")
	at.gets(t, w, "3probe")
	w.Close()
	at.post(t, p, "4hello")
	for { // a noop may still come for the probe
		packet, err := p.Next(at.ctx)
		if err != nil {
			t.Fatal(err)
		}
		if packet == "4hello" {
			return
		}
		if packet != "6" {
			t.Fatalf("polled %q", packet)
		}
	}
}

// The server may not have seen yet that the first probe is gone; then it turns the
// next one away.
func upgradesAfterFailure(t *testing.T, at endpoint) {
	p := at.polling(t)
	first := at.probe(t, p)
	first.Close()
	for at.ctx.Err() == nil {
		w, err := Probe(at.ctx, p)
		if err != nil {
			continue
		}
		t.Cleanup(w.Close)
		if err := w.Send("2probe"); err != nil {
			continue
		}
		frame, err := w.Next(at.ctx)
		if err != nil {
			continue
		}
		if frame.Data != "3probe" {
			t.Fatalf("got %q", frame.Data)
		}
		send(t, w, "5")
		at.echoes(t, w)
		return
	}
	t.Fatal("no later probe is let through")
}

func closesProbe(t *testing.T, at endpoint) {
	p := at.polling(t)
	w := at.probe(t, p)
	send(t, w, "2probe")
	at.gets(t, w, "3probe")
	at.post(t, p, "1")
	at.closes(t, w)
	at.forgets(t, p)
}

func endsUpgraded(t *testing.T, at endpoint) {
	p := at.polling(t)
	at.upgrade(t, p).Close()
	at.forgets(t, p)
}

// The client goes on polling all the time, else its heartbeat would end the session.
func givesUpProbe(t *testing.T, at endpoint) {
	p := at.polling(t)
	w := at.probe(t, p)
	send(t, w, "2probe")
	at.gets(t, w, "3probe")
	polled := make(chan error, 1)
	go func() {
		packet, err := p.Next(at.ctx)
		for err == nil && packet == "6" {
			packet, err = p.Next(at.ctx)
		}
		if err == nil && packet != "4hello" {
			err = fmt.Errorf("polled %q", packet)
		}
		polled <- err
	}()
	at.closes(t, w)
	at.post(t, p, "4hello")
	if err := <-polled; err != nil {
		t.Error(err)
	}
}
