package rest

import (
	"testing"

	"github.com/plugcast/plugcast/domain"
)

func TestConnections(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for id, system := range map[domain.ConnectionID]domain.SystemID{"acc1": "clinica-sol", "acc2": "centro-luna", "acc3": "clinica-sol"} {
		c := domain.CreateConnection{ConnectionCreated: domain.ConnectionCreated{ConnectionID: id, Kind: domain.ConnectionShellyCloud}}
		if _, err := b.api.service.Execute(t.Context(), system, c, domain.Request{Actor: domain.Actor{Subject: "x", Role: domain.RoleStaff}}); err != nil {
			t.Fatal(err)
		}
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
	b.want(b.send(domain.RoleOperator, "POST", "/api/websocket/acc2/stop"), 404, domain.CodeUnknownConnection) // a neighbour's
	b.want(b.send(domain.RoleViewer, "POST", "/api/websocket/acc1/stop"), 403, domain.CodeForbidden)
	b.want(b.send(domain.RoleOperator, "POST", "/api/websocket/acc2/stop?systemId=centro-luna"), 403, domain.CodeForbidden)
	b.want(b.send(domain.RoleOperator, "POST", "/api/websocket/acc2/stop?systemId=clinica-sol"), 404, domain.CodeUnknownConnection)
	b.want(b.send(domain.RoleOperator, "POST", "/api/websocket/acc1/stop?systemId=a/b"), 400, domain.CodeInvalidSystemID)
	if n := b.count(); n != before {
		t.Errorf("%d events", n-before)
	}
}

// Where several systems have a connection of one id, ?systemId= says which.
func TestConnectionCommandNamesTheSystem(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, system := range []domain.SystemID{"clinica-sol", "centro-luna"} {
		c := domain.CreateConnection{ConnectionCreated: domain.ConnectionCreated{ConnectionID: "shared", Kind: domain.ConnectionShellyCloud}}
		if _, err := b.api.service.Execute(t.Context(), system, c, domain.Request{Actor: domain.Actor{Subject: "x", Role: domain.RoleStaff}}); err != nil {
			t.Fatal(err)
		}
	}
	b.want(b.send(domain.RoleStaff, "POST", "/api/websocket/shared/stop?systemId=centro-luna"), 202, "")
	for system, stopped := range map[string]bool{"clinica-sol": false, "centro-luna": true} {
		if got := b.send(domain.RoleStaff, "GET", "/api/v1/systems/"+system+"/connections/shared"); got.body["stopped"] != stopped {
			t.Errorf("%s: %s", system, got.raw)
		}
	}
}
