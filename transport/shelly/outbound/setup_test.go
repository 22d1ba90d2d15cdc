package outbound

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/projections/quota"
	"github.com/plugcast/plugcast/transport/shelly"
	"github.com/plugcast/plugcast/transport/shelly/credential"
	"github.com/plugcast/plugcast/transport/testpeer"
)

const (
	system domain.SystemID     = "clinica-sol"
	acc    domain.ConnectionID = "acc1"
	plug   domain.DeviceID     = "shellyplugsg3-8cbfea9a1b2c"
)

// patience bounds every wait.
const patience = 20 * time.Second

// bundle is a server with its dependencies in memory.
type bundle struct {
	t        *testing.T
	server   *Server
	refusals *shelly.Refusals
	url      string // of the HTTP server
	keys     map[domain.ConnectionID]string
	logged   testpeer.Buffer

	mu          sync.Mutex
	credentials map[domain.ConnectionRef]*Credential
	state       *domain.State
	events      []domain.Event
	beats       []string
	counts      int           // how often devices were counted
	away        error         // the error of the log
	holdUp      chan struct{} // the log waits for it, unless nil
}

func newBundle(t *testing.T, config Config) *bundle {
	t.Helper()
	return newLimitedBundle(t, config, 50_000)
}

// newLimitedBundle is newBundle for systems that may have so many devices.
func newLimitedBundle(t *testing.T, config Config, most int) *bundle {
	t.Helper()
	b := &bundle{
		t: t, keys: map[domain.ConnectionID]string{}, credentials: map[domain.ConnectionRef]*Credential{},
		state: domain.NewState(system),
	}
	b.connection(system, acc)
	b.refusals = shelly.NewRefusals(b.logged.Logger())
	var err error
	b.server, err = New(config, Parts{
		Credentials: b, Known: b, Events: b, Heartbeats: b, Devices: b,
		Quota: quota.New(most, b, b), Refusals: b.refusals, Logger: b.logged.Logger(),
	})
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle(Pattern, b.server)
	mux.Handle(Prefix, b.server)
	web := httptest.NewServer(mux)
	b.url = web.URL
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		b.set(func() { b.holdUp = nil })
		if err := b.server.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		web.Close()
		for _, key := range b.keys {
			if strings.Contains(b.logged.String(), key) {
				t.Error("a key is in the log")
			}
		}
	})
	return b
}

// connection adds a connection with a key of its own.
func (b *bundle) connection(system domain.SystemID, id domain.ConnectionID) {
	key := credential.NewKey()
	b.keys[id] = key.Reveal()
	c := domain.ConnectionRef{System: system, ID: id}
	b.credentials[c] = &Credential{ConnectionRef: c, KeyHash: credential.Hash(key), Position: domain.Position{Ms: 1}}
}

func (b *bundle) set(change func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change()
}

// eventually waits until a condition holds. It holds the lock while it checks.
func (b *bundle) eventually(what string, holds func() bool) {
	b.t.Helper()
	locked := func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return holds()
	}
	testpeer.Eventually(b.t, what, locked, func() string {
		b.mu.Lock()
		defer b.mu.Unlock()
		return fmt.Sprintf("beats %q; events %s", b.beats, b.texts())
	})
}

// Credential implements Credentials.
func (b *bundle) Credential(_ context.Context, id domain.ConnectionID, key credential.Secret) (Credential, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for c, kept := range b.credentials {
		if c.ID == id && credential.Match(kept.KeyHash, key.Reveal()) {
			return *kept, nil
		}
	}
	return Credential{}, domain.Fail(domain.KindNotFound, domain.CodeUnknownConnection, "no such connection")
}

// Channels implements shelly.Known.
func (b *bundle) Channels(_ context.Context, _ domain.SystemID, base domain.DeviceID) (rows []*domain.Device, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, row := range b.state.Devices {
		if id == base || strings.HasPrefix(string(id), string(base)+":") {
			known := *row
			rows = append(rows, &known)
		}
	}
	return rows, nil
}

// Count implements Devices.
func (b *bundle) Count(_ context.Context, c domain.ConnectionRef, _ int) (n int, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.counts++
	for _, row := range b.state.Devices {
		if row.ConnectionID != nil && *row.ConnectionID == c.ID {
			n++
		}
	}
	return n, nil
}

// FindDevices implements quota.Rows.
func (b *bundle) FindDevices(_ context.Context, _ domain.SystemID, ids []domain.DeviceID, _ int,
) (known []domain.DeviceID, count int, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, id := range ids {
		if b.state.Devices[id] != nil {
			known = append(known, id)
		}
	}
	return known, len(b.state.Devices), nil
}

// WaitForSystem implements quota.Rows.
func (b *bundle) WaitForSystem(context.Context, domain.SystemID, domain.Position) error { return nil }

// Newest implements quota.Log.
func (b *bundle) Newest(context.Context, domain.SystemID) (domain.Position, error) {
	return domain.Position{}, nil
}

// Append implements domain.Appender.
func (b *bundle) Append(ctx context.Context, events []domain.Event, _ domain.AppendOptions) (domain.Appended, error) {
	b.mu.Lock()
	hold, away := b.holdUp, b.away
	b.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return domain.Appended{}, ctx.Err()
		}
	}
	if away != nil {
		return domain.Appended{}, away
	}
	b.set(func() {
		for _, e := range events {
			e.Position = domain.Position{Ms: 1000, N: uint64(len(b.events) + 1)}
			e.Time = time.Now()
			if _, err := b.state.Apply(&e); err != nil {
				b.t.Errorf("an event that cannot be folded: %v", err)
			}
			b.events = append(b.events, e)
		}
	})
	return domain.Appended{Positions: make([]domain.Position, len(events))}, nil
}

func (b *bundle) beat(format string, args ...any) {
	b.set(func() { b.beats = append(b.beats, fmt.Sprintf(format, args...)) })
}

// Open implements shelly.Heartbeats.
func (b *bundle) Open(d domain.DeviceRef, _ string, within time.Duration) {
	b.beat("open %s %v", d.Device, within)
}

// Alive implements shelly.Heartbeats.
func (b *bundle) Alive(d domain.DeviceRef, _ string, _ time.Duration) { b.beat("alive %s", d.Device) }

// Close implements shelly.Heartbeats.
func (b *bundle) Close(d domain.DeviceRef, _ string, grace time.Duration, reason domain.OfflineReason) {
	b.beat("close %s %v %s", d.Device, grace, reason)
}

// Forget implements shelly.Heartbeats.
func (b *bundle) Forget(d domain.DeviceRef, _ string) { b.beat("forget %s", d.Device) }

// Report implements shelly.Heartbeats.
func (b *bundle) Report(d domain.DeviceRef, online bool) { b.beat("report %s %t", d.Device, online) }

// texts are the data of the events. The lock is held.
func (b *bundle) texts() string {
	var all []string
	for i := range b.events {
		all = append(all, string(b.events[i].Data))
	}
	return strings.Join(all, "\n")
}

// beaten reports whether the heartbeats got that call. The lock is held.
func (b *bundle) beaten(what string) bool { return slices.Contains(b.beats, what) }

// relay returns the state of a relay in the log: "on", "off" or "unknown". The lock is held.
func (b *bundle) relay(id domain.DeviceID) string {
	switch d := b.state.Devices[id]; {
	case d == nil || d.RelayOn == nil:
		return "unknown"
	case *d.RelayOn:
		return "on"
	}
	return "off"
}

// wire is a device's end of a socket, frame by frame.
type wire struct {
	t    *testing.T
	conn *websocket.Conn
}

// dial opens a socket to a path below the server. status is that of the answer.
func (b *bundle) dial(path string) (conn *websocket.Conn, status int, body string) {
	b.t.Helper()
	conn, response, err := websocket.DefaultDialer.DialContext(b.t.Context(), strings.Replace(b.url, "http", "ws", 1)+path, nil)
	if err != nil {
		if response == nil {
			b.t.Fatalf("dial: %v", err)
		}
		text := make([]byte, 200)
		n, _ := response.Body.Read(text)
		return nil, response.StatusCode, string(text[:n])
	}
	b.t.Cleanup(func() { _ = conn.Close() })
	return conn, response.StatusCode, ""
}

// device opens a socket with the right key.
func (b *bundle) device() *wire { return b.deviceOf(acc) }

func (b *bundle) deviceOf(id domain.ConnectionID) *wire {
	b.t.Helper()
	conn, status, body := b.dial("/shelly/" + string(id) + "/" + b.keys[id])
	if conn == nil {
		b.t.Fatalf("refused with %d %s", status, body)
	}
	return &wire{b.t, conn}
}

// admitted returns a device that has sent its status: relay on, 100 W.
func (b *bundle) admitted() *wire {
	b.t.Helper()
	w := b.device()
	w.full(plug, true)
	b.eventually("the device to be in", func() bool { return b.relay(plug) == "on" })
	return w
}

func (w *wire) send(text string) {
	if err := w.conn.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
		w.t.Logf("send: %v", err)
	}
}

func (w *wire) full(src domain.DeviceID, on bool) {
	w.send(fmt.Sprintf(`{"src":%q,"dst":"ws","method":"NotifyFullStatus","params":{"ts":1786033227.41,"sys":{"uptime":1},`+
		`"switch:0":{"id":0,"source":"init","output":%t,"apower":100.0,"aenergy":{"total":5.0}}}}`, src, on))
}

func (w *wire) delta(src domain.DeviceID, params string) {
	w.send(fmt.Sprintf(`{"src":%q,"dst":"ws","method":"NotifyStatus","params":%s}`, src, params))
}

// request is a request of the server.
type request struct {
	ID     uint64
	Method string
	Params struct {
		ID int
		On bool
	}
}

// asked reads the server's next request.
func (w *wire) asked(method string) request {
	w.t.Helper()
	_ = w.conn.SetReadDeadline(time.Now().Add(patience))
	_, raw, err := w.conn.ReadMessage()
	if err != nil {
		w.t.Fatalf("instead of %s: %v", method, err)
	}
	var r request
	if err := json.Unmarshal(raw, &r); err != nil || r.Method != method {
		w.t.Fatalf("asked for %s, want %s (%v)", raw, method, err)
	}
	return r
}

func (w *wire) answer(src domain.DeviceID, id uint64, member string) {
	w.send(fmt.Sprintf(`{"id":%d,"src":%q,"dst":"plugcast",%s}`, id, src, member))
}

// closed reads until the server closes the socket, and returns how.
func (w *wire) closed() (code int, reason string) {
	w.t.Helper()
	_ = w.conn.SetReadDeadline(time.Now().Add(patience))
	for {
		_, _, err := w.conn.ReadMessage()
		if end := new(websocket.CloseError); errors.As(err, &end) {
			return end.Code, end.Text
		}
		if err != nil {
			w.t.Fatalf("the socket ended without a close frame: %v", err)
		}
	}
}

func (w *wire) mustClose(want int) {
	w.t.Helper()
	if code, reason := w.closed(); code != want {
		w.t.Errorf("closed with %d %q, want %d", code, reason, want)
	}
}

// answersPings reads the socket to its end, and returns a function that waits for pings.
func (w *wire) answersPings() (wait func(n int)) {
	pings := make(chan struct{}, 100)
	w.conn.SetPingHandler(func(data string) error {
		select {
		case pings <- struct{}{}:
		default:
		}
		return w.conn.WriteControl(websocket.PongMessage, []byte(data), time.Now().Add(time.Second))
	})
	over := make(chan struct{})
	go func() {
		defer close(over)
		_, _, _ = w.conn.ReadMessage()
	}()
	w.t.Cleanup(func() {
		_ = w.conn.Close()
		<-over
	})
	return func(n int) {
		w.t.Helper()
		for range n {
			select {
			case <-pings:
			case <-over:
				w.t.Fatal("the socket is closed")
			case <-time.After(patience):
				w.t.Fatal("no ping comes")
			}
		}
	}
}

// ordered is a command and its result.
type ordered struct {
	taken  bool
	result chan shelly.SwitchResult
}

func (b *bundle) order(on bool) ordered { return b.orderOf(plug, on, time.Now().Add(time.Minute)) }

func (b *bundle) orderOf(id domain.DeviceID, on bool, expires time.Time) ordered {
	o := ordered{result: make(chan shelly.SwitchResult, 2)}
	o.taken = b.server.Switch(shelly.SwitchCommand{
		DeviceRef: domain.DeviceRef{System: system, Device: id}, CommandID: "cmd-1", CorrelationID: "corr", On: on, Expires: expires,
	}, func(r shelly.SwitchResult) { o.result <- r })
	return o
}

func (o *ordered) ends(t *testing.T, want domain.Outcome) {
	t.Helper()
	if !o.taken {
		t.Fatal("nobody holds the device")
	}
	select {
	case r := <-o.result:
		if r.Outcome != want || (r.Outcome != domain.OutcomeCompleted) != (r.Error != "") {
			t.Errorf("it ended with %q (%s), want %q", r.Outcome, r.Error, want)
		}
	case <-time.After(patience):
		t.Fatal("the command does not end")
	}
	select {
	case r := <-o.result:
		t.Errorf("it ended twice: %+v", r)
	default:
	}
}
