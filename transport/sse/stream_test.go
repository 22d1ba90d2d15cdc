package sse

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/auth"
	"github.com/plugcast/plugcast/transport/client"
	"github.com/plugcast/plugcast/transport/rooms"
	"github.com/plugcast/plugcast/transport/testpeer"
	"github.com/plugcast/plugcast/transport/testpeer/clienttest"
)

// face is a server with its event source; it is also the server's authenticator, limiter
// and registry.
type face struct {
	auth.Authenticator // only AuthenticateStream is implemented

	source  *clienttest.Source
	server  *Server
	url     string
	expires time.Time
	limited bool
	clienttest.Registry
}

// AuthenticateStream accepts an Authorization header of the form "role system".
func (f *face) AuthenticateStream(_ context.Context, r *http.Request, _ domain.SystemID) (domain.Actor, error) {
	role, system, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	if !ok {
		return domain.Actor{}, domain.Fail(domain.KindUnauthenticated, "token-missing", "no token")
	}
	return domain.Actor{Role: domain.Role(role), Systems: []domain.SystemID{domain.SystemID(system)}, ExpiresAt: f.expires}, nil
}

func (f *face) Allow(context.Context, domain.Flow, domain.SystemID, int) (bool, time.Duration) {
	return !f.limited, time.Second
}

func newFace(t *testing.T, change func(*face, *Config)) *face {
	f := &face{source: clienttest.NewSource()}
	hub := clienttest.NewHub(t, f.source, rooms.Config{})
	parts := client.Parts{Rooms: hub, Authenticator: f, Limiter: f, Registry: f, Logger: slog.New(slog.DiscardHandler)}
	config := Config{Parts: parts, Refuse: func(w http.ResponseWriter, _ *http.Request, err error) {
		http.Error(w, string(domain.AsError(err).Code), http.StatusTeapot)
	}}
	if change != nil {
		change(f, &config)
	}
	var err error
	if f.server, err = New(config); err != nil {
		t.Fatal(err)
	}
	testpeer.Run(t, f.server.Run)
	mux := http.NewServeMux()
	mux.Handle(Pattern, f.server)
	listener := httptest.NewServer(mux)
	f.url = listener.URL
	t.Cleanup(func() {
		_ = f.server.Shutdown(context.Background())
		listener.Close()
	})
	return f
}

func (f *face) append(system domain.SystemID, device string) domain.Event {
	return f.source.Append(system, domain.DeviceUpdate{DeviceID: domain.DeviceID(device), Online: domain.Some(true)})[0]
}

// open requests a stream of clinica-sol.
func (f *face) open(t *testing.T, query string, headers ...string) (*http.Response, *bufio.Scanner) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), "GET", f.url+"/api/v1/systems/clinica-sol/events/stream"+query, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "viewer clinica-sol")
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = response.Body.Close() })
	return response, bufio.NewScanner(response.Body)
}

// message is one event of a stream.
type message struct{ id, event, data string }

// next reads the next event, and fails at the end of the stream.
func next(t *testing.T, lines *bufio.Scanner) (m message) {
	t.Helper()
	for lines.Scan() {
		field, value, _ := strings.Cut(lines.Text(), ": ")
		switch field {
		case "id":
			m.id = value
		case "event":
			m.event = value
		case "data":
			m.data = value
		case "":
			if m.data != "" {
				return m
			}
		}
	}
	t.Fatalf("the stream ended: %v", lines.Err())
	return m
}

func check(t *testing.T, m message, want domain.Event) {
	t.Helper()
	var e domain.Event
	if err := json.Unmarshal([]byte(m.data), &e); err != nil {
		t.Fatalf("%v in %s", err, m.data)
	}
	if m.id != want.Position.String() || m.event != string(want.Type) || e.ID != want.ID || e.Seq != want.Seq {
		t.Errorf("got %+v, want %s", m, want.Cursor())
	}
}

func TestStreamResumes(t *testing.T) {
	t.Parallel()
	f := newFace(t, nil)
	first, second := f.append("clinica-sol", "d1"), f.append("clinica-sol", "d2")
	f.append("centro-luna", "d1")
	response, lines := f.open(t, "?after=0-0")
	if kind := response.Header.Get("Content-Type"); kind != "text/event-stream" {
		t.Errorf("content type %q", kind)
	}
	check(t, next(t, lines), first)
	check(t, next(t, lines), second)
	third := f.append("clinica-sol", "d3")
	check(t, next(t, lines), third)
	if f.Len() != 1 {
		t.Errorf("%d sockets are listed", f.Len())
	}
	_ = response.Body.Close()

	fourth := f.append("clinica-sol", "d4")
	_, lines = f.open(t, "?after=0-0", "Last-Event-ID", second.Position.String())
	check(t, next(t, lines), third)
	check(t, next(t, lines), fourth)
	// The lastEventId parameter, for clients that cannot set headers, wins over the after
	// parameter of the page's URL.
	_, lines = f.open(t, "?after=0-0&lastEventId="+third.Position.String())
	check(t, next(t, lines), fourth)
	_, lines = f.open(t, "?after=0-0&lastEventId="+first.Position.String(), "Last-Event-ID", third.Position.String())
	check(t, next(t, lines), fourth)
	_, lines = f.open(t, "?after="+third.Position.String()+"&lastEventId=", "Last-Event-ID", "")
	check(t, next(t, lines), fourth)
}

func TestStreamFilters(t *testing.T) {
	t.Parallel()
	f := newFace(t, nil)
	f.append("clinica-sol", "d1")
	want := f.append("clinica-sol", "d2")
	f.source.Append("clinica-sol", domain.RelaySwitchRequested{DeviceID: "d2", CommandID: "c"})
	last := f.append("clinica-sol", "d3")
	_, lines := f.open(t, "?after=0-0&types=device-update,x&devices=d2&devices=d3")
	check(t, next(t, lines), want)
	check(t, next(t, lines), last)
	_, lines = f.open(t, "?after=0-0&type=device-update&deviceId=d2,d3") // the filter names of the history endpoint
	check(t, next(t, lines), want)
	check(t, next(t, lines), last)
	_, lines = f.open(t, "?after=0-0&types=of-tomorrow&type=device-update,x&devices=d2&deviceId=d3,%20d2") // both sets of names together
	check(t, next(t, lines), want)
	check(t, next(t, lines), last)
}

func TestStreamOfAForeignPosition(t *testing.T) {
	t.Parallel()
	f := newFace(t, nil)
	f.append("clinica-sol", "d1")
	_, lines := f.open(t, "?after=99999999999999-0")
	if m := next(t, lines); m.event != "restarted" {
		t.Errorf("got %+v", m)
	}
	want := f.append("clinica-sol", "d2")
	check(t, next(t, lines), want)
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	f := newFace(t, nil)
	limited := newFace(t, func(f *face, _ *Config) { f.limited = true })
	for code, response := range map[string]*http.Response{
		"token-missing":     first(f.open(t, "", "Authorization", "")),
		"forbidden":         first(f.open(t, "", "Authorization", "viewer centro-luna")),
		"invalid-position":  first(f.open(t, "?after=x")),
		"invalid-request":   first(f.open(t, "?typ=device-update")),
		"invalid-device-id": first(f.open(t, "?devices=a%20b")),
		"invalid-filter":    first(f.open(t, "?types=a"+strings.Repeat(",a", 64))),
		"invalid-filter ":   first(f.open(t, "?types=")),
		"invalid-filter  ":  first(f.open(t, "?type=a,,b")),
		"rate-limited":      first(limited.open(t, "")),
	} {
		code = strings.TrimSpace(code)
		body := make([]byte, 64)
		n, _ := response.Body.Read(body)
		if got := strings.TrimSpace(string(body[:n])); got != code || response.StatusCode != http.StatusTeapot {
			t.Errorf("status %d %q, want %s", response.StatusCode, got, code)
		}
	}
	if f.Len() != 0 {
		t.Error("a refused request is listed")
	}
}

func first(r *http.Response, _ *bufio.Scanner) *http.Response { return r }

func TestStreamEnds(t *testing.T) {
	t.Parallel()
	expiring := newFace(t, func(f *face, _ *Config) { f.expires = time.Now().Add(200 * time.Millisecond) })
	_, lines := expiring.open(t, "")
	for lines.Scan() { // until the token ends
	}
	stopping := newFace(t, nil)
	_, lines = stopping.open(t, "")
	if err := stopping.server.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	for lines.Scan() { // until the server stops
	}
	if stopping.Len() != 0 || expiring.Len() != 0 {
		t.Error("an ended stream is still listed")
	}
}

// A disconnected client learns the reason before its stream ends; the other streams stay
// open.
func TestDisconnect(t *testing.T) {
	t.Parallel()
	f := newFace(t, nil)
	_, leaving := f.open(t, "")
	leaver := f.All()[0].SocketID
	_, staying := f.open(t, "")
	why := client.ForcedDisconnect{Reason: "maintenance", CommandID: "c1"}
	named := func(s domain.Socket) bool { return s.SocketID == leaver && s.Systems[0] == "clinica-sol" }
	if n := f.server.Disconnect(named, why); n != 1 {
		t.Errorf("threw %d out", n)
	}
	notice := message{event: "forced-disconnect", data: `{"reason":"maintenance","commandId":"c1","reconnect":false}`}
	if m := next(t, leaving); m != notice {
		t.Errorf("got %+v, want %+v", m, notice)
	}
	for leaving.Scan() { // until the stream ends
	}
	if n := f.server.Disconnect(named, why); n != 0 {
		t.Errorf("threw %d out again", n)
	}
	want := f.append("clinica-sol", "d1")
	check(t, next(t, staying), want)
}

// A banned client gets no stream, even if the ban starts while the stream opens. Other
// clients do.
func TestBan(t *testing.T) {
	t.Parallel()
	for name, raiseAt := range map[string]int32{"raised before": 1, "raised meanwhile": 2} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var asked atomic.Int32
			ban := &clienttest.Ban{}
			ban.Asked = func(actor domain.Actor, system domain.SystemID) {
				if asked.Add(1) == raiseAt {
					ban.Raise(actor.Subject, system, domain.Ban{Reason: "maintenance", Until: time.Now().Add(time.Hour)})
				}
			}
			var refused *domain.Error
			f := newFace(t, func(_ *face, c *Config) {
				c.Parts.Bans = ban
				c.Refuse = func(w http.ResponseWriter, _ *http.Request, err error) {
					refused = domain.AsError(err)
					w.WriteHeader(http.StatusTeapot)
				}
			})
			response, _ := f.open(t, "")
			if response.StatusCode != http.StatusTeapot || f.Len() != 0 {
				t.Fatalf("status %d, %d listed", response.StatusCode, f.Len())
			}
			ms, _ := refused.Params["retryAfterMs"].(int64)
			if refused.Code != domain.CodeBanned || refused.Kind != domain.KindForbidden || ms < 1000 {
				t.Errorf("refused with %v %v", refused, refused.Params)
			}
			ban.Lower("", "clinica-sol")
			if response, _ := f.open(t, ""); response.StatusCode != http.StatusOK {
				t.Errorf("status %d after the ban", response.StatusCode)
			}
		})
	}
}

// A client that does not read cannot delay its own disconnect.
func TestStuckReaderIsSentAway(t *testing.T) {
	t.Parallel()
	for name, send := range map[string]func(*face){
		"thrown out": func(f *face) {
			f.server.Disconnect(func(domain.Socket) bool { return true }, client.ForcedDisconnect{})
			testpeer.Eventually(t, "the stream to be off the list", func() bool { return f.Len() == 0 })
		},
		"the server stops": func(f *face) { _ = f.server.Shutdown(context.Background()) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFace(t, func(_ *face, c *Config) { c.Stall, c.CloseWait = time.Hour, 50*time.Millisecond })
			_, _ = f.open(t, "?after=0-0")
			f.fill(t)
			send(f)
			if f.Len() != 0 {
				t.Error("an ended stream is still listed")
			}
		})
	}
}

// fill appends events until the reader's connection accepts no more.
func (f *face) fill(t *testing.T) {
	t.Helper()
	const events, kib = 8000, 4 // more than any loopback connection buffers
	for i := range events {
		f.source.Append("clinica-sol", domain.DeviceUpdate{
			DeviceID: domain.DeviceID(fmt.Sprint("d", i)), Attributes: json.RawMessage(`{"x":"` + strings.Repeat("x", kib<<10-100) + `"}`),
		})
	}
}

// The server keeps an idle connection open, and a slow reader gets every event.
func TestSlowReader(t *testing.T) {
	t.Parallel()
	f := newFace(t, func(_ *face, c *Config) { c.Beat = time.Millisecond })
	_, lines := f.open(t, "")
	for lines.Scan() && lines.Text() != ": still here" {
	}
	const many = 5000
	for i := range many {
		f.append("clinica-sol", fmt.Sprint("d", i))
	}
	for i := range many {
		var e domain.Event
		if err := json.Unmarshal([]byte(next(t, lines).data), &e); err != nil || e.Seq != uint64(i+1) {
			t.Fatalf("event %d has seq %d (%v)", i+1, e.Seq, err)
		}
	}
}
