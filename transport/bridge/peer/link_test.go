package peer_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gorilla/websocket"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/streams/timeline"
	"github.com/plugcast/plugcast/transport/bridge"
	"github.com/plugcast/plugcast/transport/bridge/peer"
)

const system domain.SystemID = "clinica-sol"

// farEnd is a far end that sends what a test wants. The tests in cmd/plugcast run links
// against real deployments.
type farEnd struct {
	*httptest.Server
	hello  string   // data of connection-status
	joined string   // data of joined
	frames []string // messages after that
	closes int      // close code, after a connection-status that is not connected
	status int      // of the HTTP interface, when not 200
	answer string   // of it, when not 200
	cursor string

	mu    sync.Mutex
	join  map[string]any
	calls []string
	lines []domain.Event
}

func newFarEnd(t *testing.T) *farEnd {
	f := &farEnd{
		hello: `{"connected":true,"deployment":"far"}`, joined: `{"systemId":"clinica-sol","position":"0-0","seq":0,"recovered":true}`,
		cursor: `{"deployment":"far","known":true,"position":"0-0"}`,
	}
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	return f
}

func (f *farEnd) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") != "Bearer secret" {
		http.Error(w, "who?", http.StatusUnauthorized)
		return
	}
	if r.URL.Path == "/ws" {
		f.serveSocket(w, r)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	q := r.URL.Query()
	call := r.Method + " " + strings.TrimPrefix(r.URL.Path, "/api/v1/systems/clinica-sol/bridge/") + " " + q.Get("source")
	if strings.HasSuffix(r.URL.Path, "events") {
		call += " " + q.Get("after") + " " + q.Get("through")
	}
	f.calls = append(f.calls, call)
	if f.status != 0 {
		w.WriteHeader(f.status)
		fmt.Fprint(w, f.answer)
		return
	}
	if !strings.HasSuffix(r.URL.Path, "events") {
		fmt.Fprint(w, f.cursor)
		return
	}
	n := 0
	for lines := bufio.NewScanner(r.Body); lines.Scan(); n++ {
		var e domain.Event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		f.lines = append(f.lines, e)
	}
	fmt.Fprintf(w, `{"accepted":%d,"duplicates":0,"own":0,"position":%q}`, n, q.Get("through"))
}

// turnAway makes it send a frame to each client, and close the socket.
func (f *farEnd) turnAway(with int, frame string) {
	f.hello, f.closes, f.frames = `{"connected":false,"deployment":"far"}`, with, []string{frame}
}

func (f *farEnd) serveSocket(w http.ResponseWriter, r *http.Request) {
	upgrader := websocket.Upgrader{Subprotocols: []string{"plugcast.v1"}}
	conn, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return
	}
	defer conn.Close()
	say := func(message string) { _ = conn.WriteMessage(websocket.TextMessage, []byte(message)) }
	say(`{"event":"connection-status","data":` + f.hello + `}`)
	if f.closes != 0 {
		for _, message := range f.frames {
			say(message)
		}
		_ = conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(f.closes, "no"), time.Now().Add(time.Second))
		return
	}
	var request struct {
		Data map[string]any `json:"data"`
	}
	if conn.ReadJSON(&request) != nil {
		return
	}
	f.mu.Lock()
	f.join = request.Data
	f.mu.Unlock()
	say(`{"event":"joined","id":1,"data":` + f.joined + `}`)
	for _, message := range f.frames {
		say(message)
	}
	_, _, _ = conn.ReadMessage() // until the link goes
}

// poison is the id of an event at which ourEnd panics.
const poison = "poison"

// ourEnd is the intake and the log of this deployment.
type ourEnd struct {
	mu      sync.Mutex
	known   bool
	cursor  domain.Position
	started []domain.Position
	rewound []domain.Position
	batches []domain.ImportBatch
	changed chan struct{} // gets a value after each batch
	events  []domain.Event
	refuses error // returned by Import
	breaks  error // returned by Follow, if not nil
}

func (o *ourEnd) Cursor(context.Context, domain.SystemID, string) (domain.Position, bool, error) {
	return o.cursor, o.known, nil
}

func (o *ourEnd) SkipTo(_ context.Context, _ domain.SystemID, _ string, at domain.Position) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.started = append(o.started, at)
	return nil
}

func (o *ourEnd) Rewind(_ context.Context, _ domain.SystemID, _ string, to domain.Position) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.rewound = append(o.rewound, to)
	return nil
}

func (o *ourEnd) Import(_ context.Context, b domain.ImportBatch) (domain.ImportResult, error) {
	o.mu.Lock()
	o.batches = append(o.batches, b)
	o.mu.Unlock()
	o.changed <- struct{}{}
	if len(b.Events) > 0 && b.Events[0].ID == poison {
		panic(poison)
	}
	if o.refuses != nil {
		return domain.ImportResult{}, o.refuses
	}
	return domain.ImportResult{Accepted: len(b.Events), Cursor: b.Through}, nil
}

func (o *ourEnd) Page(_ context.Context, _ domain.SystemID, after domain.Cursor, limit int) ([]domain.Event, error) {
	var page []domain.Event
	for _, e := range o.events {
		if e.Position.After(after.Position) && len(page) < limit {
			page = append(page, e)
		}
	}
	return page, nil
}

func (o *ourEnd) Locate(ctx context.Context, s domain.SystemID, after domain.Position) (at domain.Cursor, err error) {
	if end, _ := o.End(ctx, s); after.After(end) {
		return at, fmt.Errorf("no such place: %w", domain.ErrAhead)
	}
	for i := range o.events {
		if !o.events[i].Position.After(after) {
			at = o.events[i].Cursor()
		}
	}
	return at, nil
}

func (o *ourEnd) End(context.Context, domain.SystemID) (domain.Position, error) {
	if len(o.events) == 0 {
		return domain.Position{}, nil
	}
	return o.events[len(o.events)-1].Position, nil
}

func (o *ourEnd) Subscribe(ctx context.Context, s domain.SystemID, _ func([]domain.Event, error)) (domain.Cursor, func(), error) {
	end, _ := o.End(ctx, s)
	start, err := o.Locate(ctx, s, end)
	return start, func() {}, err
}

func (o *ourEnd) Follow(
	ctx context.Context, s domain.SystemID, after domain.Position, fn func(events []domain.Event, behind uint64) error,
) error {
	if o.breaks != nil {
		return o.breaks
	}
	return timeline.Follow(ctx, o, s, after, fn)
}

// load makes a link to a URL.
func load(t *testing.T, url string, o *ourEnd, direction, more string) bridge.Link {
	t.Helper()
	config := fmt.Sprintf(`{"bridges":[{"name":"cloud","kind":"plugcast","url":%q,"token":{"env":"TOKEN"},
		"systems":[{"system":%q,"direction":%q%s}]}]}`, url, system, direction, more)
	kind := peer.New(peer.Parts{Deployment: "us", Intake: o, Reader: o, Logger: slog.New(slog.DiscardHandler)})
	links, err := bridge.Load(strings.NewReader(config), map[string]bridge.Factory{peer.Kind: kind}, func(string) string { return "secret" })
	if err != nil {
		t.Fatal(err)
	}
	return links[0]
}

// run runs one connection of a link until it fails, or the condition holds.
func run(t *testing.T, f *farEnd, o *ourEnd, direction, more string, enough func(bridge.Status) bool) (bridge.Status, error) {
	t.Helper()
	if o.changed == nil {
		o.changed = make(chan struct{}, 100)
	}
	link := load(t, f.URL, o, direction, more)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	s := link.Systems()[0]
	state := bridge.NewState(link, s, "node")
	ended := make(chan error, 1)
	go func() { ended <- link.Run(ctx, s, state) }()
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for {
		select {
		case err := <-ended:
			return state.Status(), err
		case <-poll.C:
			if enough(state.Status()) {
				cancel()
				<-ended
				return state.Status(), nil
			}
		}
	}
}

func never(bridge.Status) bool { return false }

func event(at uint64, kind domain.EventType, origin string) domain.Event {
	return domain.Event{
		ID: fmt.Sprint("id-", at), Type: kind, Version: 1, SystemID: system, Time: time.Unix(1795461046, 0).UTC(), Actor: "x", Origin: origin,
		Data: json.RawMessage(`{"deviceId":"d1"}`), Position: domain.Position{Ms: at}, Seq: at,
	}
}

func envelope(e domain.Event) string { return string(e.AppendEnvelope(nil)) }

func TestPull(t *testing.T) {
	t.Parallel()
	f, o := newFarEnd(t), &ourEnd{known: true, cursor: domain.Position{Ms: 1}}
	f.joined = `{"systemId":"clinica-sol","position":"1-0","seq":1,"recovered":true}`
	f.frames = []string{
		envelope(event(2, "device-update", "")),
		"[" + envelope(event(3, "robot-danced", "")) + "," + envelope(event(4, "device-update", "us")) + "]",
		`{"event":"heartbeat","data":{"time":"x","rooms":{"clinica-sol":{"position":"9-0","seq":9}}}}`,
	}
	status, err := run(t, f, o, "pull", `,"types":["device-update"]`, func(s bridge.Status) bool {
		return s.Pull.Position.Ms == 4 && s.Pull.Behind == 5
	})
	if err != nil {
		t.Fatal(err)
	}
	if f.join["after"] != "1-0" || f.join["types"] != nil {
		t.Errorf("joined with %v", f.join)
	}
	at, imported := uint64(1), 0
	for _, b := range o.batches {
		if b.After.Ms != at || b.Source != "far" || b.System != system {
			t.Errorf("batch %+v after %d", b, at)
		}
		at = b.Through.Ms
		imported += len(b.Events)
	}
	if at != 4 || imported != 2 || status.Pull.Filtered != 1 || status.Remote != "far" {
		t.Errorf("imported %d events up to %d: %+v", imported, at, status.Pull)
	}
}

// A link ends at once with its context, even while the far end does not answer.
func TestEndWhileDialling(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	accepted := make(chan net.Conn, 1)
	go func() {
		if conn, err := listener.Accept(); err == nil {
			accepted <- conn
		}
	}()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	link := load(t, "http://"+listener.Addr().String(), &ourEnd{}, "pull", "")
	s := link.Systems()[0]
	go func() { ended <- link.Run(ctx, s, bridge.NewState(link, s, "node")) }()
	conn := <-accepted
	defer conn.Close()
	cancel()
	select {
	case <-ended:
	case <-time.After(5 * time.Second): // half of what a handshake may take
		t.Fatal("it goes on")
	}
}

// A panic of ours over one event is an error of that link, and does not end the process.
func TestFault(t *testing.T) {
	t.Parallel()
	f, o := newFarEnd(t), &ourEnd{}
	e := event(1, "device-update", "")
	e.ID = poison
	f.frames = []string{envelope(e)}
	if _, err := run(t, f, o, "pull", "", never); err == nil || !strings.Contains(err.Error(), "panic") {
		t.Errorf("ended with %v", err)
	}
}

// Run returns why the import failed, and not that it closed the connection because of that.
func TestPullThatCannotBeTaken(t *testing.T) {
	t.Parallel()
	for range 20 {
		f, o := newFarEnd(t), &ourEnd{refuses: errors.New("postgres is away")}
		f.frames = []string{envelope(event(1, "device-update", ""))}
		if _, err := run(t, f, o, "pull", "", never); !errors.Is(err, o.refuses) {
			t.Fatalf("ended with %v", err)
		}
	}
}

// A gap in the seqs of the far end's events counts, and ends the connection.
func TestPullGap(t *testing.T) {
	t.Parallel()
	f, o := newFarEnd(t), &ourEnd{}
	f.frames = []string{envelope(event(1, "device-update", "")), envelope(event(3, "device-update", ""))}
	status, err := run(t, f, o, "pull", "", never)
	if !errors.Is(err, domain.ErrGap) || status.Pull.Gaps != 1 {
		t.Errorf("%v, %+v", err, status.Pull)
	}
	for _, b := range o.batches {
		if b.Through.Ms > 1 {
			t.Errorf("events after the gap were imported: %+v", b)
		}
	}
}

// If the far end lost events that were imported here, the link reads on from its head.
func TestPullFromOneThatWasSetBack(t *testing.T) {
	t.Parallel()
	f, o := newFarEnd(t), &ourEnd{known: true, cursor: domain.Position{Ms: 90}}
	f.joined = `{"systemId":"clinica-sol","position":"40-0","seq":7,"recovered":false}`
	status, err := run(t, f, o, "pull", "", never)
	if err == nil || status.Pull.Gaps != 1 || !cmp.Equal(o.rewound, []domain.Position{{Ms: 40}}) {
		t.Errorf("%v, %+v, rewound to %v", err, status.Pull, o.rewound)
	}
}

func TestPullFromNow(t *testing.T) {
	t.Parallel()
	f, o := newFarEnd(t), &ourEnd{}
	f.joined = `{"systemId":"clinica-sol","position":"40-0","seq":7,"recovered":false}`
	status, err := run(t, f, o, "pull", `,"from":"now"`, func(s bridge.Status) bool { return s.Connected })
	if err != nil || status.Pull.Gaps != 0 || !cmp.Equal(o.started, []domain.Position{{Ms: 40}}) || f.join["after"] != nil {
		t.Errorf("%v, %+v, started at %v, joined with %v", err, status.Pull, o.started, f.join)
	}
}

func TestPush(t *testing.T) {
	t.Parallel()
	f, o := newFarEnd(t), &ourEnd{events: []domain.Event{
		event(1, "device-update", ""), event(2, "device-update", "far"), event(3, "device-update", "third"), event(4, "robot-danced", ""),
	}}
	o.events[2].Data = json.RawMessage(`{"deviceId":7}`)
	status, err := run(t, f, o, "push", `,"types":["device-update"]`, func(s bridge.Status) bool { return s.Push.Position.Ms == 4 })
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"GET cursor us", "POST events us 0-0 4-0"}, f.calls); diff != "" {
		t.Error(diff)
	}
	var got []string
	for _, e := range f.lines {
		got = append(got, fmt.Sprint(e.ID, " ", e.Origin, " ", e.Type, " ", e.Position))
	}
	if diff := cmp.Diff([]string{"id-1 us device-update 1-0", "id-3 third undecodable 3-0"}, got); diff != "" {
		t.Error(diff)
	}
	if p := status.Push; p.Accepted != 2 || p.Own != 1 || p.Filtered != 1 || p.Refused != 1 || p.Behind != 0 {
		t.Errorf("%+v", p)
	}
}

// If the far end has events that our own log lost, its cursor goes back to our head.
func TestPushToOneThatIsAhead(t *testing.T) {
	t.Parallel()
	f, o := newFarEnd(t), &ourEnd{events: []domain.Event{event(1, "device-update", "")}}
	f.cursor = `{"deployment":"far","known":true,"position":"9-0"}`
	status, err := run(t, f, o, "push", "", func(s bridge.Status) bool { return s.Connected })
	if err != nil || status.Push.Gaps != 1 || len(f.calls) < 2 || f.calls[1] != "PUT cursor us" {
		t.Errorf("%v, %+v, %v", err, status.Push, f.calls)
	}
}

// A loss in our own log, found while the link reads it, counts as a gap.
func TestPushCountsGapsOfOurLog(t *testing.T) {
	t.Parallel()
	for _, loss := range []error{domain.ErrGap, domain.ErrAhead} {
		f, o := newFarEnd(t), &ourEnd{breaks: fmt.Errorf("follow: %w", loss)}
		status, err := run(t, f, o, "push", "", never)
		if !errors.Is(err, loss) || status.Push.Gaps != 1 {
			t.Errorf("after %v: %v, %+v", loss, err, status.Push)
		}
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		direction string
		change    func(*farEnd)
		refused   bool
	}{
		"push: another system's token": {"push", func(f *farEnd) { f.status, f.answer = 403, `{"code":"forbidden","detail":"no"}` }, true},
		"push: a token that expired":   {"push", func(f *farEnd) { f.status, f.answer = 401, `{"code":"token-expired"}` }, false},
		"push: a bad token":            {"push", func(f *farEnd) { f.status, f.answer = 401, `{"code":"token-invalid"}` }, true},
		"push: a fault":                {"push", func(f *farEnd) { f.status, f.answer = 500, `<html>` }, false},
		"push: behind":                 {"push", func(f *farEnd) { f.status, f.answer = 409, `{"code":"bridge-behind"}` }, false},
		"push: to ourselves":           {"push", func(f *farEnd) { f.cursor = `{"deployment":"us"}` }, true},
		"pull: from ourselves":         {"pull", func(f *farEnd) { f.hello = `{"connected":true,"deployment":"us"}` }, true},
		"pull: from one too old":       {"pull", func(f *farEnd) { f.hello = `{"connected":true}` }, true},
		"pull: a token that expired": {"pull", func(f *farEnd) {
			f.turnAway(4401, `{"event":"error","data":{"code":"token-expired","detail":"it has expired"}}`)
		}, false},
		"pull: a bad token": {"pull", func(f *farEnd) {
			f.turnAway(4401, `{"event":"error","data":{"code":"token-invalid"}}`)
		}, true},
		"pull: the token cannot be checked": {"pull", func(f *farEnd) {
			f.turnAway(1012, `{"event":"error","data":{"code":"unavailable"}}`)
		}, false},
		"pull: banned for a while": {"pull", func(f *farEnd) {
			f.turnAway(4409, `{"event":"forced-disconnect","data":{"reconnect":true}}`)
		}, false},
		"pull: disconnected": {"pull", func(f *farEnd) {
			f.frames = []string{`{"event":"forced-disconnect","data":{"reconnect":false}}`}
		}, true},
		"pull: an error": {"pull", func(f *farEnd) { f.frames = []string{`{"event":"error","data":{"code":"internal"}}`} }, false},
		"pull: set back": {"pull", func(f *farEnd) { f.frames = []string{`{"event":"joined","data":{"recovered":false}}`} }, false},
		"pull: not JSON": {"pull", func(f *farEnd) { f.frames = []string{`[{"event":`} }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFarEnd(t)
			c.change(f)
			_, err := run(t, f, &ourEnd{}, c.direction, "", never)
			if err == nil || errors.Is(err, bridge.ErrRefused) != c.refused {
				t.Errorf("ended with %v", err)
			}
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("the token shows: %v", err)
			}
		})
	}
}
