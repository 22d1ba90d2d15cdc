package rest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/plugcast/plugcast/domain"
)

// nodeTable holds the processes that a test simulates.
type nodeTable struct {
	live    []string
	missing []string
	later   []string // live processes that started after all commands
	answers []string // processes that answer a command for all at once
	relay   *domain.RelaySwitchCompleted
	broken  error // returned by Follow
}

// react appends the answers of the processes at once. The caller holds the lock.
func (p *platform) react(events []domain.Event) {
	for _, e := range events {
		switch e.Type {
		case domain.TypeDisconnectRequested:
			for i, node := range p.nodes.answers {
				p.report(e, node, i, i*10)
			}
		case domain.TypeRelaySwitchRequested:
			if p.nodes.relay != nil {
				done := *p.nodes.relay
				done.CommandID = e.CausationID
				p.add(e.SystemID, domain.RelaySwitchCompleted{CommandID: "another", Outcome: domain.OutcomeFailed}, "another")
				p.add(e.SystemID, done, e.CausationID)
			}
		}
	}
}

func (p *platform) report(request domain.Event, node string, shelly, browser int) {
	p.add(request.SystemID, domain.DisconnectCompleted{
		CommandID: request.CausationID, Node: node, ShellySockets: shelly, BrowserSockets: browser,
	}, request.CausationID)
}

// add appends an event of a process. The caller holds the lock.
func (p *platform) add(system domain.SystemID, data domain.Data, cause string) {
	e, err := domain.NewEvent(system, data, domain.Cause{Actor: "node:x", CausationID: cause})
	if err != nil {
		panic(err)
	}
	e.Position = domain.Position{Ms: uint64(start.UnixMilli()) + uint64(len(p.events)) + 8}
	p.events = append(p.events, e)
}

// Expected implements [Nodes].
func (p *platform) Expected(_ context.Context, asOf time.Time) (live, missing []string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	live = slices.Clone(p.nodes.live)
	if asOf.IsZero() {
		live = append(live, p.nodes.later...)
	}
	return live, slices.Clone(p.nodes.missing), p.broken
}

// Follow implements [Outcomes].
func (p *platform) Follow(ctx context.Context, system domain.SystemID, after domain.Position, fn func(*domain.Event) bool) error {
	for {
		p.mu.Lock()
		events, moved := p.events, p.moved
		p.mu.Unlock()
		if p.nodes.broken != nil {
			return p.nodes.broken
		}
		for i := range events {
			if e := events[i]; e.SystemID == system && e.Position.After(after) {
				after = e.Position
				if fn(&e) {
					return nil
				}
			}
		}
		select {
		case p.waiting <- struct{}{}:
		case <-moved:
			continue
		case <-ctx.Done():
			return ctx.Err()
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// connect creates a connection.
func (b *bundle) connect(system domain.SystemID, id domain.ConnectionID, kind domain.ConnectionKind) {
	b.t.Helper()
	c := domain.CreateConnection{ConnectionCreated: domain.ConnectionCreated{ConnectionID: id, Kind: kind}}
	staff := domain.Request{Actor: domain.Actor{Subject: "x", Role: domain.RoleStaff}}
	if _, err := b.api.service.Execute(b.t.Context(), system, c, staff); err != nil {
		b.t.Fatal(err)
	}
}

func (r reply) nodes() string {
	return fmt.Sprint(r.body["outcome"], " ", r.body["nodes"], " ", r.body["unanswered"])
}

// serve is send without a network, for tests with their own clock.
func (b *bundle) serve(role domain.Role, method, path, body string) reply {
	b.t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	if body == "" {
		r = httptest.NewRequest(method, path, nil)
	}
	r.Header.Set("Authorization", "Bearer "+b.tokens[role])
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	b.api.ServeHTTP(w, r)
	out := reply{status: w.Code, header: w.Header(), raw: w.Body.String()}
	if err := json.Unmarshal(w.Body.Bytes(), &out.body); err != nil {
		b.t.Fatalf("%s %s answers no JSON object: %s", method, path, out.raw)
	}
	return out
}

const (
	stopAndWait = "/api/websocket/acc1/stop?wait=20s"
	bothNodes   = "completed [map[browserSockets:0 node:a shellySockets:0] map[browserSockets:10 node:b shellySockets:1]] <nil>"
)

// The wait ends once all processes have answered, and the answer has their reports.
func TestWaitForNodes(t *testing.T) {
	t.Parallel()
	for name, send := range map[string]func(*bundle, string) reply{
		"stop": func(b *bundle, more string) reply { return b.send(operator, "POST", "/api/websocket/acc1/stop"+more) },
		"restart": func(b *bundle, more string) reply {
			return b.send(operator, "POST", "/api/websocket/acc1/restart"+more)
		},
		"disconnect": func(b *bundle, more string) reply {
			return b.send(domain.RoleAdmin, "POST", "/api/v1/disconnects"+more, `{"systemId":"clinica-sol"}`)
		},
		"disconnect across systems": func(b *bundle, more string) reply {
			return b.send(domain.RoleStaff, "POST", "/api/v1/disconnects"+more, `{"subject":"maria"}`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.connect("clinica-sol", "acc1", domain.ConnectionShellyOutbound)
			b.nodes = nodeTable{live: []string{"b"}, missing: []string{"a"}, answers: []string{"a", "b"}}
			accepted := send(b, "")
			b.want(accepted, 202, "")
			if accepted.nodes() != "<nil> <nil> <nil>" {
				t.Errorf("without waiting: %s", accepted.raw)
			}
			waited := send(b, "?wait=20s")
			b.want(waited, 200, "")
			if waited.nodes() != bothNodes {
				t.Errorf("%s", waited.raw)
			}
			b.want(send(b, "?wait=31s"), 400, CodeInvalidRequest)
		})
	}
}

// The answer names the processes that did not answer in time, both live and missing
// ones.
func TestUnansweredNodes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := assemble(t)
		b.connect("clinica-sol", "acc1", domain.ConnectionShellyOutbound)
		b.nodes = nodeTable{live: []string{"d", "b", "a"}, missing: []string{"c"}, answers: []string{"a", "b"}}
		r := b.serve(operator, "POST", stopAndWait, "")
		b.want(r, 202, "")
		if want := strings.Replace(strings.Replace(bothNodes, "completed", "unknown", 1), "<nil>", "[c d]", 1); r.nodes() != want {
			t.Errorf("%s, want %s", r.nodes(), want)
		}
	})
}

// A process that signs off after the command has no open sockets, and need not answer.
// A missing process has not signed off.
func TestNodeLeavesWhileOthersAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := assemble(t)
		b.connect("clinica-sol", "acc1", domain.ConnectionShellyOutbound)
		for _, missing := range []bool{false, true} {
			b.nodes = nodeTable{live: []string{"a", "b", "gone"}, answers: []string{"a", "b"}}
			go func() {
				time.Sleep(time.Second) // of synctest's clock
				b.mu.Lock()
				defer b.mu.Unlock()
				b.nodes.live = []string{"a", "b"}
				if missing {
					b.nodes.missing = []string{"gone"}
				}
			}()
			r := b.serve(operator, "POST", stopAndWait, "")
			if want := map[bool]int{false: 200, true: 202}[missing]; r.status != want || !missing && r.nodes() != bothNodes {
				t.Errorf("missing %v: %d %s", missing, r.status, r.raw)
			}
		}
	})
}

// The server waits for a late answer, which ends the wait.
func TestLateNode(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.connect("clinica-sol", "acc1", domain.ConnectionShellyOutbound)
	b.nodes = nodeTable{live: []string{"a", "b"}, answers: []string{"a"}}
	go func() {
		<-b.waiting
		b.mu.Lock()
		defer b.mu.Unlock()
		last := b.events[len(b.events)-1]
		b.report(last, "b", 1, 10)
		close(b.moved)
		b.moved = make(chan struct{})
	}()
	r := b.send(operator, "POST", stopAndWait)
	b.want(r, 200, "")
	if r.nodes() != bothNodes {
		t.Errorf("%s", r.raw)
	}
}

// A repeat under the same key finds the answers in history, and does not wait for
// processes that started later.
func TestWaitOfRepeat(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.connect("clinica-sol", "acc1", domain.ConnectionShellyOutbound)
	b.nodes = nodeTable{live: []string{"a", "b"}, answers: []string{"a", "b"}}
	first := b.send(operator, "POST", stopAndWait, "Idempotency-Key: k")
	b.want(first, 200, "")
	b.mu.Lock()
	b.nodes.later = []string{"c"}
	b.mu.Unlock()
	before := b.count()
	again := b.send(operator, "POST", stopAndWait, "Idempotency-Key: k")
	b.want(again, 200, "")
	if again.raw != first.raw || again.header.Get("Idempotency-Replayed") != "true" || b.count() != before {
		t.Errorf("%s, and first %s", again.raw, first.raw)
	}
}

// The server accepts a command even if it cannot read the outcome.
func TestOutcomeCannotBeFound(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.seed()
	b.connect("clinica-sol", "acc1", domain.ConnectionShellyOutbound)
	b.nodes = nodeTable{live: []string{"a"}, broken: errors.New("dial tcp 10.0.0.7: connection refused")}
	r := b.send(operator, "POST", stopAndWait)
	b.want(r, 202, "")
	if r.nodes() != "unknown <nil> [a]" || strings.Contains(r.raw, "10.0.0.7") || !strings.Contains(b.log.String(), "10.0.0.7") {
		t.Errorf("%s", r.raw)
	}
	b.want(b.send(operator, "POST", sol+"/devices/d1/relay?wait=5s", `{"on":true}`), 202, "")
	b.broken = errors.New("presence is away")
	before := b.count()
	b.want(b.send(domain.RoleAdmin, "POST", "/api/v1/disconnects?wait=5s", `{"systemId":"clinica-sol"}`), 503, domain.CodeUnavailable)
	if b.count() != before {
		t.Error("it was done although the answer says that nothing was")
	}
}

func TestStartWaitsForReadModel(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.connect("clinica-sol", "acc1", domain.ConnectionShellyOutbound)
	b.want(b.send(operator, "POST", "/api/websocket/acc1/stop"), 202, "")
	r := b.send(operator, "POST", "/api/websocket/acc1/start?wait=20s")
	b.want(r, 200, "")
	if r.nodes() != "completed <nil> <nil>" {
		t.Errorf("%s", r.raw)
	}
}

// By default, a stop closes the browser sockets, and the other commands do not.
func TestCloseSocketsDefault(t *testing.T) {
	t.Parallel()
	for _, one := range []struct {
		verb, body string
		want       bool
	}{
		{"stop", "", true},
		{"stop", `{"reason":"holiday"}`, true},
		{"stop", `{"closeSockets":false}`, false},
		{"restart", "", false},
		{"restart", `{"closeSockets":true}`, true},
	} {
		b := setup(t)
		b.connect("clinica-sol", "acc1", domain.ConnectionShellyOutbound)
		b.want(b.send(operator, "POST", "/api/websocket/acc1/"+one.verb, one.body), 202, "")
		var d domain.DisconnectRequested
		if err := json.Unmarshal(b.events[len(b.events)-1].Data, &d); err != nil || d.ConnectionID != "acc1" || d.CloseSockets != one.want {
			t.Errorf("%s %s: %+v (%v)", one.verb, one.body, d, err)
		}
	}
}

func TestWaitForRelay(t *testing.T) {
	t.Parallel()
	for _, done := range []domain.RelaySwitchCompleted{
		{DeviceID: "d1", Outcome: domain.OutcomeCompleted},
		{DeviceID: "d1", Outcome: domain.OutcomeFailed, Error: "no such switch"},
		{DeviceID: "d1", Outcome: domain.OutcomeUnknown, Error: "the device did not answer"},
	} {
		b := setup(t)
		b.seed()
		b.nodes.relay = &done
		r := b.send(operator, "POST", sol+"/devices/d1/relay?wait=20s", `{"on":true}`, "Idempotency-Key: k")
		b.want(r, 200, "")
		said, _ := r.body["error"].(string)
		if r.body["outcome"] != string(done.Outcome) || said != done.Error {
			t.Errorf("%s, want %+v", r.raw, done)
		}
		again := b.send(operator, "POST", sol+"/devices/d1/relay?wait=20s", `{"on":true}`, "Idempotency-Key: k")
		if again.raw != r.raw || again.status != 200 {
			t.Errorf("a repeat: %s", again.raw)
		}
	}
}

func TestRelayWithoutOutcome(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := assemble(t)
		b.mu.Lock()
		b.add("clinica-sol", domain.DeviceUpdate{DeviceID: "d1"}, "")
		b.mu.Unlock()
		r := b.serve(operator, "POST", sol+"/devices/d1/relay?wait=5s", `{"on":true}`)
		b.want(r, 202, "")
		if _, has := r.body["outcome"]; has || r.body["position"] == nil {
			t.Errorf("%s", r.raw)
		}
	})
}

// A command on one socket waits only for the process that holds it.
func TestWaitForSocket(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.seat()
	b.nodes = nodeTable{live: []string{"n1", "n2"}, missing: []string{"frozen"}, answers: []string{"n2", "n1"}}
	r := b.send(domain.RoleAdmin, "DELETE", "/api/v1/sockets/s1?wait=20s")
	b.want(r, 200, "")
	if want := "completed [map[browserSockets:10 node:n1 shellySockets:1]] <nil>"; r.nodes() != want {
		t.Errorf("%s, want %s", r.nodes(), want)
	}
	b.want(b.send(domain.RoleAdmin, "DELETE", "/api/v1/sockets/s1?wait=soon"), 400, CodeInvalidRequest)
}

func TestDisconnects(t *testing.T) {
	t.Parallel()
	for name, one := range map[string]struct {
		role   domain.Role
		body   string
		status int
		code   domain.Code
		want   domain.DisconnectRequested
		system domain.SystemID
		ban    time.Duration
	}{
		"a system, by its admin": {role: domain.RoleAdmin, body: `{"systemId":"clinica-sol","reason":"closed"}`, status: 202,
			want: domain.DisconnectRequested{TargetSystem: "clinica-sol", Reason: "closed"}, system: "clinica-sol"},
		"a subject and a role in a system": {role: domain.RoleAdmin,
			body:   `{"systemId":"clinica-sol","subject":"maria","role":"viewer","reconnect":true}`,
			status: 202, system: "clinica-sol",
			want: domain.DisconnectRequested{TargetSystem: "clinica-sol", Subject: "maria", Role: "viewer", Reconnect: true}},
		"a subject, by staff, with a ban": {role: domain.RoleStaff, body: `{"subject":"maria","banFor":"10m"}`, status: 202,
			want: domain.DisconnectRequested{Subject: "maria"}, system: domain.PlatformSystem, ban: 10 * time.Minute},
		"a role, by staff": {role: domain.RoleStaff, body: `{"role":"service"}`, status: 202,
			want: domain.DisconnectRequested{Role: "service"}, system: domain.PlatformSystem},
		"a subject, by admin":  {role: domain.RoleAdmin, body: `{"subject":"maria"}`, status: 403, code: domain.CodeForbidden},
		"another system":       {role: domain.RoleAdmin, body: `{"systemId":"centro-luna"}`, status: 403, code: domain.CodeForbidden},
		"by an operator":       {role: operator, body: `{"systemId":"clinica-sol"}`, status: 403, code: domain.CodeForbidden},
		"nobody":               {role: domain.RoleStaff, body: `{"reason":"x"}`, status: 400, code: domain.CodeInvalidCommand},
		"no body":              {role: domain.RoleStaff, body: ``, status: 400, code: CodeInvalidRequest},
		"no such role":         {role: domain.RoleStaff, body: `{"role":"janitor"}`, status: 400, code: CodeInvalidRequest},
		"a system that is not": {role: domain.RoleStaff, body: `{"systemId":"a b"}`, status: 400, code: domain.CodeInvalidSystemID},
		"a misspelt member": {role: domain.RoleStaff, body: `{"systemID":"clinica-sol","role":"viewer"}`, status: 400,
			code: CodeInvalidRequest},
		"a ban of a week": {role: domain.RoleStaff, body: `{"role":"viewer","banFor":"168h"}`, status: 400, code: domain.CodeInvalidCommand},
		"a ban into the past": {role: domain.RoleStaff, body: `{"role":"viewer","banFor":"-1s"}`, status: 400,
			code: domain.CodeInvalidCommand},
		"a ban to come back through": {role: domain.RoleStaff, body: `{"role":"viewer","banFor":"1m","reconnect":true}`, status: 400,
			code: domain.CodeInvalidCommand},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			before := time.Now()
			r := b.send(one.role, "POST", "/api/v1/disconnects", one.body)
			b.want(r, one.status, one.code)
			if one.code != "" {
				if n := b.count(); n != 0 {
					t.Errorf("%d events", n)
				}
				return
			}
			var got domain.DisconnectRequested
			if err := json.Unmarshal(b.events[0].Data, &got); err != nil || b.events[0].SystemID != one.system {
				t.Fatalf("%s in %s (%v)", b.events[0].Data, b.events[0].SystemID, err)
			}
			if until := got.BanUntil; (until != nil) != (one.ban > 0) ||
				until != nil && (until.Before(before.Add(one.ban-time.Second)) || until.After(time.Now().Add(one.ban))) {
				t.Errorf("banned until %v", until)
			}
			got.BanUntil = nil
			one.want.CommandID, one.want.CloseSockets = r.body["commandId"].(string), true
			if got != one.want {
				t.Errorf("%+v, want %+v", got, one.want)
			}
		})
	}
}

// A repeat is the same request, although its ban would end later.
func TestRepeatedBan(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const body = `{"subject":"maria","banFor":"10m"}`
	b.want(b.send(domain.RoleStaff, "POST", "/api/v1/disconnects", body, "Idempotency-Key: k"), 202, "")
	b.want(b.send(domain.RoleStaff, "POST", "/api/v1/disconnects", body, "Idempotency-Key: k"), 202, "")
	if n := b.count(); n != 1 {
		t.Errorf("%d events", n)
	}
}

// The event stream refuses a banned client with a problem document.
func TestRefuseBanned(t *testing.T) {
	t.Parallel()
	refuse := Refuse(slog.New(slog.DiscardHandler))
	stream := func(w http.ResponseWriter, r *http.Request) {
		refuse(w, r, domain.Ban{Until: time.Now().Add(time.Minute)}.Refusal(time.Now()))
	}
	b := setup(t, func(c *Config) { c.Stream = http.HandlerFunc(stream) })
	r := b.send(domain.RoleViewer, "GET", sol+"/events/stream")
	b.want(r, 403, domain.CodeBanned)
	if r.header.Get("Retry-After") != "60" || r.body["retryAfterMs"] == nil {
		t.Errorf("%v %s", r.header, r.raw)
	}
}
