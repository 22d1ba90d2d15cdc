package rest

import (
	"testing"

	"github.com/plugcast/plugcast/domain"
)

func TestEquipment(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.seed()
	b.want(b.send(domain.RoleOperator, "PUT", sol+"/devices/d1/assignment", `{"equipmentId":"e1"}`), 202, "")
	path := sol + "/equipment/e1"
	got := b.send(domain.RoleViewer, "GET", path)
	tag := got.header.Get("ETag")
	if got.status != 200 || got.body["name"] != "Laser 1" || got.body["deviceId"] != "d1" || tag == "" {
		t.Errorf("%s %s", tag, got.raw)
	}
	changed := b.send(domain.RoleOperator, "PATCH", path+"?wait=5s",
		`{"kind":null,"location":"room 3","attributes":{"serial":"A1"}}`, "If-Match: "+tag)
	now, _ := changed.body["equipment"].(map[string]any)
	if changed.status != 200 || changed.body["equipmentId"] != "e1" || now["name"] != "Laser 1" || now["kind"] != nil ||
		now["location"] != "room 3" || now["attributes"].(map[string]any)["serial"] != "A1" {
		t.Errorf("%d %s", changed.status, changed.raw)
	}
	b.want(b.send(domain.RoleOperator, "PATCH", path, `{"name":"x"}`, "If-Match: "+tag), 412, domain.CodeStale)
	b.want(b.send(domain.RoleOperator, "PATCH", path, `{"name":null}`), 400, domain.CodeInvalidCommand)
	b.want(b.send(domain.RoleOperator, "PATCH", path, `{"name":7}`), 400, CodeInvalidRequest)
	b.want(b.send(domain.RoleOperator, "PATCH", path, `{"attributes":[1]}`), 400, domain.CodeInvalidCommand)
	b.want(b.send(domain.RoleOperator, "PATCH", sol+"/equipment/nope", `{"name":"x"}`), 404, domain.CodeUnknownEquipment)
	b.want(b.send(domain.RoleViewer, "PATCH", path, `{"name":"x"}`), 403, domain.CodeForbidden)

	retired := b.send(domain.RoleOperator, "DELETE", path+"?reason=sold&wait=5s")
	if retired.status != 200 || retired.body["equipment"].(map[string]any)["retired"] != true {
		t.Errorf("%d %s", retired.status, retired.raw)
	}
	b.want(b.send(domain.RoleViewer, "GET", sol+"/devices/d1/assignment"), 404, domain.CodeNotAssigned)
	b.want(b.send(domain.RoleOperator, "DELETE", path), 404, domain.CodeUnknownEquipment)
	b.want(b.send(domain.RoleViewer, "GET", path), 200, "") // because history refers to it
	list := b.send(domain.RoleViewer, "GET", sol+"/equipment")
	all := b.send(domain.RoleViewer, "GET", sol+"/equipment?retired=true")
	if len(list.body["equipment"].([]any)) != 1 || len(all.body["equipment"].([]any)) != 2 {
		t.Errorf("in use %s, all %s", list.raw, all.raw)
	}
}

// The server makes an id for equipment without one, and the same id for every repeat
// under an Idempotency-Key.
func TestEquipmentGetsAnID(t *testing.T) {
	t.Parallel()
	b := setup(t)
	create := func(more ...string) reply {
		return b.send(domain.RoleOperator, "POST", sol+"/equipment", append(more, `{"name":"Lamp"}`)...)
	}
	one, two := create(), create()
	if one.status != 202 || one.body["equipmentId"] == two.body["equipmentId"] {
		t.Errorf("%s %s", one.raw, two.raw)
	}
	if _, err := domain.ParseEquipmentID(one.body["equipmentId"].(string)); err != nil {
		t.Error(err)
	}
	keyed, again := create("Idempotency-Key: k"), create("Idempotency-Key: k")
	if keyed.status != 202 || keyed.raw != again.raw || b.count() != 3 {
		t.Errorf("%s %s", keyed.raw, again.raw)
	}
	b.want(b.send(domain.RoleViewer, "GET", sol+"/equipment/"+keyed.body["equipmentId"].(string)), 200, "")
}
