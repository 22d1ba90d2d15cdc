package rest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/auth"
	"github.com/plugcast/plugcast/transport/snapshot"
	"github.com/plugcast/plugcast/transport/testpeer"
)

// platform implements the log, its projection and the API's other dependencies in
// memory: a naive second implementation, exact about conditions and keys. The tests of
// the whole program use this package with the real ones.
type platform struct {
	mu      sync.Mutex
	events  []domain.Event
	heads   map[string]domain.Position // by system and aggregate
	keys    map[string]remembered
	lag     int           // the number of the newest events that the projection does not have
	moved   chan struct{} // closed when lag or events change
	waiting chan struct{} // receives when a read begins to wait
	fail    error         // returned by every append
	broken  error         // returned by every read
	sockets []domain.Socket
	asked   []domain.FindingsFilter
	secrets map[domain.ConnectionID]*storedCredential
	noKey   bool // no secret key is configured
	made    int  // the number of keys made
	nodes   nodeTable
	tickets map[string]domain.Actor
	allow   func(flow domain.Flow, system domain.SystemID, n int) bool
	log     testpeer.Buffer
}

type remembered struct {
	fingerprint string
	positions   []domain.Position
}

func (p *platform) Append(_ context.Context, events []domain.Event, opts domain.AppendOptions) (domain.Appended, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fail != nil {
		return domain.Appended{}, p.fail
	}
	if opts.Idempotency != nil {
		if known, err := p.recall(*opts.Idempotency); err != nil || known.Replayed {
			return known, err
		}
	}
	head := ""
	if x := opts.Expect; x != nil {
		head = string(events[0].SystemID) + "/" + string(x.Aggregate)
	}
	if x := opts.Expect; x != nil && p.heads[head].After(x.Head) {
		return domain.Appended{}, &domain.ConflictError{Aggregate: x.Aggregate, Expected: x.Head, Head: p.heads[head]}
	}
	var out domain.Appended
	for _, e := range events {
		n := len(p.events) + 1
		e.ID, e.Position = fmt.Sprint("id-", n), domain.Position{Ms: uint64(start.UnixMilli()) + uint64(n) + 7} // the log's clock is ahead
		e.Time = start.Add(time.Duration(n) * time.Millisecond)
		p.events = append(p.events, e)
		out.Positions = append(out.Positions, e.Position)
	}
	p.react(events)
	if opts.Expect != nil {
		p.heads[head] = out.Last()
	}
	if i := opts.Idempotency; i != nil {
		p.keys[i.Scope+"/"+i.Key] = remembered{i.Fingerprint, out.Positions}
	}
	close(p.moved)
	p.moved = make(chan struct{})
	return out, nil
}

func (p *platform) Recall(_ context.Context, _ domain.SystemID, key domain.Idempotency) (domain.Appended, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.recall(key)
}

func (p *platform) Newest(context.Context, domain.SystemID) (domain.Position, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.events) == 0 {
		return domain.Position{}, nil
	}
	return p.events[len(p.events)-1].Position, nil
}

func (p *platform) recall(i domain.Idempotency) (domain.Appended, error) {
	known, ok := p.keys[i.Scope+"/"+i.Key]
	switch {
	case !ok:
		return domain.Appended{}, nil
	case known.fingerprint != i.Fingerprint:
		return domain.Appended{}, domain.Invalid(domain.CodeKeyReused, "this idempotency key was used for another request")
	default:
		return domain.Appended{Positions: known.positions, Replayed: true}, nil
	}
}

func (p *platform) setLag(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lag = n
	close(p.moved)
	p.moved = make(chan struct{})
}

func (p *platform) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.events)
}

// fold applies the events whose positions keep accepts.
func (p *platform) fold(system domain.SystemID, keep func(domain.Position) bool) (*domain.State, error) {
	st := domain.NewState(system)
	for i := range p.events[:max(0, len(p.events)-p.lag)] {
		if e := &p.events[i]; e.SystemID == system && keep(e.Position) {
			if _, err := st.Apply(e); err != nil {
				return nil, err
			}
		}
	}
	return st, nil
}

// commandStates returns states to domain.Service. They are always up to date.
type commandStates struct{ p *platform }

func (s commandStates) State(_ context.Context, system domain.SystemID, _ domain.Needs, _ domain.Position) (*domain.State, error) {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	lag := s.p.lag
	s.p.lag = 0
	defer func() { s.p.lag = lag }()
	return s.p.fold(system, func(domain.Position) bool { return true })
}

func (p *platform) StateFor(ctx context.Context, actor domain.Actor, system domain.SystemID, _ domain.Needs,
	atLeast domain.Position,
) (*domain.State, error) {
	return p.WholeState(ctx, actor, system, atLeast)
}

func (p *platform) WholeState(ctx context.Context, _ domain.Actor, system domain.SystemID, atLeast domain.Position) (*domain.State, error) {
	for {
		p.mu.Lock()
		moved, broken := p.moved, p.broken
		st, err := p.fold(system, func(domain.Position) bool { return true })
		reached := p.reached(atLeast)
		p.mu.Unlock()
		if broken != nil {
			return nil, broken
		}
		if err != nil || reached {
			return st, err
		}
		select {
		case p.waiting <- struct{}{}:
		case <-moved:
			continue
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (p *platform) WaitForSystem(ctx context.Context, system domain.SystemID, at domain.Position) error {
	_, err := p.WholeState(ctx, domain.Actor{}, system, at)
	return err
}

// page returns up to limit rows of one kind after an id.
func page[K ~string, V any](rows map[K]V, after K, limit int) (more bool) {
	keys := slices.Sorted(maps.Keys(rows))
	for i, key := range slices.DeleteFunc(keys, func(key K) bool { return key <= after }) {
		if more = more || i >= limit; i >= limit {
			delete(rows, key)
		}
	}
	maps.DeleteFunc(rows, func(key K, _ V) bool { return key <= after })
	return more
}

func (p *platform) DevicePage(ctx context.Context, actor domain.Actor, system domain.SystemID, after domain.DeviceID, limit int,
) (*domain.State, bool, error) {
	st, err := p.WholeState(ctx, actor, system, domain.Position{})
	if err != nil {
		return nil, false, err
	}
	return st, page(st.Devices, after, limit), nil
}

func (p *platform) EquipmentPage(ctx context.Context, actor domain.Actor, system domain.SystemID, after domain.EquipmentID, limit int,
	retired bool,
) (*domain.State, bool, error) {
	st, err := p.WholeState(ctx, actor, system, domain.Position{})
	if err != nil {
		return nil, false, err
	}
	maps.DeleteFunc(st.Equipment, func(_ domain.EquipmentID, e *domain.Equipment) bool { return e.Retired && !retired })
	return st, page(st.Equipment, after, limit), nil
}

func (p *platform) ConnectionPage(ctx context.Context, actor domain.Actor, system domain.SystemID, after domain.ConnectionID, limit int,
) (*domain.State, bool, error) {
	st, err := p.WholeState(ctx, actor, system, domain.Position{})
	if err != nil {
		return nil, false, err
	}
	return st, page(st.Connections, after, limit), nil
}

// Snapshot implements [Snapshots].
func (p *platform) Snapshot(ctx context.Context, system domain.SystemID) (*snapshot.Snapshot, error) {
	st, err := p.WholeState(ctx, domain.Actor{}, system, domain.Position{})
	if err != nil {
		return nil, err
	}
	return snapshot.Of(st.Snapshot())
}

// reached reports whether the projection has all events up to the position.
func (p *platform) reached(at domain.Position) bool {
	n := len(p.events) - p.lag
	return at.IsZero() || n > 0 && !p.events[n-1].Position.Before(at)
}

func (p *platform) StateAt(_ context.Context, _ domain.Actor, system domain.SystemID, at domain.Position) (*domain.State, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fold(system, func(q domain.Position) bool { return !q.After(at) })
}

func (p *platform) PositionAt(_ context.Context, _ domain.Actor, system domain.SystemID, t time.Time) (domain.Position, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var at domain.Position
	for i := range p.events[:max(0, len(p.events)-p.lag)] {
		if e := &p.events[i]; e.SystemID == system && !e.Time.After(t) {
			at = e.Position
		}
	}
	return at, nil
}

func (p *platform) Events(_ context.Context, _ domain.Actor, system domain.SystemID, q domain.EventQuery) ([]domain.Event, bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var found []domain.Event
	seq := uint64(0)
	for _, e := range p.events {
		if e.SystemID != system {
			continue
		}
		seq++
		e.Seq = seq
		if q.After != nil && !e.Position.After(*q.After) || q.Before != nil && !e.Position.Before(*q.Before) ||
			q.From != nil && e.Time.Before(*q.From) || q.To != nil && !e.Time.Before(*q.To) || !q.Filter.Match(e.Type, e.Device) ||
			q.Actor != "" && e.Actor != q.Actor || q.CorrelationID != "" && e.CorrelationID != q.CorrelationID {
			continue
		}
		found = append(found, e)
	}
	if q.Descending {
		slices.Reverse(found)
	}
	return found[:min(len(found), q.Limit)], len(found) > q.Limit, nil
}

func (p *platform) Head(_ context.Context, _ domain.Actor, system domain.SystemID) (domain.Cursor, domain.Hash, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var at domain.Cursor
	var hash domain.Hash
	for _, e := range p.events {
		if e.SystemID == system {
			at = domain.Cursor{Position: e.Position, Seq: at.Seq + 1}
			e.Seq = at.Seq
			hash = hash.Next(&e)
		}
	}
	return at, hash, nil
}

func (p *platform) SystemOfConnection(ctx context.Context, actor domain.Actor, id domain.ConnectionID) (domain.SystemID, error) {
	for _, system := range []domain.SystemID{"clinica-sol", "centro-luna"} {
		st, err := commandStates{p}.State(ctx, system, domain.Needs{}, domain.Position{})
		if err != nil {
			return "", err
		}
		if st.Connections[id] != nil && actor.Sees(system) {
			return system, nil
		}
	}
	return "", domain.Fail(domain.KindNotFound, domain.CodeUnknownConnection, "there is no such connection")
}

// Page implements Sockets; the sockets are in order.
func (p *platform) Page(_ context.Context, systems []domain.SystemID, after string, limit int) (
	page []domain.Socket, next string, err error,
) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.sockets {
		in := func(system domain.SystemID) bool { return slices.Contains(s.Systems, system) }
		switch {
		case s.SocketID <= after, systems != nil && !slices.ContainsFunc(systems, in):
		case len(page) == limit:
			return page, page[limit-1].SocketID, p.broken
		default:
			page = append(page, s)
		}
	}
	return page, "", p.broken
}

func (p *platform) Find(_ context.Context, id string) (domain.Socket, bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	at := slices.IndexFunc(p.sockets, func(s domain.Socket) bool { return s.SocketID == id })
	if at < 0 {
		return domain.Socket{}, false, p.broken
	}
	return p.sockets[at], true, p.broken
}

func (p *platform) Issue(_ context.Context, actor domain.Actor) (string, time.Time, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	ticket := fmt.Sprint("ticket-", len(p.tickets))
	p.tickets[ticket] = actor
	return ticket, time.Now().Add(30 * time.Second), p.broken
}

func (p *platform) Redeem(_ context.Context, ticket string) (domain.Actor, bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	actor, ok := p.tickets[ticket]
	delete(p.tickets, ticket)
	return actor, ok, nil
}

func (p *platform) IssueStream(_ context.Context, actor domain.Actor, system domain.SystemID) (string, time.Time, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tickets["stream of "+string(system)] = actor
	return "stream of " + string(system), actor.ExpiresAt, nil
}

func (p *platform) Stream(context.Context, string, domain.SystemID) (domain.Actor, bool, error) {
	return domain.Actor{}, false, errors.ErrUnsupported // only the event stream uses stream tickets
}

func (p *platform) Allow(_ context.Context, flow domain.Flow, system domain.SystemID, n int) (bool, time.Duration) {
	return p.allow(flow, system, n), 1500 * time.Millisecond
}

// AllowAll implements Limiter.
func (p *platform) AllowAll(_ context.Context, flow domain.Flow, counts map[domain.SystemID]int) (domain.SystemID, time.Duration) {
	for system, n := range counts {
		if !p.allow(flow, system, n) {
			return system, 1500 * time.Millisecond
		}
	}
	return "", 0
}

var (
	start  = time.Date(2026, 11, 23, 18, 0, 0, 0, time.UTC)
	secret = auth.Config{Secret: []byte("0123456789abcdef0123456789abcdef")}
)

// bundle is an API with its server and its dependencies.
type bundle struct {
	*platform
	t      testing.TB
	api    *API
	server *httptest.Server
	tokens map[domain.Role]string // for clinica-sol
}

func setup(t testing.TB, change ...func(*Config)) *bundle {
	b := assemble(t, change...)
	b.server = httptest.NewServer(b.api)
	t.Cleanup(b.server.Close)
	return b
}

// assemble makes an API without a network, for tests with their own clock.
func assemble(t testing.TB, change ...func(*Config)) *bundle {
	p := &platform{
		heads: map[string]domain.Position{}, keys: map[string]remembered{}, moved: make(chan struct{}), waiting: make(chan struct{}),
		tickets: map[string]domain.Actor{}, secrets: map[domain.ConnectionID]*storedCredential{},
		allow: func(domain.Flow, domain.SystemID, int) bool { return true },
	}
	b := &bundle{platform: p, t: t, tokens: map[domain.Role]string{}}
	for _, role := range domain.Roles() {
		b.tokens[role] = b.token(role, "clinica-sol")
	}
	authenticator, err := auth.New(secret, p, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	var commands int
	c := Config{
		Service: domain.NewService(p, commandStates{p}, nil, func() string { commands++; return fmt.Sprint("cmd-", commands) }),
		Reads:   p, Snapshots: p, Authenticator: authenticator, Tickets: p, Sockets: p, Credentials: p,
		Outcomes: p, Nodes: p, Limiter: p, Findings: p, DeadLetters: deadLetters{p}, Version: "test",
		Bridges: &intakeStub{cursors: map[string]domain.Position{}},
		Log:     slog.New(slog.NewTextHandler(&p.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	for _, f := range change {
		f(&c)
	}
	if b.api, err = New(c); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *bundle) token(role domain.Role, systems ...domain.SystemID) string {
	token, err := secret.Sign(domain.Actor{
		Subject: string(role), Role: role, Systems: systems, ExpiresAt: time.Now().Add(time.Hour),
	}, time.Now())
	if err != nil {
		b.t.Fatal(err)
	}
	return token
}

// reply is a response with its body.
type reply struct {
	status int
	header http.Header
	raw    string
	body   map[string]any
}

func (r reply) code() string { return fmt.Sprint(r.body["code"]) }

// send makes a request with the role's token. Strings in more of the form "Name: value"
// are headers; the last other string is the body.
func (b *bundle) send(role domain.Role, method, path string, more ...string) reply {
	b.t.Helper()
	header, body := http.Header{}, ""
	if role != "" {
		header.Set("Authorization", "Bearer "+b.tokens[role])
	}
	for _, s := range more {
		if name, value, is := strings.Cut(s, ": "); is && !strings.ContainsAny(name, `{["`) {
			header.Set(name, value)
		} else {
			body = s
		}
	}
	if body != "" && header.Get("Content-Type") == "" {
		header.Set("Content-Type", "application/json")
	}
	return b.exchange(method, path, header, strings.NewReader(body))
}

func (b *bundle) exchange(method, path string, header http.Header, body io.Reader) reply {
	b.t.Helper()
	r, err := http.NewRequestWithContext(b.t.Context(), method, b.server.URL+path, body)
	if err != nil {
		b.t.Fatal(err)
	}
	r.Header = header
	resp, err := b.server.Client().Do(r)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	out := reply{status: resp.StatusCode, header: resp.Header, raw: string(raw)}
	if strings.Contains(resp.Header.Get("Content-Type"), "json") {
		if err := json.Unmarshal(raw, &out.body); err != nil {
			b.t.Fatalf("%s %s answers no JSON object: %s", method, path, raw)
		}
	}
	return out
}

const (
	sol     = "/api/v1/systems/clinica-sol"
	oneItem = `[{"systemId":"clinica-sol","deviceId":"d1","online":true,"relayOn":true,"powerW":12.5}]`
)

// seed gives clinica-sol the devices d1 and d2 and the equipment e1 and e2.
func (b *bundle) seed() {
	b.t.Helper()
	for _, step := range []reply{
		b.send(domain.RoleService, "POST", publishPath, oneItem),
		b.send(domain.RoleService, "POST", publishPath, strings.ReplaceAll(oneItem, "d1", "d2")),
		b.send(domain.RoleOperator, "POST", sol+"/equipment", `{"equipmentId":"e1","name":"Laser 1","kind":"laser"}`),
		b.send(domain.RoleOperator, "POST", sol+"/equipment", `{"equipmentId":"e2","name":"Lamp"}`),
	} {
		if step.status/100 != 2 {
			b.t.Fatalf("%d %s", step.status, step.raw)
		}
	}
}

func (b *bundle) want(r reply, status int, code domain.Code) {
	b.t.Helper()
	if r.status != status || code != "" && r.code() != string(code) {
		b.t.Fatalf("want %d %s, got %d %s", status, code, r.status, r.raw)
	}
	if code == "" {
		return
	}
	if got := r.header.Get("Content-Type"); got != problemType {
		b.t.Errorf("the Content-Type of %s is %s", code, got)
	}
	if id := r.header.Get("X-Request-Id"); id == "" || r.body["requestId"] != id {
		b.t.Errorf("%s: request id %q in the header, %v in the problem", code, id, r.body["requestId"])
	}
}

var errDown = errors.New("dial tcp 10.0.0.7:5432: connection refused")
