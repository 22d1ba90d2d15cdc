package rest

import (
	"strings"
	"testing"

	"github.com/plugcast/plugcast/domain"
)

func TestConnections(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for id, system := range map[domain.ConnectionID]domain.SystemID{"acc1": "clinica-sol", "acc2": "centro-luna", "acc3": "clinica-sol"} {
		b.connect(system, id, domain.ConnectionShellyCloud)
	}
	list := b.send(domain.RoleViewer, "GET", sol+"/connections")
	if got := list.body["connections"].([]any); len(got) != 2 || got[0].(map[string]any)["connectionId"] != "acc1" {
		t.Errorf("%s", list.raw)
	}
	b.want(b.send(domain.RoleViewer, "GET", sol+"/connections/acc1"), 200, "")
	b.want(b.send(domain.RoleViewer, "GET", sol+"/connections/acc2"), 404, domain.CodeUnknownConnection)

	b.want(b.send(domain.RoleOperator, "POST", "/api/websocket/acc1/stop", `{"reason":"holiday","closeSockets":true}`), 202, "")
	if got := b.send(domain.RoleViewer, "GET", sol+"/connections/acc1"); got.body["stopped"] != true {
		t.Errorf("%s", got.raw)
	}
	b.want(b.send(domain.RoleOperator, "POST", "/api/websocket/acc3/start"), 202, "")
	b.want(b.send(domain.RoleOperator, "POST", "/api/websocket/acc3/restart"), 202, "")
	before := b.count()
	b.want(b.send(domain.RoleOperator, "POST", "/api/websocket/acc1/explode"), 400, CodeInvalidRequest)
	b.want(b.send(domain.RoleOperator, "POST", "/api/websocket/acc1/delete"), 400, CodeInvalidRequest)
	b.want(b.send(domain.RoleOperator, "POST", "/api/websocket/acc2/stop"), 404, domain.CodeUnknownConnection) // another system's
	b.want(b.send(domain.RoleViewer, "POST", "/api/websocket/acc1/stop"), 403, domain.CodeForbidden)
	b.want(b.send(domain.RoleOperator, "POST", "/api/websocket/acc2/stop?systemId=centro-luna"), 403, domain.CodeForbidden)
	b.want(b.send(domain.RoleOperator, "POST", "/api/websocket/acc2/stop?systemId=clinica-sol"), 404, domain.CodeUnknownConnection)
	b.want(b.send(domain.RoleOperator, "POST", "/api/websocket/acc1/stop?systemId=a/b"), 400, domain.CodeInvalidSystemID)
	if n := b.count(); n != before {
		t.Errorf("%d events", n-before)
	}
}

// If several systems have a connection with one id, ?systemId= selects one.
func TestConnectionCommandNamesTheSystem(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, system := range []domain.SystemID{"clinica-sol", "centro-luna"} {
		b.connect(system, "shared", domain.ConnectionShellyCloud)
	}
	b.want(b.send(domain.RoleStaff, "POST", "/api/websocket/shared/stop?systemId=centro-luna"), 202, "")
	for system, stopped := range map[string]bool{"clinica-sol": false, "centro-luna": true} {
		if got := b.send(domain.RoleStaff, "GET", "/api/v1/systems/"+system+"/connections/shared"); got.body["stopped"] != stopped {
			t.Errorf("%s: %s", system, got.raw)
		}
	}
}

// refusalStub returns one refusal.
type refusalStub struct{}

func (refusalStub) LastRefusals(system domain.SystemID, id domain.ConnectionID) []domain.DeviceRefusal {
	if system != "clinica-sol" || id != "acc1" {
		return nil
	}
	return []domain.DeviceRefusal{{Reason: "bad-frame", DeviceID: "plug-1", Remote: "192.0.2.1:5", Detail: "it is not JSON"}}
}

// Operators see the refusals of a connection; other roles see only the connection.
func TestConnectionShowsLastRefusals(t *testing.T) {
	t.Parallel()
	b := setup(t, func(c *Config) { c.Refusals = refusalStub{} })
	b.seed()
	b.want(b.send(domain.RoleAdmin, "POST", sol+"/connections", `{"connectionId":"acc1","kind":"shelly-outbound"}`), 201, "")
	for role, want := range map[domain.Role]bool{domain.RoleViewer: false, domain.RoleOperator: true, domain.RoleAdmin: true} {
		r := b.send(role, "GET", sol+"/connections/acc1")
		b.want(r, 200, "")
		refusal := `"lastRefusals":[{"at":"0001-01-01T00:00:00Z","reason":"bad-frame","deviceId":"plug-1"`
		if got := strings.Contains(r.raw, refusal); got != want || r.body["connectionId"] != "acc1" {
			t.Errorf("%s sees %s", role, r.raw)
		}
	}
}
