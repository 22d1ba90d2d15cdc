package socketio

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/client"
	"github.com/plugcast/plugcast/transport/limit"
	"github.com/plugcast/plugcast/transport/rooms"
	"github.com/plugcast/plugcast/transport/testpeer"
	"github.com/plugcast/plugcast/transport/testpeer/clienttest"
	"github.com/plugcast/plugcast/transport/testpeer/conformance"
)

const (
	sol  = clienttest.Sol
	luna = clienttest.Luna
)

// patience is how long a test waits for an expected event.
const patience = 20 * time.Second

// bundle is a deployment in memory. Its events and sessions survive the server, and the
// test can start one server after another.
type bundle struct {
	t        testing.TB
	config   Config
	source   *clienttest.Source
	sessions *memory
	ban      *clienttest.Ban
	guest    string // the token for clients without one
	metrics  client.Metrics
	limiter  limit.Limiter

	server   *Server
	endpoint string
	stop     func()
}

func setup(t testing.TB, config Config) *bundle {
	t.Helper()
	config.Node = "node-1"
	if config.Tick == 0 {
		config.Tick = 5 * time.Millisecond
	}
	b := &bundle{t: t, config: config, source: clienttest.NewSource(), sessions: newMemory(), ban: &clienttest.Ban{}}
	b.start()
	t.Cleanup(func() { b.stop() })
	return b
}

// start starts a server and cuts off the one before.
func (b *bundle) start() {
	b.t.Helper()
	if b.stop != nil {
		b.stop()
	}
	hub := clienttest.NewHub(b.t, b.source, rooms.Config{TailBytes: 20_000})
	var err error
	b.server, err = New(b.config, client.Parts{
		Rooms: hub, Authenticator: &clienttest.Authenticator{Guest: b.guest}, Metrics: b.metrics, Bans: b.ban, Limiter: b.limiter,
		Logger: slog.New(slog.DiscardHandler),
	}, b.sessions)
	if err != nil {
		b.t.Fatal(err)
	}
	testpeer.Run(b.t, b.server.Run)
	listening := httptest.NewServer(b.server)
	b.endpoint = listening.URL + "/socket.io/"
	b.stop = sync.OnceFunc(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel() // at once
		_ = b.server.Shutdown(ctx)
		listening.Close()
		hub.Close()
		if left := b.server.all(); len(left) > 0 {
			b.t.Errorf("%d sockets are left", len(left))
		}
	})
}

// all returns the listed sockets.
func (s *Server) all() (list []*socket) {
	s.clients.Each(func(f client.Face) { list = append(list, f.(*socket)) })
	return list
}

// memory is a session store that can fail.
type memory struct {
	mu      sync.Mutex
	failing bool
	saved   map[domain.SessionRef][]byte
	holders map[domain.SessionRef]string
	ended   map[domain.SessionRef]bool
	saving  func(holder string) // set by before
}

func newMemory() *memory {
	return &memory{saved: map[domain.SessionRef][]byte{}, holders: map[domain.SessionRef]string{}, ended: map[domain.SessionRef]bool{}}
}

func (m *memory) fail(failing bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.failing = failing
}

// before makes f run before each save, with the holder that saves.
func (m *memory) before(f func(holder string)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.saving = f
}

func (m *memory) do(f func()) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.failing {
		return fmt.Errorf("the store is away")
	}
	f()
	return nil
}

func (m *memory) Claim(_ context.Context, id domain.SessionRef, holder string) (saved []byte, ok bool, err error) {
	err = m.do(func() {
		if saved, ok = m.saved[id]; ok {
			m.holders[id] = holder
			delete(m.ended, id)
		}
	})
	return saved, ok, err
}

func (m *memory) Save(_ context.Context, id domain.SessionRef, holder string, saved []byte) (ok bool, err error) {
	m.mu.Lock()
	saving := m.saving
	m.mu.Unlock()
	if saving != nil {
		saving(holder)
	}
	err = m.do(func() {
		if has, held := m.holders[id]; held && has != holder {
			return
		}
		ok, m.saved[id], m.holders[id] = true, saved, holder
		delete(m.ended, id)
	})
	return ok, err
}

func (m *memory) Keep(context.Context, []domain.SessionRef) error { return m.do(func() {}) }

func (m *memory) End(_ context.Context, id domain.SessionRef, holder string) error {
	return m.do(func() {
		if m.holders[id] == holder {
			m.ended[id] = true
		}
	})
}

func (m *memory) isEnded(id domain.SessionRef) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ended[id]
}

func (m *memory) all() map[domain.SessionRef][]byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.saved)
}

// testClient is a Socket.IO client that handles recovery as the unmodified library does:
// it keeps the pid, and the last argument of each event if that is a string.
type testClient struct {
	b      *bundle
	ctx    context.Context //nolint:containedctx // the context of the test
	token  string
	pid    string
	offset string
	after  string
	ws     *conformance.WebSocket

	recovered bool
	acks      int
}

func (b *bundle) client(token string) *testClient {
	ctx, cancel := context.WithTimeout(b.t.Context(), patience)
	b.t.Cleanup(cancel)
	return &testClient{b: b, ctx: ctx, token: token}
}

// connect opens a WebSocket and connects, as after a cut.
func (c *testClient) connect() *testClient {
	c.b.t.Helper()
	if refusal := c.try(); refusal != "" {
		c.b.t.Fatalf("refused: %s", refusal)
	}
	return c
}

// resume connects and demands that the server recovers the client.
func (c *testClient) resume() {
	c.b.t.Helper()
	if c.connect(); !c.recovered {
		c.b.t.Fatal("not recovered")
	}
}

// joined returns a connected client that may read these systems and has joined them.
func (b *bundle) joined(systems ...domain.SystemID) *testClient {
	b.t.Helper()
	var names []string
	for _, system := range systems {
		names = append(names, string(system))
	}
	c := b.client("eva:" + strings.Join(names, ",")).connect()
	for _, name := range names {
		c.join(name)
	}
	return c
}

// try connects like connect, but returns the refusal if the server refuses.
func (c *testClient) try() (refusal string) {
	c.b.t.Helper()
	return c.tryWith(func(auth string) string { return auth })
}

// tryWith is try with different auth data.
func (c *testClient) tryWith(change func(auth string) string) (refusal string) {
	c.b.t.Helper()
	c.cut()
	var err error
	if c.ws, err = conformance.OpenWebSocket(c.ctx, c.b.endpoint); err != nil {
		c.b.t.Fatal(err)
	}
	c.b.t.Cleanup(c.ws.Close)
	auth := map[string]string{"token": c.token}
	if c.pid != "" {
		auth["pid"] = c.pid
	}
	if c.offset != "" {
		auth["offset"] = c.offset
	}
	if c.after != "" {
		auth["after"] = c.after
	}
	sent, _ := json.Marshal(auth)
	c.send("40" + change(string(sent)))
	text := c.read()
	if reason, refused := strings.CutPrefix(text, "44"); refused {
		return reason
	}
	c.connected(text)
	return ""
}

// connected reads the answer to a CONNECT and the packets behind it.
func (c *testClient) connected(answered string) {
	c.b.t.Helper()
	var answer struct{ SID, PID string }
	if err := json.Unmarshal([]byte(strings.TrimPrefix(answered, "40")), &answer); err != nil || answer.PID == "" {
		c.b.t.Fatalf("the answer to CONNECT is %s", answered)
	}
	c.recovered = c.pid != "" && answer.PID == c.pid
	c.pid = answer.PID
	if e := c.next(); e.name != "connection-status" {
		c.b.t.Fatalf("the first event is %s", e.name)
	}
}

func (c *testClient) cut() {
	if c.ws != nil {
		c.ws.Close()
		c.ws = nil
	}
}

func (c *testClient) send(packet string) {
	c.b.t.Helper()
	if err := c.ws.Send(packet); err != nil {
		c.b.t.Fatal(err)
	}
}

func (c *testClient) read() string {
	c.b.t.Helper()
	f, err := c.ws.Next(c.ctx)
	if err != nil {
		c.b.t.Fatal(err)
	}
	return f.Data
}

// event is an event that a client got.
type event struct {
	name string
	args []json.RawMessage
	seq  uint64
}

func (c *testClient) next() event {
	c.b.t.Helper()
	return c.parse(c.read())
}

func (c *testClient) parse(text string) event {
	c.b.t.Helper()
	var args []json.RawMessage
	if err := json.Unmarshal([]byte(strings.TrimPrefix(text, "42")), &args); err != nil || len(args) == 0 {
		c.b.t.Fatalf("not an event: %s", text)
	}
	e := event{args: args[1:]}
	_ = json.Unmarshal(args[0], &e.name)
	if n := len(args); args[n-1][0] == '"' && n > 1 {
		_ = json.Unmarshal(args[n-1], &c.offset)
	}
	if len(args) > 2 {
		var meta struct{ Seq uint64 }
		_ = json.Unmarshal(args[2], &meta)
		e.seq = meta.Seq
	}
	return e
}

// ask emits an event and returns its acknowledgement. It passes events that arrive
// before that to got.
func (c *testClient) ask(got func(event), name string, argument any) map[string]any {
	c.b.t.Helper()
	c.acks++
	sent, err := json.Marshal([]any{name, argument})
	if err != nil {
		c.b.t.Fatal(err)
	}
	c.send(fmt.Sprintf("42%d%s", c.acks, sent))
	want := fmt.Sprintf("43%d[", c.acks)
	for {
		text := c.read()
		if answer, ok := strings.CutPrefix(text, want); ok {
			var one map[string]any
			if err := json.Unmarshal([]byte(strings.TrimSuffix(answer, "]")), &one); err != nil {
				c.b.t.Fatalf("the acknowledgement is %s", text)
			}
			return one
		}
		got(c.parse(text))
	}
}

// join joins and fails the test if the server refuses.
func (c *testClient) join(argument any) map[string]any {
	c.b.t.Helper()
	answer := c.ask(func(e event) { c.b.t.Errorf("before the answer came %s %d", e.name, e.seq) }, "join-system", argument)
	if answer["ok"] != true {
		c.b.t.Fatalf("join-system: %v", answer)
	}
	return answer
}

// expect reads events and compares their system and seq: "clinica-sol 3".
func (c *testClient) expect(want ...string) {
	c.b.t.Helper()
	for _, w := range want {
		e := c.next()
		var meta struct {
			SystemID string
			Seq      uint64
			Data     json.RawMessage
		}
		if len(e.args) != 3 || json.Unmarshal(e.args[1], &meta) != nil {
			c.b.t.Fatalf("an event with arguments %s", e.args)
		}
		if got := fmt.Sprint(meta.SystemID, " ", meta.Seq); got != w || meta.Data != nil {
			c.b.t.Fatalf("got %s, want %s (meta: %s)", got, w, e.args[1])
		}
	}
}

// append appends updates of a plug.
func (b *bundle) append(system domain.SystemID, n int) {
	for range n {
		b.source.Append(system, &domain.DeviceUpdate{DeviceID: "plug-1", PowerW: domain.Some(1.5)})
	}
}
