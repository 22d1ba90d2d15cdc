package outbound

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/shelly/credential"
)

// ours is the connection with which every bundle begins.
var ours = domain.ConnectionRef{System: system, ID: acc}

// Two systems may use the same id for a connection, and their plugs the same name. The key
// decides whose device it is, and no system notices the other's.
func TestSameNamesInTwoSystems(t *testing.T) {
	t.Parallel()
	b := newBundle(t, Config{})
	theirs := domain.ConnectionRef{System: "centro-luna", ID: acc}
	path := "/shelly/acc1/" + b.keys[acc]
	one := b.admitted()
	b.set(func() { b.connection(theirs.System, theirs.ID) }) // with a key of its own
	other := b.device()
	other.full(plug, false)
	b.eventually("both devices", func() bool {
		return len(b.events) == 2 && b.events[0].SystemID == system && b.events[1].SystemID == theirs.System
	})
	one.delta(plug, `{"switch:0":{"output":false}}`)
	b.eventually("the first one, whose socket is open", func() bool { return len(b.events) == 3 && b.events[2].SystemID == system })
	for _, beat := range b.beats {
		if strings.HasPrefix(beat, "close") || strings.HasPrefix(beat, "forget") {
			t.Errorf("a namesake took a device along: %s", beat)
		}
	}
	// A command for one connection does not concern the other.
	b.server.Refuse(theirs, domain.Position{Ms: 5})
	b.server.Renew(theirs, domain.Position{Ms: 5})
	if n := b.server.Drop(theirs, time.Now()); n != 1 {
		t.Errorf("%d sockets were dropped", n)
	}
	other.mustClose(1001)
	if o := b.order(true); !o.taken {
		t.Error("the namesake's device was dropped")
	} else {
		one.answer(plug, one.asked("Switch.Set").ID, `"result":{}`)
		o.ends(t, domain.OutcomeCompleted)
	}
	if _, status, _ := b.dial("/shelly/acc1/" + b.keys[acc]); status != http.StatusForbidden {
		t.Errorf("the stopped connection let in: %d", status)
	}
	if _, status, _ := b.dial(path); status != http.StatusSwitchingProtocols {
		t.Errorf("its namesake did not: %d", status)
	}
}

func TestRefuseAndDrop(t *testing.T) {
	t.Parallel()
	b := newBundle(t, Config{})
	b.connection(system, "acc2")
	other := b.deviceOf("acc2")
	other.full("neighbour", true)
	w := b.admitted()
	b.eventually("both", func() bool { return b.relay("neighbour") == "on" })
	path := "/shelly/acc1/" + b.keys[acc]

	b.server.Refuse(ours, domain.Position{Ms: 5})
	if n := b.server.Drop(ours, time.Now()); n != 1 {
		t.Errorf("%d sockets were dropped", n)
	}
	b.mu.Lock()
	forgotten := b.beaten("forget " + string(plug))
	b.mu.Unlock()
	if !forgotten {
		t.Error("the device is still waited for when Drop has returned")
	}
	w.mustClose(1001)
	if _, status, text := b.dial(path); status != http.StatusForbidden || !strings.Contains(text, "stopped") {
		t.Errorf("dialling back: %d %s", status, text)
	}
	b.server.Allow(ours, domain.Position{Ms: 4}) // older
	if _, status, _ := b.dial(path); status != http.StatusForbidden {
		t.Errorf("an older start counted: %d", status)
	}
	b.set(func() { b.credentials[ours].Position = domain.Position{Ms: 6} }) // the read model is newer than the last event
	b.device()
	b.set(func() { b.credentials[ours].Stopped, b.credentials[ours].Position = true, domain.Position{Ms: 7} })
	if _, status, _ := b.dial(path); status != http.StatusForbidden {
		t.Errorf("a stopped connection let in: %d", status)
	}
	b.server.Allow(ours, domain.Position{Ms: 8})
	b.device()
	b.eventually("the dropped to be gone", func() bool { return b.server.Stats().Sockets == 3 })
	for _, beat := range b.beats {
		if strings.HasPrefix(beat, "close "+string(plug)) || strings.Contains(beat, "close neighbour") {
			t.Errorf("somebody will be found silent: %s", beat)
		}
	}
	if o := b.orderOf("neighbour", false, time.Now().Add(time.Minute)); o.taken {
		other.answer("neighbour", other.asked("Switch.Set").ID, `"result":{}`)
		o.ends(t, domain.OutcomeCompleted)
	} else {
		t.Error("another connection's device was dropped")
	}
}

// A device whose key is replaced during its handshake is not admitted.
func TestNewKeyDuringHandshake(t *testing.T) {
	t.Parallel()
	b := newBundle(t, Config{})
	slow := slowCredentials{b, make(chan struct{}), make(chan struct{})}
	b.server.parts.Credentials = slow
	old := make(chan *websocket.Conn, 1)
	go func(path string) {
		conn, _, _ := b.dial(path)
		old <- conn
	}("/shelly/acc1/" + b.keys[acc])
	<-slow.read
	at := domain.Position{Ms: 50}
	b.set(func() {
		b.connection(system, acc)
		b.credentials[ours].Position = at
	})
	b.server.Renew(ours, at)
	b.server.Drop(ours, time.Now().Add(time.Minute))
	slow.release <- struct{}{}
	conn := <-old
	if conn == nil {
		t.Fatal("the old key was refused, although it was right when it was looked up")
	}
	(&wire{t, conn}).mustClose(1013)

	b.server.parts.Credentials = b
	b.admitted()
}

// slowCredentials answers late, with the state at the time of the question.
type slowCredentials struct {
	*bundle
	read, release chan struct{}
}

func (s slowCredentials) Credential(ctx context.Context, id domain.ConnectionID, key credential.Secret) (Credential, error) {
	c, err := s.bundle.Credential(ctx, id, key)
	s.read <- struct{}{}
	<-s.release
	return c, err
}

// Only a stop ends the watch over the devices. After a restart or with a new key they should
// come back, and after a deletion they may come back through another connection.
func TestFateOfDroppedDevices(t *testing.T) {
	t.Parallel()
	for beat, hear := range map[string]func(*bundle){
		"forget " + string(plug):                       func(b *bundle) { b.server.Refuse(ours, domain.Position{Ms: 5}) },
		"close " + string(plug) + " 10s socket-closed": func(b *bundle) { b.server.Remove(ours, domain.Position{Ms: 5}) },
		"close " + string(plug) + " 2m0s socket-closed": func(b *bundle) {
			b.server.Refuse(ours, domain.Position{Ms: 4})
			b.server.Allow(ours, domain.Position{Ms: 5})
		},
	} {
		b := newBundle(t, Config{})
		w := b.admitted()
		hear(b)
		b.server.Drop(ours, time.Now())
		w.mustClose(1001)
		b.eventually(beat, func() bool { return b.beaten(beat) })
	}
}

// A change that waits is appended when the socket closes, because no newer one follows.
func TestLastReadingBeforeTheEnd(t *testing.T) {
	t.Parallel()
	b := newBundle(t, Config{})
	w := b.admitted()
	w.delta(plug, `{"switch:0":{"apower":100.5,"aenergy":{"total":7.5}}}`)
	_ = w.conn.Close()
	b.eventually("the reading", func() bool { e := b.state.Devices[plug].EnergyWh; return e != nil && *e == 7.5 })
}

// A mistyped URL has a key in it, so no other handler gets it.
func TestUrlsThatAreNearlyRight(t *testing.T) {
	t.Parallel()
	b := newBundle(t, Config{})
	for url, want := range map[string]int{
		"GET /shelly/acc1/KEY/x": http.StatusNotFound, "GET /shelly/acc1/KEY/": http.StatusNotFound, "GET /shelly/": http.StatusNotFound,
		"POST /shelly/acc1/KEY/x": http.StatusNotFound, "GET /shelly/acc1/KEY": http.StatusUpgradeRequired,
	} {
		method, path, _ := strings.Cut(url, " ")
		request, err := http.NewRequestWithContext(t.Context(), method, b.url+strings.Replace(path, "KEY", b.keys[acc], 1), nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		if response.StatusCode != want {
			t.Errorf("%s: %d, want %d", url, response.StatusCode, want)
		}
	}
}

// A stop during a handshake refuses the device.
func TestStopDuringHandshake(t *testing.T) {
	t.Parallel()
	b := newBundle(t, Config{})
	for n := range 50 {
		at := domain.Position{Ms: uint64(10 + 2*n)}
		var both sync.WaitGroup
		both.Go(func() { _, _, _ = b.dial("/shelly/acc1/" + b.keys[acc]) })
		both.Go(func() {
			b.server.Refuse(ours, at)
			b.server.Drop(ours, time.Now())
		})
		both.Wait()
		b.eventually("no socket to be left", func() bool { return b.server.Stats().Sockets == 0 })
		b.server.Allow(ours, domain.Position{Ms: at.Ms + 1})
	}
}

func TestLostToAnotherProcess(t *testing.T) {
	t.Parallel()
	b := newBundle(t, Config{})
	w := b.admitted()
	ref := domain.DeviceRef{System: system, Device: plug}
	b.server.Lost(ref, "another session")
	b.server.Lost(ref, b.server.holder(ref).id)
	w.mustClose(1001)
	b.eventually("the session to be over", func() bool { return b.server.Stats().Sockets == 0 })
	for _, beat := range b.beats {
		if strings.HasPrefix(beat, "close") {
			t.Errorf("the device is another's now: %s", beat)
		}
	}
}

func TestShutdownGivesDevicesTime(t *testing.T) {
	t.Parallel()
	b := newBundle(t, Config{})
	w := b.admitted()
	var closing sync.WaitGroup
	closing.Go(func() { w.mustClose(1012) })
	if err := b.server.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	closing.Wait()
	b.eventually("it to have its time", func() bool { return b.beaten("close " + string(plug) + " 2m0s socket-closed") })
	if _, status, _ := b.dial("/shelly/acc1/" + b.keys[acc]); status != http.StatusServiceUnavailable {
		t.Errorf("a server that ends let in: %d", status)
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	t.Run("wrong keys", func(t *testing.T) {
		t.Parallel()
		b := newBundle(t, Config{MaxRefusals: 5})
		for n := range 8 {
			want := http.StatusUnauthorized
			if n >= 5 {
				want = http.StatusTooManyRequests
			}
			if _, status, _ := b.dial("/shelly/acc1/wrong"); status != want {
				t.Errorf("try %d: %d, want %d", n, status, want)
			}
		}
		b.admitted() // others come from that address as well: a proxy's, or the centre's
	})
	t.Run("devices", func(t *testing.T) {
		t.Parallel()
		b := newBundle(t, Config{MaxDevices: 2})
		b.device()
		b.device()
		b.eventually("both to be listed", func() bool { return len(b.server.sessionsOf(ours)) == 2 }) // which is after the handshake
		b.device().mustClose(1013)
	})
	t.Run("> 256 KiB frame", func(t *testing.T) {
		t.Parallel()
		b := newBundle(t, Config{})
		w := b.admitted()
		w.delta(plug, `{"pad":"`+strings.Repeat("x", 256<<10)+`"}`)
		w.mustClose(1009)
	})
	t.Run("> 10 KB frame", func(t *testing.T) {
		t.Parallel()
		b := newBundle(t, Config{})
		w := b.admitted()
		w.delta(plug, `{"pad":"`+strings.Repeat("x", 100<<10)+`","switch:0":{"output":false}}`)
		b.eventually("it to be read", func() bool { return b.relay(plug) == "off" })
	})
	t.Run("no status in time, and a cooldown that grows", func(t *testing.T) {
		t.Parallel()
		b := newBundle(t, Config{InitTimeout: 50 * time.Millisecond})
		silent := b.device()
		silent.mustClose(1013)
		w := b.device()
		w.delta(plug, `{"switch:0":{"output":true}}`) // and no answer to the request
		w.mustClose(1013)
		again := b.device()
		again.full(plug, true)
		if code, reason := again.closed(); code != 1013 || !strings.Contains(reason, "try again in 30 s") {
			t.Errorf("closed with %d %q", code, reason)
		}
	})
	t.Run("hostile frames", func(t *testing.T) {
		t.Parallel()
		b := newBundle(t, Config{})
		for name, frame := range map[string]string{
			"deep nesting": `{"src":"` + string(plug) + `","method":"NotifyFullStatus","params":` +
				strings.Repeat(`{"a":`, 10_000) + `1` + strings.Repeat(`}`, 10_000) + `}`,
			"NaN":          `{"src":"` + string(plug) + `","method":"NotifyFullStatus","params":{"switch:0":{"apower":NaN}}}`,
			"many keys":    `{"src":"` + string(plug) + `","method":"NotifyFullStatus","params":{` + strings.Repeat(`"a":1,`, 40_000) + `"b":1}}`,
			"a broken src": `{"src":"` + string(plug) + "\xff" + `","method":"NotifyFullStatus"}`,
			"no src":       `{"method":"NotifyFullStatus","params":{}}`,
			"a bad src":    `{"src":"a/b","method":"NotifyFullStatus","params":{}}`,
			"a channel":    `{"src":"` + string(plug) + `:1","method":"NotifyFullStatus","params":{}}`,
			"no JSON":      `hello`,
		} {
			w := b.device()
			w.send(frame)
			if code, _ := w.closed(); code != 1008 {
				t.Errorf("%s: closed with %d", name, code)
			}
		}
		binary := b.device()
		_ = binary.conn.WriteMessage(websocket.BinaryMessage, []byte("\x00\x01"))
		binary.mustClose(1008)
		huge := b.device()
		huge.send(`{"src":"` + string(plug) + `","method":"NotifyFullStatus",` +
			`"params":{"switch:0":{"output":true,"apower":1e999,"voltage":1e308}}}`)
		b.eventually("a huge number to be missing", func() bool { return b.relay(plug) == "on" && b.state.Devices[plug].PowerW == nil })
	})
}

// Each switch of a device with several is a device of its own.
func TestChannelsAreDevices(t *testing.T) {
	t.Parallel()
	b := newBundle(t, Config{})
	w := b.device()
	w.send(`{"src":"strip","dst":"ws","method":"NotifyFullStatus",` +
		`"params":{"switch:0":{"output":true},"switch:1":{"output":false},"switch:2":{"output":true}}}`)
	b.eventually("three devices", func() bool {
		return b.relay("strip") == "on" && b.relay("strip:1") == "off" && b.relay("strip:2") == "on" &&
			b.beaten("open strip 2m0s") && b.beaten("open strip:1 2m0s") && b.beaten("open strip:2 2m0s")
	})
	o := b.orderOf("strip:1", true, time.Now().Add(time.Minute))
	r := w.asked("Switch.Set")
	if r.Params.ID != 1 || !r.Params.On {
		t.Errorf("asked for %+v", r)
	}
	w.answer("strip", r.ID, `"result":{"was_on":false}`)
	o.ends(t, domain.OutcomeCompleted)
	w.delta("strip", `{"switch:1":{"output":true}}`)
	b.eventually("that channel alone", func() bool { return b.relay("strip:1") == "on" && len(b.events) == 4 })
}

// A device that is offline in the log is reported as back, even if the registry has lost it.
func TestReturnOfADeviceThatIsKnownToBeOffline(t *testing.T) {
	t.Parallel()
	b := newBundle(t, Config{})
	b.set(func() {
		offline := false
		b.state.Devices[plug] = &domain.Device{DeviceID: plug, Online: &offline}
	})
	b.device().full(plug, true)
	b.eventually("the report", func() bool { return b.beaten("report " + string(plug) + " true") })
}
