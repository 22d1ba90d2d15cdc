package simulator_test

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/shelly/simulator"
	"github.com/plugcast/plugcast/transport/shelly/status"
	"github.com/plugcast/plugcast/transport/testpeer"
)

const (
	deadline = 10 * time.Second // for what must happen
	plugID   = domain.DeviceID("shellyplugsg3-8cbfea9a1b2c")
)

// server takes plugs in and hands their sockets to the test.
type server struct {
	url     string
	sockets chan *socket

	mu     sync.Mutex
	status int // it refuses with; 0 takes in
}

func newServer(t *testing.T) *server {
	t.Helper()
	s := &server{sockets: make(chan *socket, 100)}
	upgrader := websocket.Upgrader{}
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		refusal := s.status
		s.mu.Unlock()
		if refusal != 0 {
			w.WriteHeader(refusal)
			return
		}
		conn, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		socket := &socket{conn: conn, frames: make(chan frame, 1000), pongs: make(chan string, 10)}
		conn.SetPongHandler(func(data string) error { socket.pongs <- data; return nil })
		s.sockets <- socket
		socket.read()
	}))
	t.Cleanup(h.Close)
	s.url = "ws" + strings.TrimPrefix(h.URL, "http") + "/shelly/c1/secret"
	return s
}

func (s *server) refuse(status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status = status
}

// next waits for a plug to connect, and for its first frame.
func (s *server) next(t *testing.T) (*socket, frame) {
	t.Helper()
	select {
	case socket := <-s.sockets:
		return socket, socket.next(t)
	case <-time.After(deadline):
		t.Fatal("no plug dials")
		return nil, frame{}
	}
}

// frame is what a plug sends.
type frame struct {
	ID     int
	Src    string
	Dst    string
	Method string
	Params status.Document
	Result status.Document
	Error  *struct {
		Code    int
		Message string
	}
}

type socket struct {
	conn   *websocket.Conn
	frames chan frame // closed at the end, after err is set
	pongs  chan string
	err    error
}

func (s *socket) read() {
	defer s.conn.Close()
	defer close(s.frames)
	for {
		_, raw, err := s.conn.ReadMessage()
		if err != nil {
			s.err = err
			return
		}
		var f frame
		if s.err = json.Unmarshal(raw, &f); s.err != nil {
			return
		}
		s.frames <- f
	}
}

func (s *socket) next(t *testing.T) frame {
	t.Helper()
	select {
	case f, ok := <-s.frames:
		if !ok {
			t.Fatalf("the plug went: %v", s.err)
		}
		return f
	case <-time.After(deadline):
		t.Fatal("the plug says nothing")
	}
	return frame{}
}

// end waits for the socket's end, and passes over frames.
func (s *socket) end(t *testing.T) error {
	t.Helper()
	for timeout := time.After(deadline); ; {
		select {
		case _, ok := <-s.frames:
			if !ok {
				return s.err
			}
		case <-timeout:
			t.Fatal("the plug stays")
		}
	}
}

func (s *socket) call(t *testing.T, id int, method, params string) {
	t.Helper()
	request := map[string]any{"id": id, "src": "hub", "method": method, "params": json.RawMessage(params)}
	if err := s.conn.WriteJSON(request); err != nil {
		t.Fatal(err)
	}
}

// run runs a plug until the test ends.
func run(t *testing.T, s *server, cfg simulator.PlugConfig) *simulator.Plug {
	t.Helper()
	cfg.ID = plugID
	if cfg.RetryMin == 0 {
		cfg.RetryMin, cfg.RetryMax = time.Millisecond, 10*time.Millisecond
	}
	p := simulator.NewPlug(cfg)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx, s.url) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
	})
	return p
}

func (f frame) component(t *testing.T, name string) status.Document {
	t.Helper()
	c, ok := f.Params[name].(map[string]any)
	if !ok {
		t.Fatalf("no %s in %+v", name, f)
	}
	return c
}

func TestFirstStatus(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	p := run(t, s, simulator.PlugConfig{Watts: 100, Channels: 2})
	_, first := s.next(t)
	if first.Src != string(plugID) || first.Dst != "ws" || first.Method != "NotifyFullStatus" {
		t.Errorf("first frame: %+v", first)
	}
	if ts, _ := first.Params["ts"].(float64); time.Since(time.UnixMilli(int64(ts*1000))).Abs() > time.Minute {
		t.Errorf("ts %v", first.Params["ts"])
	}
	if sys := first.component(t, "sys"); sys["mac"] != "8CBFEA9A1B2C" || sys["unixtime"] == nil {
		t.Errorf("sys %v", sys)
	}
	readings := first.Params.Readings()
	if len(readings) != 2 {
		t.Fatalf("%d channels", len(readings))
	}
	for i, r := range readings {
		on, power, energy := p.State(i)
		told, _ := r.CounterWh.Get()
		if r.RelayOn != domain.Some(true) || r.PowerW != domain.Some(100.0) || !on || power != 100 || told > energy || energy-told > 1 {
			t.Errorf("channel %d: %+v, and state %v %v %v", i, r, on, power, energy)
		}
		if r.VoltageV.IsZero() || r.CurrentA.IsZero() {
			t.Errorf("channel %d has no voltage or current: %+v", i, r)
		}
	}
	testpeer.Eventually(t, "it is connected", p.Connected)
	if p.Dials() != 1 || p.Refusals() != 0 {
		t.Errorf("%d dials, %d refusals", p.Dials(), p.Refusals())
	}
}

func TestSwitch(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	p := run(t, s, simulator.PlugConfig{Watts: 100})
	socket, _ := s.next(t)
	for i, on := range []bool{false, true} {
		socket.call(t, 7+i, "Switch.Set", map[bool]string{false: `{"id":0,"on":false}`, true: `{"id":0,"on":true}`}[on])
		if answer := socket.next(t); answer.ID != 7+i || answer.Dst != "hub" || answer.Result["was_on"] != !on {
			t.Errorf("answer: %+v", answer)
		}
		delta := socket.next(t).component(t, "switch:0")
		if delta["output"] != on || delta["source"] != "WS_in" || delta["apower"] != map[bool]float64{true: 100}[on] || delta["current"] == nil {
			t.Errorf("delta: %v", delta)
		}
		if is, _, _ := p.State(0); is != on {
			t.Errorf("state is %v", is)
		}
	}
	// Set to what it is, nothing is told: the next frame is the next answer.
	socket.call(t, 1, "Switch.Set", `{"id":0,"on":true}`)
	socket.next(t)
	socket.call(t, 2, "Switch.Toggle", `{"id":0}`)
	if answer := socket.next(t); answer.ID != 2 || answer.Result["was_on"] != true {
		t.Errorf("toggle: %+v", answer)
	}
	if delta := socket.next(t).component(t, "switch:0"); delta["output"] != false {
		t.Errorf("delta of toggle: %v", delta)
	}
	p.Button(0)
	if delta := socket.next(t).component(t, "switch:0"); delta["output"] != true || delta["source"] != "button" {
		t.Errorf("delta of the button: %v", delta)
	}
}

func TestToggleAfter(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	run(t, s, simulator.PlugConfig{})
	socket, _ := s.next(t)
	socket.call(t, 1, "Switch.Set", `{"id":0,"on":false,"toggle_after":0.05}`)
	socket.next(t)
	if delta := socket.next(t).component(t, "switch:0"); delta["output"] != false || delta["timer_duration"] != 0.05 {
		t.Errorf("delta: %v", delta)
	}
	delta := socket.next(t).component(t, "switch:0")
	if gone, there := delta["timer_duration"]; delta["output"] != true || delta["source"] != "timer" || !there || gone != nil {
		t.Errorf("delta of the timer: %v", delta)
	}
}

func TestRequests(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	run(t, s, simulator.PlugConfig{})
	socket, _ := s.next(t)
	for i, c := range []struct {
		method, params string
		code           int
		says           string
	}{
		{"Foo.Bar", `{}`, 404, "No handler for Foo.Bar"},
		{"Switch.Set", `{"id":0}`, -103, "'on'"},
		{"Switch.Set", `{"on":true}`, -103, "'id'"},
		{"Switch.Set", `{"id":1,"on":true}`, -105, "value 1 not found"},
		{"Switch.Set", `{"id":0,"on":true,"toggle_after":-1}`, -103, "toggle_after"},
		{"Shelly.GetDeviceInfo", `{}`, 0, "S3PL-00112EU"},
		{"Shelly.GetStatus", `{}`, 0, "switch:0"},
		{"Switch.GetStatus", `{"id":0}`, 0, "aenergy"},
	} {
		// What is no request is passed over.
		for _, raw := range []string{`{`, `{"id":3,"result":{}}`, `{"method":"Switch.Toggle","params":{"id":0}}`} {
			if err := socket.conn.WriteMessage(websocket.TextMessage, []byte(raw)); err != nil {
				t.Fatal(err)
			}
		}
		socket.call(t, i, c.method, c.params)
		answer := socket.next(t)
		result, _ := json.Marshal(answer.Result)
		switch {
		case answer.ID != i || c.code == 0 && (answer.Error != nil || !strings.Contains(string(result), c.says)):
			t.Errorf("%s: %+v", c.method, answer)
		case c.code != 0 && (answer.Error == nil || answer.Error.Code != c.code || !strings.Contains(answer.Error.Message, c.says)):
			t.Errorf("%s %s: %+v", c.method, c.params, answer.Error)
		}
	}
}

func TestReboot(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	p := run(t, s, simulator.PlugConfig{Watts: 100})
	socket, first := s.next(t)
	before, _ := first.Params.Readings()[0].CounterWh.Get()
	p.Reboot()
	if err := socket.end(t); !websocket.IsCloseError(err, websocket.CloseGoingAway) {
		t.Errorf("it ends with %v", err)
	}
	socket, first = s.next(t)
	sys := first.component(t, "sys")
	if unix, there := sys["unixtime"]; first.Params["ts"] != nil || !there || unix != nil || sys["uptime"] != 0.0 {
		t.Errorf("the first status after a boot: %v", first.Params)
	}
	energy, _ := first.component(t, "switch:0")["aenergy"].(map[string]any)
	after, _ := energy["total"].(float64)
	if energy["by_minute"] != nil || math.Abs(after-before) > 1 || after-math.Floor(after) > 0.1 {
		t.Errorf("the counter after %v: %v", before, energy)
	}
	if _, _, wh := p.State(0); wh < after {
		t.Errorf("the counter runs backwards: %v %v", wh, after)
	}
	p.ResetCounters()
	delta := socket.next(t).component(t, "switch:0")
	if energy, _ := delta["aenergy"].(map[string]any); energy["total"] != 0.0 {
		t.Errorf("after a reset: %v", delta)
	}
}

func TestSleep(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	p := run(t, s, simulator.PlugConfig{})
	socket, _ := s.next(t)
	p.Sleep(20 * time.Millisecond)
	for range 3 {
		end := new(websocket.CloseError)
		if err := socket.end(t); !errors.As(err, &end) || end.Text != "Bye" {
			t.Fatalf("it ends with %v", err)
		}
		var first frame
		if socket, first = s.next(t); first.component(t, "sys")["wakeup_period"] != 0.02 {
			t.Errorf("sys %v", first.component(t, "sys"))
		}
	}
	p.Sleep(0)
	testpeer.Eventually(t, "it stays", p.Connected)
	if p.Refusals() != 0 {
		t.Errorf("its own goodbye counts as a refusal: %d", p.Refused())
	}
}

func TestPowerCut(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	p := run(t, s, simulator.PlugConfig{})
	old, _ := s.next(t)
	p.PowerCut()
	testpeer.Eventually(t, "it is gone", func() bool { return !p.Connected() })
	if on, power, _ := p.State(0); !on || power != 0 {
		t.Errorf("without power: %v %v", on, power)
	}
	p.Button(0)
	old.call(t, 1, "Switch.Set", `{"id":0,"on":false}`)
	if err := old.conn.WriteControl(websocket.PingMessage, nil, time.Now().Add(time.Second)); err != nil {
		t.Error(err)
	}
	p.PowerUp()
	_, first := s.next(t)
	if first.Params["ts"] != nil || first.Params.Readings()[0].RelayOn != domain.Some(true) {
		t.Errorf("after the cut: %v", first.Params)
	}
	if err := old.end(t); websocket.IsCloseError(err, websocket.CloseNormalClosure, websocket.CloseGoingAway) {
		t.Errorf("a power cut ends with %v", err)
	}
	if len(old.pongs) != 0 {
		t.Error("a plug without power answers")
	}
}

func TestReconnect(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	p := run(t, s, simulator.PlugConfig{})
	socket, _ := s.next(t)
	message := websocket.FormatCloseMessage(websocket.CloseTryAgainLater, "later")
	if err := socket.conn.WriteControl(websocket.CloseMessage, message, time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	_ = socket.end(t)
	socket, _ = s.next(t)
	if p.Refused() != websocket.CloseTryAgainLater || p.Refusals() != 1 {
		t.Errorf("%d refusals, the last %d", p.Refusals(), p.Refused())
	}
	s.refuse(http.StatusForbidden)
	p.Drop()
	if err := socket.end(t); websocket.IsCloseError(err, websocket.CloseGoingAway, websocket.CloseNormalClosure) {
		t.Errorf("a dropped connection ends with %v", err)
	}
	testpeer.Eventually(t, "it is refused again and again", func() bool { return p.Refusals() > 3 && p.Refused() == http.StatusForbidden })
	s.refuse(0)
	s.next(t)
}

func TestOddities(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	p := run(t, s, simulator.PlugConfig{StaleFor: time.Millisecond})
	socket, _ := s.next(t)

	p.SetStaleOutput(true)
	socket.call(t, 1, "Switch.Set", `{"id":0,"on":false}`)
	socket.next(t)
	stale, truth := socket.next(t).component(t, "switch:0"), socket.next(t).component(t, "switch:0")
	if stale["output"] != true || truth["output"] != false {
		t.Errorf("stale %v, then %v", stale, truth)
	}
	p.SetStaleOutput(false)

	p.SetMute(true)
	socket.call(t, 2, "Switch.Set", `{"id":0,"on":true}`)
	if f := socket.next(t); f.Method != "NotifyStatus" {
		t.Errorf("a mute plug answers %+v", f)
	}
	p.SetMute(false)

	p.SetFrozen(true)
	socket.call(t, 3, "Switch.Set", `{"id":0,"on":false}`)
	if err := socket.conn.WriteControl(websocket.PingMessage, []byte("x"), time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	p.Button(0)
	if f := socket.next(t); f.component(t, "switch:0")["source"] != "button" || len(socket.pongs) > 0 {
		t.Errorf("a frozen plug says %+v", f)
	}
	p.SetFrozen(false)
	if f := socket.next(t); f.ID != 3 || f.Result == nil {
		t.Errorf("when it reads again: %+v", f)
	}
	select {
	case <-socket.pongs:
	case <-time.After(deadline):
		t.Error("no pong")
	}

	p.SetClockSkew(time.Hour)
	testpeer.Eventually(t, "there is a frame of an hour later", func() bool {
		p.Button(0)
		ts, _ := socket.next(t).Params["ts"].(float64)
		return time.Until(time.UnixMilli(int64(ts*1000))) > 50*time.Minute
	})
	if !p.Send([]byte(`{"src":"somebody-else","method":"NotifyStatus","params":{}}`)) {
		t.Error("it cannot send")
	}
	testpeer.Eventually(t, "the frame arrives", func() bool { return socket.next(t).Src == "somebody-else" })
}

// A plug that is left alone reports its meters, and what happens by itself.
func TestByItself(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	run(t, s, simulator.PlugConfig{Beat: 20 * time.Millisecond, ChangesPerMinute: 6000})
	socket, _ := s.next(t)
	var beat, power, relay bool
	testpeer.Eventually(t, "there are beats, powers and relays", func() bool {
		delta := socket.next(t).component(t, "switch:0")
		switch {
		case delta["aenergy"] != nil && delta["output"] == nil:
			beat = true
		case delta["output"] != nil:
			relay = true
		case delta["apower"] != nil && delta["current"] == nil:
			power = true
		}
		return beat && power && relay
	})
}

func TestUnmetered(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	p := run(t, s, simulator.PlugConfig{Unmetered: true, Beat: time.Millisecond})
	socket, first := s.next(t)
	if r := first.Params.Readings()[0]; !r.PowerW.IsZero() || !r.CounterWh.IsZero() || r.RelayOn.IsZero() {
		t.Errorf("it measures: %+v", r)
	}
	p.Button(0)
	if delta := socket.next(t).component(t, "switch:0"); len(delta) != 3 || delta["output"] != false {
		t.Errorf("delta: %v", delta)
	}
}

func TestRunOfAPlug(t *testing.T) {
	t.Parallel()
	p := simulator.NewPlug(simulator.PlugConfig{ID: plugID})
	for _, url := range []string{"", "http://h/secret", "ws://", "ws://h:%zz/secret"} {
		if err := p.Run(t.Context(), url); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("Run of %q: %v", url, err)
		}
	}
	s := newServer(t)
	running := run(t, s, simulator.PlugConfig{})
	s.next(t)
	if err := running.Run(t.Context(), s.url); !errors.Is(err, simulator.ErrPlugRuns) {
		t.Errorf("a second Run: %v", err)
	}
}

func TestFleet(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	cfg := simulator.FleetConfig{Devices: 50, Seed: 3, Connection: "c1", RetryMin: time.Millisecond, Ramp: 50 * time.Millisecond}
	f := simulator.NewFleet(cfg)
	seen := map[domain.DeviceID]bool{}
	same := simulator.NewFleet(cfg)
	cfg.Connection = "c2"
	other := simulator.NewFleet(cfg)
	for i, p := range f.Plugs() {
		seen[p.ID()] = true
		if same.Plugs()[i].ID() != p.ID() {
			t.Errorf("plug %d of the same fleet is %s, not %s", i, same.Plugs()[i].ID(), p.ID())
		}
	}
	for _, p := range other.Plugs() {
		seen[p.ID()] = true
	}
	if len(seen) != 100 {
		t.Errorf("two fleets have %d plugs", len(seen))
	}
	if err := f.Run(t.Context(), "http://h"); err == nil {
		t.Error("a fleet runs to an http URL")
	}
	s.refuse(http.StatusUnauthorized)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx, s.url) }()
	testpeer.Eventually(t, "all are refused", func() bool { return f.Refused(http.StatusUnauthorized) == 50 })
	if f.LastRefusal() != http.StatusUnauthorized {
		t.Errorf("last refusal %d", f.LastRefusal())
	}
	s.refuse(0)
	testpeer.Eventually(t, "all are connected", func() bool { return f.Connected() == 50 })
	if f.Sent() < 50 || f.Dials() < 100 {
		t.Errorf("%d frames, %d dials", f.Sent(), f.Dials())
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) || f.Connected() != 0 {
		t.Errorf("Run: %v, %d connected", err, f.Connected())
	}
}
