package rest

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"testing"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/shelly/credential"
)

// storedCredential is a credential that platform stores, with its key in the clear, so
// that a test can ask whether a device could connect.
type storedCredential struct {
	system domain.SystemID
	kind   domain.ConnectionKind
	key    string // with which devices dial in
	code   string
}

// madeCredential is a [credential.New] of platform.
type madeCredential struct {
	p      *platform
	id     domain.ConnectionID
	before *storedCredential // stored when Make ran
	next   *storedCredential
	stored bool
}

func (p *platform) Make(_ context.Context, c credential.Request) (credential.New, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	next := &storedCredential{system: c.System, kind: c.Kind, code: c.AuthCode.Reveal()}
	switch {
	case c.Kind == domain.ConnectionShellyOutbound:
		p.made++
		next.key = fmt.Sprint("key-", p.made)
	case p.noKey:
		return nil, domain.Fail(domain.KindUnavailable, credential.CodeNoSecretKey, "there is no key")
	case !strings.HasPrefix(c.AuthCode.Reveal(), "good"):
		return nil, domain.Invalid(domain.CodeInvalidCommand, "authCode is none")
	}
	return &madeCredential{p: p, id: c.ConnectionID, before: p.secrets[c.ConnectionID], next: next}, nil
}

func (m *madeCredential) Keep(context.Context) error {
	m.p.mu.Lock()
	defer m.p.mu.Unlock()
	switch now := m.p.secrets[m.id]; {
	case m.stored:
		return nil
	case now != m.before:
		return domain.Fail(domain.KindUnavailable, domain.CodeContention, "somebody else changes it")
	}
	m.p.secrets[m.id], m.stored = m.next, true
	return nil
}

func (m *madeCredential) Undo(context.Context) error {
	m.p.mu.Lock()
	defer m.p.mu.Unlock()
	if m.p.secrets[m.id] != m.next {
		return nil
	}
	if m.before == nil {
		delete(m.p.secrets, m.id)
		return nil
	}
	m.p.secrets[m.id] = m.before
	return nil
}

func (m *madeCredential) DialInKey() string { return m.next.key }

func (p *platform) Removal(_ context.Context, system domain.SystemID, id domain.ConnectionID) (func(context.Context) error, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	seen := p.secrets[id]
	return func(context.Context) error {
		p.mu.Lock()
		defer p.mu.Unlock()
		if now := p.secrets[id]; now != nil && now == seen && now.system == system {
			delete(p.secrets, id)
		}
		return nil
	}, nil
}

const (
	admin = domain.RoleAdmin
	conns = sol + "/connections"
)

// admits reports whether a device could connect with a dial-in URL.
func (b *bundle) admits(t *testing.T, dialInURL any) bool {
	t.Helper()
	at, err := url.Parse(fmt.Sprint(dialInURL))
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(at.Path, "/")
	if len(parts) != 4 || parts[1] != "shelly" {
		t.Fatalf("dial-in URL %v", dialInURL)
	}
	b.mu.Lock()
	stored := b.secrets[domain.ConnectionID(parts[2])]
	b.mu.Unlock()
	if stored == nil || stored.key != parts[3] {
		return false
	}
	st, err := commandStates{b.platform}.State(t.Context(), stored.system, domain.Needs{}, domain.Position{})
	if err != nil {
		t.Fatal(err)
	}
	c := st.Connections[domain.ConnectionID(parts[2])]
	return c != nil && !c.Stopped
}

func TestCreateOutboundConnection(t *testing.T) {
	t.Parallel()
	b := setup(t)
	made := b.send(admin, "POST", conns, `{"connectionId":"acc1","kind":"shelly-outbound","name":"cellar"}`)
	c, _ := made.body["connection"].(map[string]any)
	if made.status != 201 || made.header.Get("Location") != conns+"/acc1" || made.body["connectionId"] != "acc1" ||
		c["name"] != "cellar" || c["kind"] != "shelly-outbound" || c["stopped"] != false || made.body["position"] != c["position"] {
		t.Fatalf("%d %v %s", made.status, made.header, made.raw)
	}
	dial := fmt.Sprint(made.body["dialInUrl"])
	want := strings.Replace(b.server.URL, "http://", "ws://", 1) + "/shelly/acc1/key-"
	if !strings.HasPrefix(dial, want) || !b.admits(t, dial) {
		t.Errorf("dial-in URL %s", dial)
	}
	got := b.send(domain.RoleViewer, "GET", conns+"/acc1")
	if got.status != 200 || got.header.Get("ETag") != made.header.Get("ETag") || got.header.Get("ETag") != `"`+c["position"].(string)+`"` {
		t.Errorf("%v after %v", got.header, made.header)
	}
	b.want(b.send(domain.RoleViewer, "GET", conns+"/acc1", "If-None-Match: "+got.header.Get("ETag")), 304, "")
	list := b.send(domain.RoleViewer, "GET", conns)
	b.want(b.send(domain.RoleViewer, "GET", conns, "If-None-Match: "+list.header.Get("ETag")), 304, "")
	if strings.Contains(got.raw+list.raw, "key-") || list.header.Get("ETag") == "" {
		t.Errorf("%v %s %s", list.header, list.raw, got.raw)
	}
	b.want(b.send(admin, "POST", conns, `{"connectionId":"acc1","kind":"shelly-outbound"}`), 409, domain.CodeConnectionExists)
	if !b.admits(t, dial) {
		t.Error("a refused request took the key away")
	}
	// The server makes an id if the caller gives none.
	other := b.send(admin, "POST", conns, `{"kind":"shelly-outbound"}`)
	id, err := domain.ParseConnectionID(fmt.Sprint(other.body["connectionId"]))
	if other.status != 201 || err != nil || !b.admits(t, other.body["dialInUrl"]) {
		t.Errorf("%s %v %s", id, err, other.raw)
	}
}

func TestCreateConnectionRefusals(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for name, c := range map[string]struct {
		role   domain.Role
		body   string
		status int
		code   domain.Code
	}{
		"a bad kind":         {admin, `{"kind":"zigbee"}`, 400, CodeInvalidRequest},
		"no kind":            {admin, `{}`, 400, CodeInvalidRequest},
		"no code":            {admin, `{"kind":"shelly-cloud"}`, 400, domain.CodeInvalidCommand},
		"a code too many":    {admin, `{"kind":"shelly-outbound","authCode":"good"}`, 400, domain.CodeInvalidCommand},
		"a code of others":   {admin, `{"kind":"shelly-cloud","authCode":"hunter2-of-evil.example"}`, 400, domain.CodeInvalidCommand},
		"a code of a number": {admin, `{"kind":"shelly-cloud","authCode":7}`, 400, CodeInvalidRequest},
		"a long code":        {admin, `{"kind":"shelly-cloud","authCode":"hunter2` + strings.Repeat("x", 8192) + `"}`, 400, CodeInvalidRequest},
		"a misspelt field":   {admin, `{"kind":"shelly-cloud","auth_code":"hunter2"}`, 400, CodeInvalidRequest},
		"broken JSON":        {admin, `{"kind":"shelly-cloud","authCode":"hunter2`, 400, CodeInvalidRequest},
		"a bad id":           {admin, `{"kind":"shelly-outbound","connectionId":"a/b"}`, 400, domain.CodeInvalidConnectionID},
		"a viewer":           {domain.RoleViewer, `{"kind":"shelly-outbound"}`, 403, domain.CodeForbidden},
		"an operator":        {domain.RoleOperator, `{"kind":"shelly-outbound"}`, 403, domain.CodeForbidden},
		"a service":          {domain.RoleService, `{"kind":"shelly-outbound"}`, 403, domain.CodeForbidden},
	} {
		r := b.send(c.role, "POST", conns, c.body)
		if r.status != c.status || r.code() != string(c.code) {
			t.Errorf("%s: %d %s", name, r.status, r.raw)
		}
		if strings.Contains(r.raw, "hunter2") || strings.Contains(r.raw, "luna") {
			t.Errorf("%s: %s", name, r.raw)
		}
	}
	if len(b.secrets) != 0 || b.count() != 0 {
		t.Errorf("stored %v, %d events", b.secrets, b.count())
	}
	if strings.Contains(b.log.String(), "hunter2") {
		t.Errorf("the log shows a code: %s", b.log.String())
	}
}

func TestCreateCloudConnection(t *testing.T) {
	t.Parallel()
	b := setup(t)
	made := b.send(admin, "POST", conns, `{"connectionId":"acc1","kind":"shelly-cloud","authCode":"good-hunter2"}`)
	if made.status != 201 || made.body["dialInUrl"] != nil || b.secrets["acc1"].code != "good-hunter2" {
		t.Fatalf("%d %s", made.status, made.raw)
	}
	renewed := b.send(admin, "PATCH", conns+"/acc1?wait=5s", `{"authCode":"good-hunter3"}`)
	if renewed.status != 200 || renewed.body["dialInUrl"] != nil || b.secrets["acc1"].code != "good-hunter3" {
		t.Fatalf("%d %s", renewed.status, renewed.raw)
	}
	b.want(b.send(admin, "PATCH", conns+"/acc1", `{"rotateKey":true}`), 400, domain.CodeInvalidCommand)
	b.want(b.send(admin, "PATCH", conns+"/acc1", `{"authCode":"bad-hunter2"}`), 400, domain.CodeInvalidCommand)
	if b.secrets["acc1"].code != "good-hunter3" {
		t.Errorf("a refused request changed the stored credentials")
	}
	var all strings.Builder
	for _, e := range b.events {
		all.Write(e.Data)
	}
	all.WriteString(made.raw + renewed.raw + b.log.String())
	for _, path := range []string{conns, conns + "/acc1", sol + "/events", sol + "/snapshot"} {
		all.WriteString(b.send(admin, "GET", path).raw)
	}
	if strings.Contains(all.String(), "hunter") {
		t.Errorf("a code shows: %s", all.String())
	}
	in := createConnectionInput{}
	in.Body.AuthCode = "good-hunter2"
	fmt.Fprintf(&all, "%v %+v %#v", in, in, in)
	slog.New(slog.NewTextHandler(&all, nil)).Info("m", "code", in.Body.AuthCode, "in", in)
	if strings.Contains(all.String(), "hunter") {
		t.Errorf("a code is printed: %s", all.String())
	}
}

// The dial-in URL begins with the public URL, not with the URL that the caller used.
func TestPublicURL(t *testing.T) {
	t.Parallel()
	b := setup(t, func(c *Config) { c.PublicURL, _ = url.Parse("https://plugs.example.com/x/") })
	made := b.send(admin, "POST", conns, `{"connectionId":"acc1","kind":"shelly-outbound"}`)
	if dial := fmt.Sprint(made.body["dialInUrl"]); !strings.HasPrefix(dial, "wss://plugs.example.com/x/shelly/acc1/key-") {
		t.Errorf("%s", dial)
	}
}

func TestUpdateConnection(t *testing.T) {
	t.Parallel()
	b := setup(t)
	made := b.send(admin, "POST", conns, `{"connectionId":"acc1","kind":"shelly-outbound","name":"cellar"}`)
	first, tag := made.body["dialInUrl"], made.header.Get("ETag")
	renamed := b.send(admin, "PATCH", conns+"/acc1?wait=5s", `{"name":"attic"}`, "If-Match: "+tag)
	if renamed.status != 200 || renamed.body["connection"].(map[string]any)["name"] != "attic" ||
		renamed.body["dialInUrl"] != nil || !b.admits(t, first) {
		t.Errorf("%d %s", renamed.status, renamed.raw)
	}
	if same := b.send(admin, "PATCH", conns+"/acc1", `{"name":"attic"}`); same.status != 202 || same.body["unchanged"] != true {
		t.Errorf("%d %s", same.status, same.raw)
	}
	before := b.count()
	b.want(b.send(admin, "PATCH", conns+"/acc1", `{"rotateKey":true}`, "If-Match: "+tag), 412, domain.CodeStale)
	b.want(b.send(admin, "PATCH", conns+"/acc1", `{"rotateKey":true,"authCode":"good"}`), 400, domain.CodeInvalidCommand)
	b.want(b.send(admin, "PATCH", conns+"/acc1", `{"authCode":"good"}`), 400, domain.CodeInvalidCommand)
	b.want(b.send(admin, "PATCH", conns+"/nope", `{"rotateKey":true}`), 404, domain.CodeUnknownConnection)
	b.want(b.send(domain.RoleOperator, "PATCH", conns+"/acc1", `{"rotateKey":true}`), 403, domain.CodeForbidden)
	b.want(b.send(domain.RoleViewer, "PATCH", conns+"/acc1", `{"name":"x"}`), 403, domain.CodeForbidden)
	if !b.admits(t, first) || b.count() != before || len(b.secrets) != 1 {
		t.Errorf("refused requests took the key away, or appended %d events, or stored %v", b.count()-before, b.secrets)
	}
	rotated := b.send(admin, "PATCH", conns+"/acc1?wait=5s", `{"rotateKey":true}`, "If-Match: "+renamed.header.Get("ETag"))
	if rotated.status != 200 || b.admits(t, first) || !b.admits(t, rotated.body["dialInUrl"]) || rotated.header.Get("ETag") == "" {
		t.Errorf("%d %s", rotated.status, rotated.raw)
	}
	events := b.send(admin, "GET", sol+"/events?type=disconnect-requested")
	if !strings.Contains(events.raw, `"reason":"credential replaced","closeSockets":false,"reconnect":true`) {
		t.Errorf("%s", events.raw)
	}
	b.want(b.send(admin, "PATCH", conns+"/acc1?wait=5s", `{"name":null}`), 200, "")
}

// A repeat does nothing, and its answer does not have the key.
func TestRepeatedCredentialCommands(t *testing.T) {
	t.Parallel()
	b := setup(t)
	create := func() reply { return b.send(admin, "POST", conns, `{"kind":"shelly-outbound"}`, "Idempotency-Key: k1") }
	first, again := create(), create()
	if again.status != 201 || again.body["connectionId"] != first.body["connectionId"] || again.body["position"] != first.body["position"] ||
		again.body["dialInUrl"] != nil || again.header.Get("Idempotency-Replayed") != "true" || !b.admits(t, first.body["dialInUrl"]) {
		t.Errorf("%s after %s", again.raw, first.raw)
	}
	rotate := func() reply {
		return b.send(admin, "PATCH", conns+"/"+first.body["connectionId"].(string), `{"rotateKey":true}`, "Idempotency-Key: k2")
	}
	changed, repeat := rotate(), rotate()
	if repeat.status != 202 || repeat.body["position"] != changed.body["position"] || repeat.body["dialInUrl"] != nil ||
		!b.admits(t, changed.body["dialInUrl"]) || b.admits(t, first.body["dialInUrl"]) {
		t.Errorf("%s after %s", repeat.raw, changed.raw)
	}
	other := b.send(admin, "PATCH", conns+"/"+first.body["connectionId"].(string), `{"name":"x"}`, "Idempotency-Key: k2")
	b.want(other, 422, domain.CodeKeyReused)
}

// A crash or a refusal between the storing of a credential and the appending of its
// event leaves a credential that admits no device and does not hinder its own system.
func TestCredentialAndEventComeApart(t *testing.T) {
	t.Parallel()
	b := setup(t)
	body := `{"connectionId":"acc1","kind":"shelly-outbound"}`
	fail := func(err error) { b.mu.Lock(); b.fail = err; b.mu.Unlock() }

	fail(domain.Fail(domain.KindUnavailable, domain.CodeUnavailable, "the log is away"))
	b.want(b.send(admin, "POST", conns, body), 503, domain.CodeUnavailable)
	if len(b.secrets) != 0 {
		t.Errorf("a refused creation stores %v", b.secrets)
	}
	fail(domain.Fail(domain.KindUnknownOutcome, domain.CodeUnknownOutcome, "the log broke off"))
	b.want(b.send(admin, "POST", conns, body), 504, domain.CodeUnknownOutcome)
	if b.secrets["acc1"] == nil {
		t.Error("after an unknown outcome the key is gone, while the connection may be there")
	}
	if key := b.secrets["acc1"].key; b.admits(t, "ws://h/shelly/acc1/"+key) {
		t.Error("a reservation lets somebody in")
	}
	fail(nil)
	// A crash leaves a stored credential without a connection. The next attempt replaces it.
	made := b.send(admin, "POST", conns, body)
	if made.status != 201 || !b.admits(t, made.body["dialInUrl"]) {
		t.Fatalf("%d %s", made.status, made.raw)
	}
	first := made.body["dialInUrl"]
	fail(domain.Fail(domain.KindUnavailable, domain.CodeUnavailable, "the log is away"))
	b.want(b.send(admin, "PATCH", conns+"/acc1", `{"rotateKey":true}`), 503, domain.CodeUnavailable)
	if !b.admits(t, first) {
		t.Error("a refused rotation took the key away")
	}
	fail(domain.Fail(domain.KindUnknownOutcome, domain.CodeUnknownOutcome, "the log broke off"))
	b.want(b.send(admin, "PATCH", conns+"/acc1", `{"rotateKey":true}`), 504, domain.CodeUnknownOutcome)
	if b.admits(t, first) {
		t.Error("the old key works, although it may have been declared void")
	}
	b.want(b.send(admin, "DELETE", conns+"/acc1"), 504, domain.CodeUnknownOutcome)
	if b.secrets["acc1"] == nil {
		t.Error("a deletion that may not have happened took the key away")
	}
}

func TestDeleteConnection(t *testing.T) {
	t.Parallel()
	b := setup(t)
	body := `{"connectionId":"acc1","kind":"shelly-outbound"}`
	made := b.send(admin, "POST", conns, body)
	b.want(b.send(service, "POST", publishPath, `[{"systemId":"clinica-sol","deviceId":"d1","online":true,"connectionId":"acc1"}]`), 200, "")
	b.want(b.send(domain.RoleOperator, "DELETE", conns+"/acc1"), 403, domain.CodeForbidden)
	b.want(b.send(admin, "DELETE", conns+"/acc1", `If-Match: "1-0"`), 412, domain.CodeStale)
	if !b.admits(t, made.body["dialInUrl"]) {
		t.Error("a refused deletion took the key away")
	}
	b.nodes = nodeTable{live: []string{"a", "b"}, answers: []string{"a", "b"}}
	gone := b.send(admin, "DELETE", conns+"/acc1?wait=5s&reason=sold", "If-Match: "+made.header.Get("ETag"))
	if gone.status != 200 || gone.nodes() != bothNodes || len(b.secrets) != 0 {
		t.Errorf("%d %s, stored %v", gone.status, gone.raw, b.secrets)
	}
	b.want(b.send(admin, "GET", conns+"/acc1"), 404, domain.CodeUnknownConnection)
	b.want(b.send(admin, "DELETE", conns+"/acc1"), 404, domain.CodeUnknownConnection)
	if d := b.send(admin, "GET", sol+"/devices/d1"); d.status != 200 || d.body["online"] != true {
		t.Errorf("its device: %s", d.raw)
	}
	events := b.send(admin, "GET", sol+"/events?after="+made.body["position"].(string))
	for _, want := range []string{`"event":"connection-deleted"`, `"event":"disconnect-requested"`, `"reason":"sold"`} {
		if !strings.Contains(events.raw, want) {
			t.Errorf("%s is not in %s", want, events.raw)
		}
	}
	again := b.send(admin, "POST", conns, body)
	if again.status != 201 || !b.admits(t, again.body["dialInUrl"]) || b.admits(t, made.body["dialInUrl"]) {
		t.Errorf("made again: %d %s", again.status, again.raw)
	}
}

// A device whose connection is stopped or down is stale in the answer to every read.
func TestStaleDevices(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.seed()
	b.want(b.send(admin, "POST", conns, `{"connectionId":"acc1","kind":"shelly-outbound"}`), 201, "")
	b.want(b.send(service, "POST", publishPath, `[{"systemId":"clinica-sol","deviceId":"d1","connectionId":"acc1"},`+
		`{"systemId":"clinica-sol","deviceId":"d2","connectionId":"gone"}]`), 200, "")
	fresh := b.send(domain.RoleViewer, "GET", sol+"/devices/d1")
	if _, says := fresh.body["stale"]; says {
		t.Errorf("%s", fresh.raw)
	}
	b.want(b.send(operator, "POST", "/api/websocket/acc1/stop"), 202, "")
	last := b.events[b.count()-1].Position.String()
	for _, path := range []string{sol + "/devices/d1", sol + "/devices/d1?at=" + last} {
		d := b.send(admin, "GET", path, "If-None-Match: "+fresh.header.Get("ETag"))
		if d.status != 200 || d.body["stale"] != true || d.body["online"] != true || d.body["relayOn"] != true {
			t.Errorf("%s: %d %s", path, d.status, d.raw)
		}
	}
	devices := b.send(domain.RoleViewer, "GET", sol+"/devices").body["devices"].([]any)
	if devices[0].(map[string]any)["stale"] != true || devices[1].(map[string]any)["stale"] != nil {
		t.Errorf("%v", devices)
	}
	if d := b.send(domain.RoleViewer, "GET", sol+"/devices/d2"); d.status != 200 || d.body["stale"] != nil {
		t.Errorf("behind a connection that is not there: %s", d.raw)
	}
	b.want(b.send(operator, "POST", "/api/websocket/acc1/start"), 202, "")
	if d := b.send(domain.RoleViewer, "GET", sol+"/devices/d1"); d.body["stale"] != nil {
		t.Errorf("started: %s", d.raw)
	}
}
