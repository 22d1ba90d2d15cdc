package outbound

import (
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/plugcast/plugcast/domain"
)

// These are the fault cases of FACTS.md, under their names there.

func TestFaultCasesOutbound(t *testing.T) {
	t.Parallel()
	run := func(name string, do func(t *testing.T, b *bundle)) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			do(t, newBundle(t, Config{}))
		})
	}
	run("no token", func(t *testing.T, b *bundle) {
		for path, want := range map[string]int{
			"/shelly/acc1":                          http.StatusNotFound,
			"/shelly/acc1/":                         http.StatusNotFound,
			"/shelly/acc1/wrong":                    http.StatusUnauthorized,
			"/shelly/acc1/" + b.keys[acc] + "x":     http.StatusUnauthorized,
			"/shelly/acc2/" + b.keys[acc]:           http.StatusUnauthorized,
			"/shelly/no%20id/" + b.keys[acc]:        http.StatusUnauthorized,
			"/shelly/acc1/" + b.keys[acc] + "/more": http.StatusNotFound,
		} {
			if _, status, _ := b.dial(path); status != want {
				t.Errorf("%s: %d, want %d", strings.ReplaceAll(path, b.keys[acc], "KEY"), status, want)
			}
		}
	})
	run("src changed mid-session", func(t *testing.T, b *bundle) {
		w := b.admitted()
		w.delta("shellyplugsg3-000000000000", `{"switch:0":{"output":false}}`)
		w.mustClose(1008)
		b.eventually("the end", func() bool { return b.beaten("close " + string(plug) + " 10s socket-closed") })
		b.eventually("nothing of that frame", func() bool { return len(b.events) == 1 && b.relay(plug) == "on" })
	})
	run("second socket replaces first", func(t *testing.T, b *bundle) {
		first := b.admitted()
		second := b.device()
		second.full(plug, false)
		first.mustClose(1001)
		b.eventually("the second to count", func() bool { return b.relay(plug) == "off" })
		for _, beat := range b.beats {
			if strings.HasPrefix(beat, "close") || strings.HasPrefix(beat, "forget") {
				t.Errorf("the first took the device along: %s", beat)
			}
		}
		if o := b.order(true); true {
			r := second.asked("Switch.Set")
			second.answer(plug, r.ID, `"result":{"was_on":false}`)
			o.ends(t, domain.OutcomeCompleted)
		}
	})
	run("NotifyStatus as first frame", func(t *testing.T, b *bundle) {
		w := b.device()
		w.delta(plug, `{"ts":1786033240.04,"switch:0":{"id":0,"apower":3.5}}`)
		r := w.asked("Shelly.GetStatus")
		w.delta(plug, `{"ts":1786033241.04,"switch:0":{"id":0,"output":true}}`)
		w.answer(plug, r.ID, `"result":{"switch:0":{"id":0,"output":false,"apower":1.5},"sys":{"uptime":3}}`)
		b.eventually("the merged state", func() bool { return b.relay(plug) == "on" })
		if len(b.events) != 1 {
			t.Errorf("events: %s", b.texts())
		}
	})
	run("frame without ts", func(t *testing.T, b *bundle) {
		w := b.admitted()
		w.delta(plug, `{"switch:0":{"output":false}}`)
		b.eventually("it to count", func() bool { return b.relay(plug) == "off" })
	})
	run("frame with `method` and a pending id", func(t *testing.T, b *bundle) {
		w := b.admitted()
		o := b.order(false)
		r := w.asked("Switch.Set")
		w.send(fmt.Sprintf(`{"id":%d,"src":%q,"method":"Sys.Ping","result":{"was_on":true}}`, r.ID, plug))
		if no := w.asked(""); no.ID != r.ID { // our answer to the device's request has no method
			t.Errorf("answered %+v", no)
		}
		select {
		case got := <-o.result:
			t.Fatalf("a request settled a request: %+v", got)
		default:
		}
		w.answer(plug, r.ID, `"result":{"was_on":true}`)
		o.ends(t, domain.OutcomeCompleted)
	})
	run("Bye", func(t *testing.T, b *bundle) {
		w := b.device()
		w.send(`{"src":"shellyht-1","dst":"ws","method":"NotifyFullStatus","params":{"switch:0":{"output":false},"sys":{"wakeup_period":7200}}}`)
		_ = w.conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(1000, "Bye"), time.Now().Add(time.Second))
		b.eventually("the sleeper to be given its time", func() bool {
			return b.beaten("open shellyht-1 4h0m0s") && b.beaten("close shellyht-1 4h0m0s heartbeat-missed") && b.relay("shellyht-1") == "off"
		})
	})
	for name, member := range map[string]string{
		"-109 shutting down":      `"error":{"code":-109,"message":"shutting down in 952 ms"}`,
		"404":                     `"error":{"code":404,"message":"No handler for Switch.Set"}`,
		"401 with string message": `"error":{"code":401,"message":"{\"auth_type\":\"digest\",\"nonce\":1786033500}"}`,
	} {
		run(name, func(t *testing.T, b *bundle) {
			w := b.admitted()
			o := b.order(false)
			w.answer(plug, w.asked("Switch.Set").ID, member)
			o.ends(t, domain.OutcomeFailed)
			if b.relay(plug) != "on" {
				t.Error("a refused command changed the state")
			}
		})
	}
	run("reconnect storm", func(t *testing.T, b *bundle) {
		var storm sync.WaitGroup
		for n := range 50 {
			storm.Go(func() {
				id := domain.DeviceID(fmt.Sprintf("plug-%d", n%5))
				conn, _, _ := b.dial("/shelly/acc1/" + b.keys[acc])
				w := &wire{t, conn}
				w.full(id, n%2 == 0)
				_ = conn.Close()
			})
		}
		storm.Wait()
		b.eventually("all sockets to be gone", func() bool { return b.server.Stats().Sockets == 0 })
		b.eventually("the list to be empty", func() bool {
			b.server.mu.Lock()
			defer b.server.mu.Unlock()
			return len(b.server.sessions) == 0 && len(b.server.devices) == 0
		})
		w := b.device() // nobody is kept out for it
		w.full("plug-1", true)
		b.eventually("one of them to be in", func() bool { return b.relay("plug-1") == "on" })
	})
}

func TestFaultCasesLink(t *testing.T) {
	t.Parallel()
	t.Run("half-open (no pong)", func(t *testing.T) {
		t.Parallel()
		b := newBundle(t, Config{PingEvery: 50 * time.Millisecond})
		w := b.admitted()
		_ = w // it reads nothing, so it answers no ping
		b.eventually("it to be found dead", func() bool { return b.beaten("close " + string(plug) + " 0s heartbeat-missed") })
	})
	t.Run("pongs keep it", func(t *testing.T) {
		t.Parallel()
		b := newBundle(t, Config{PingEvery: 500 * time.Millisecond})
		w := b.admitted()
		pinged := w.answersPings()
		pinged(4)
		if b.server.Stats().Sockets != 1 {
			t.Error("it answered, and was closed all the same")
		}
	})
	t.Run("pongs that we did not read", func(t *testing.T) {
		t.Parallel()
		b := newBundle(t, Config{PingEvery: 500 * time.Millisecond, ReadAhead: 1}) // a machine under load is late
		w := b.admitted()
		pinged := w.answersPings()
		hold := make(chan struct{})
		b.set(func() { b.holdUp = hold })
		for n := range 6 {
			w.delta(plug, fmt.Sprintf(`{"switch:0":{"output":%t}}`, n%2 == 1))
		}
		b.eventually("the server to read no further", func() bool { return b.server.Stats().Frames >= 4 })
		pinged(4) // more than a device may leave unanswered
		b.set(func() { b.holdUp = nil })
		close(hold)
		b.eventually("all that it said", func() bool { return len(b.events) == 7 })
		pinged(4)
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.server.Stats().Sockets != 1 || slices.ContainsFunc(b.beats, func(s string) bool { return strings.HasPrefix(s, "close") }) {
			t.Errorf("it was found dead because the log was slow: %q", b.beats)
		}
	})
	t.Run("a log that is slow for long", func(t *testing.T) {
		t.Parallel()
		b := newBundle(t, Config{ReadAhead: 1, RequestTimeout: 50 * time.Millisecond})
		w := b.admitted()
		o := b.order(false)
		r := w.asked("Switch.Set")
		hold := make(chan struct{})
		b.set(func() { b.holdUp, b.beats = hold, nil })
		w.delta(plug, `{"switch:0":{"output":false}}`)
		w.answer(plug, r.ID, `"result":{"was_on":true}`)
		for n := range 6 {
			w.delta(plug, fmt.Sprintf(`{"switch:0":{"output":%t}}`, n%2 == 0))
		}
		alive := 0
		b.eventually("it to count as alive while it is not read", func() bool {
			alive = 0
			for _, beat := range b.beats {
				if beat == "alive "+string(plug) {
					alive++
				}
			}
			return alive >= 2
		})
		b.set(func() { b.holdUp = nil })
		close(hold)
		o.ends(t, domain.OutcomeCompleted) // the answer was there in time, and nobody looked
	})
	t.Run("close during handshake", func(t *testing.T) {
		t.Parallel()
		b := newBundle(t, Config{})
		for range 20 {
			conn, err := net.Dial("tcp", strings.TrimPrefix(b.url, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			_, _ = fmt.Fprintf(conn, "GET /shelly/acc1/%s HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
				"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n", b.keys[acc])
			_ = conn.Close()
		}
		b.admitted()
		b.eventually("the others to be gone", func() bool { return b.server.Stats().Sockets == 1 })
	})
	t.Run("slow consumer", func(t *testing.T) {
		t.Parallel()
		b := newBundle(t, Config{ReadAhead: 4, MaxMessages: 5000, MaxEvents: 5000})
		w := b.admitted()
		hold := make(chan struct{})
		b.set(func() { b.holdUp = hold })
		for n := range 400 {
			w.delta(plug, fmt.Sprintf(`{"switch:0":{"output":%t,"source":"button-%d"}}`, n%2 == 0, n))
		}
		b.eventually("the server to read no further", func() bool { return b.server.Stats().Frames < 20 && b.server.Stats().Frames > 4 })
		b.set(func() { b.holdUp = nil })
		close(hold)
		b.eventually("every flip in the log", func() bool { return strings.Count(b.texts(), "button-") >= 399 })
		if b.relay(plug) != "off" {
			t.Error("the last flip is not the last")
		}
	})
	for name, kind := range map[string]int{"pings": websocket.PingMessage, "pongs": websocket.PongMessage} {
		t.Run("flood of "+name, func(t *testing.T) {
			t.Parallel()
			b := newBundle(t, Config{MaxMessages: 20})
			w := b.admitted()
			for range 30 {
				if w.conn.WriteControl(kind, nil, time.Now().Add(patience)) != nil {
					break // it is closed
				}
			}
			w.mustClose(1008)
		})
	}
	t.Run("flood 600/min", func(t *testing.T) {
		t.Parallel()
		b := newBundle(t, Config{})
		w := b.device()
		for range 601 {
			w.send(`{"src":"` + string(plug) + `","method":"NotifyEvent","params":{"events":[]}}`)
		}
		w.mustClose(1008)
		b.eventually("the session to be over", func() bool { return len(b.server.sessionsOf(ours)) == 0 })
		again := b.device() // and it is kept out for a while
		again.full(plug, true)
		again.mustClose(1013)
		if b.refusals.Counts()["flood"] != 1 {
			t.Errorf("refusals: %v", b.refusals.Counts())
		}
	})
}

func TestFaultCasesCommands(t *testing.T) {
	t.Parallel()
	t.Run("timeout (outcome unknown, no automatic retry of toggle)", func(t *testing.T) {
		t.Parallel()
		b := newBundle(t, Config{RequestTimeout: 100 * time.Millisecond})
		w := b.admitted()
		o := b.order(false)
		r := w.asked("Switch.Set")
		o.ends(t, domain.OutcomeUnknown)
		w.answer(plug, r.ID, `"result":{"was_on":true}`) // late
		next := b.order(false)
		if again := w.asked("Switch.Set"); again.ID == r.ID {
			t.Error("the first command was sent again")
		} else {
			w.answer(plug, again.ID, `"result":{"was_on":true}`)
		}
		next.ends(t, domain.OutcomeCompleted)
	})
	t.Run("wrong/late/duplicate trid", func(t *testing.T) {
		t.Parallel()
		b := newBundle(t, Config{})
		w := b.admitted()
		o := b.order(false)
		r := w.asked("Switch.Set")
		w.answer(plug, r.ID+7, `"result":{"was_on":true}`)
		w.send(fmt.Sprintf(`{"id":"%d","src":%q,"result":{}}`, r.ID, plug)) // a text is not our number
		w.answer(plug, r.ID, `"error":{"code":-103,"message":"no"}`)
		w.answer(plug, r.ID, `"result":{"was_on":true}`)
		o.ends(t, domain.OutcomeFailed)
	})
	t.Run("drop in flight", func(t *testing.T) {
		t.Parallel()
		b := newBundle(t, Config{})
		w := b.admitted()
		o := b.order(false)
		w.asked("Switch.Set")
		_ = w.conn.Close()
		o.ends(t, domain.OutcomeUnknown)
		if gone := b.order(false); gone.taken {
			gone.ends(t, domain.OutcomeFailed) // the server had not noticed yet
		}
	})
	t.Run("two users at once", func(t *testing.T) {
		t.Parallel()
		b := newBundle(t, Config{})
		w := b.admitted()
		off, on := b.order(false), b.order(true)
		first, second := w.asked("Switch.Set"), w.asked("Switch.Set")
		if first.Params.On || !second.Params.On {
			t.Error("not in the order in which they were asked for")
		}
		w.answer(plug, second.ID, `"result":{"was_on":false}`)
		w.answer(plug, first.ID, `"result":{"was_on":true}`)
		off.ends(t, domain.OutcomeCompleted)
		on.ends(t, domain.OutcomeCompleted)
	})
	t.Run("confirmation only by later status", func(t *testing.T) {
		t.Parallel()
		b := newBundle(t, Config{})
		w := b.admitted()
		o := b.order(false)
		w.answer(plug, w.asked("Switch.Set").ID, `"result":{"was_on":true}`)
		o.ends(t, domain.OutcomeCompleted)
		if b.relay(plug) != "on" {
			t.Error("the state changed before the device said so")
		}
		w.delta(plug, `{"switch:0":{"output":false,"apower":0,"source":"WS_in"}}`)
		b.eventually("the status", func() bool { return b.relay(plug) == "off" })
		if e := b.events[len(b.events)-1]; e.CausationID != "cmd-1" || e.CorrelationID != "corr" || e.Actor != "shelly:acc1" {
			t.Errorf("caused by %q of %q, by %q", e.CausationID, e.CorrelationID, e.Actor)
		}
	})
	t.Run("a refused command causes nothing", func(t *testing.T) {
		t.Parallel()
		b := newBundle(t, Config{})
		w := b.admitted()
		o := b.order(false)
		w.answer(plug, w.asked("Switch.Set").ID, `"error":{"code":-109,"message":"shutting down in 952 ms"}`)
		o.ends(t, domain.OutcomeFailed)
		w.delta(plug, `{"switch:0":{"output":false,"source":"button"}}`)
		b.eventually("the button", func() bool { return b.relay(plug) == "off" })
		b.mu.Lock()
		defer b.mu.Unlock()
		if e := b.events[len(b.events)-1]; e.CausationID != "" {
			t.Errorf("the button was pressed by %q", e.CausationID)
		}
	})
	t.Run("expired", func(t *testing.T) {
		t.Parallel()
		b := newBundle(t, Config{})
		b.admitted()
		o := b.orderOf(plug, true, time.Now().Add(-time.Second))
		o.ends(t, domain.OutcomeFailed)
	})
	t.Run("not held here", func(t *testing.T) {
		t.Parallel()
		b := newBundle(t, Config{})
		b.admitted()
		for _, id := range []domain.DeviceID{"other", plug + ":x", plug + ":01"} {
			if o := b.orderOf(id, true, time.Now().Add(time.Minute)); o.taken {
				t.Errorf("%s was taken", id)
			}
		}
	})
}
