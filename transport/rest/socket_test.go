package rest

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/plugcast/plugcast/domain"
)

func (b *bundle) seat() {
	b.sockets = []domain.Socket{
		{SocketID: "s1", Node: "n1", Face: "ws", Subject: "maria", Role: domain.RoleViewer, ConnectedAt: start,
			Systems: []domain.SystemID{"clinica-sol"}},
		{SocketID: "s2", Node: "n2", Face: "ws", Subject: "ana", Role: domain.RoleViewer, ConnectedAt: start,
			Systems: []domain.SystemID{"centro-luna"}},
		{SocketID: "s3", Node: "n2", Face: "ws", Subject: "chain", Role: domain.RoleViewer, ConnectedAt: start,
			Systems: []domain.SystemID{"clinica-sol", "centro-luna"}},
		{SocketID: "s4", Node: "n2", Face: "ws", Subject: "new", Role: domain.RoleViewer, ConnectedAt: start},
	}
}

func TestSockets(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.seat()
	ids := func(r reply) (got string) {
		for _, s := range r.body["sockets"].([]any) {
			got += s.(map[string]any)["socketId"].(string)
		}
		return got
	}
	own := b.send(domain.RoleAdmin, "GET", "/api/v1/sockets")
	if ids(own) != "s1s3" || len(own.body["sockets"].([]any)[1].(map[string]any)["systems"].([]any)) != 1 {
		t.Errorf("an admin of one system sees %s", own.raw)
	}
	if all := b.send(domain.RoleStaff, "GET", "/api/v1/sockets"); ids(all) != "s1s2s3s4" {
		t.Errorf("staff sees %s", all.raw)
	}
	if luna := b.send(domain.RoleStaff, "GET", "/api/v1/sockets?systemId=centro-luna"); ids(luna) != "s2s3" {
		t.Errorf("of one system: %s", luna.raw)
	}
	if page := b.send(domain.RoleStaff, "GET", "/api/v1/sockets?limit=2"); ids(page) != "s1s2" || page.body["next"] != "s2" {
		t.Errorf("first page: %s", page.raw)
	}
	b.want(b.send(domain.RoleAdmin, "GET", "/api/v1/sockets?systemId=centro-luna"), 403, domain.CodeForbidden)
	b.want(b.send(domain.RoleOperator, "GET", "/api/v1/sockets"), 403, domain.CodeForbidden)
}

func TestCloseSocket(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.seat()
	r := b.send(domain.RoleAdmin, "DELETE", "/api/v1/sockets/s1?reason=bye")
	b.want(r, 202, "")
	var d domain.DisconnectRequested
	if err := json.Unmarshal(b.events[0].Data, &d); err != nil {
		t.Fatal(err)
	}
	want := domain.DisconnectRequested{
		CommandID: r.body["commandId"].(string), SocketID: "s1", TargetSystem: "clinica-sol", Reason: "bye", CloseSockets: true,
	}
	if d != want || b.events[0].SystemID != "clinica-sol" {
		t.Errorf("appended %+v to %s", d, b.events[0].SystemID)
	}
	b.want(b.send(domain.RoleAdmin, "DELETE", "/api/v1/sockets/s2"), 404, CodeUnknownSocket) // in another system only
	shared := b.send(domain.RoleAdmin, "DELETE", "/api/v1/sockets/s3")
	b.want(shared, 403, domain.CodeForbidden)
	if strings.Contains(shared.raw, "luna") {
		t.Errorf("the refusal names a foreign system: %s", shared.raw)
	}
	b.want(b.send(domain.RoleAdmin, "DELETE", "/api/v1/sockets/s4"), 404, CodeUnknownSocket)
	b.want(b.send(domain.RoleOperator, "DELETE", "/api/v1/sockets/s1"), 403, domain.CodeForbidden)
	if n := b.count(); n != 1 {
		t.Errorf("%d events", n)
	}
	b.want(b.send(domain.RoleStaff, "DELETE", "/api/v1/sockets/s4"), 202, "")
	if b.events[1].SystemID != domain.PlatformSystem {
		t.Errorf("a socket in no room: %s", b.events[1].SystemID)
	}
}

// A ticket replaces the token that made it, once.
func TestTickets(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.send(domain.RoleViewer, "POST", "/api/v1/tickets")
	b.want(r, 201, "")
	if at, err := time.Parse(time.RFC3339, r.body["expiresAt"].(string)); err != nil || !at.After(time.Now()) {
		t.Errorf("%s", r.raw)
	}
	path := sol + "/devices?ticket=" + r.body["ticket"].(string)
	b.want(b.send("", "GET", path), 200, "")
	b.want(b.send("", "GET", path), 401, "ticket-invalid")
	b.want(b.send("", "GET", sol+"/devices?token="+b.tokens[domain.RoleViewer]), 401, "token-invalid")
}

// The server makes a stream ticket only for a system that the token may read.
func TestTicketsOfStreams(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.send(domain.RoleViewer, "POST", "/api/v1/tickets", `{"stream":"clinica-sol"}`)
	b.want(r, 201, "")
	at, err := time.Parse(time.RFC3339, r.body["expiresAt"].(string))
	if err != nil || r.body["ticket"] != "stream of clinica-sol" || time.Until(at) < time.Minute {
		t.Errorf("%s", r.raw)
	}
	b.want(b.send(domain.RoleViewer, "POST", "/api/v1/tickets", `{"stream":"centro-luna"}`), 403, domain.CodeForbidden)
	b.want(b.send(domain.RoleViewer, "POST", "/api/v1/tickets", `{"stream":"a/b"}`), 400, domain.CodeInvalidSystemID)
	b.want(b.send(domain.RoleViewer, "POST", "/api/v1/tickets", `{"Stream":"clinica-sol"}`), 400, CodeInvalidRequest)
	for _, unfilled := range []string{`{"stream":""}`, `{"stream":null}`} { // must not make a ticket that opens everything
		b.want(b.send(domain.RoleViewer, "POST", "/api/v1/tickets", unfilled), 400, CodeInvalidRequest)
	}
	b.want(b.send(domain.RoleViewer, "POST", "/api/v1/tickets", `{}`), 201, "")
}

// A selector that a client did not fill in does not match all sockets: the server
// refuses it.
func TestDisconnectOfNobodyInParticular(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.seed()
	before := b.count()
	for _, name := range []string{"systemId", "subject", "role"} {
		for _, unfilled := range []string{`""`, "null"} {
			other := `"role":"viewer"`
			if name == "role" {
				other = `"subject":"maria"`
			}
			r := b.send(domain.RoleStaff, "POST", "/api/v1/disconnects", `{"`+name+`":`+unfilled+`,`+other+`}`)
			b.want(r, 400, CodeInvalidRequest)
			if !strings.Contains(r.body["detail"].(string), name) {
				t.Errorf("%s %s: the member is not named: %s", name, unfilled, r.raw)
			}
		}
	}
	if after := b.count(); after != before {
		t.Errorf("%d events were appended", after-before)
	}
}
