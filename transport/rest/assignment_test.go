package rest

import (
	"strings"
	"testing"

	"github.com/plugcast/plugcast/domain"
)

func TestAssignment(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.seed()
	path, other := sol+"/devices/d1/assignment", sol+"/devices/d2/assignment"
	b.want(b.send(domain.RoleViewer, "GET", path), 404, domain.CodeNotAssigned)
	b.want(b.send(domain.RoleViewer, "GET", sol+"/devices/nope/assignment"), 404, domain.CodeUnknownDevice)

	accepted := b.send(domain.RoleOperator, "PUT", path, `{"equipmentId":"e1"}`)
	b.want(accepted, 202, "")
	last := b.events[len(b.events)-1]
	if accepted.body["position"] != last.Position.String() || accepted.body["commandId"] != last.CausationID ||
		accepted.body["outcome"] != nil {
		t.Errorf("%s", accepted.raw)
	}
	got := b.send(domain.RoleViewer, "GET", path)
	if got.body["equipmentId"] != "e1" || got.body["assignedBy"] != "operator" || got.header.Get("ETag") != `"`+last.Position.String()+`"` {
		t.Errorf("%s %s", got.header.Get("ETag"), got.raw)
	}
	b.want(b.send(domain.RoleViewer, "GET", path, "If-None-Match: "+got.header.Get("ETag")), 304, "")

	conflict := b.send(domain.RoleOperator, "PUT", other, `{"equipmentId":"e1"}`)
	b.want(conflict, 409, domain.CodeEquipmentOccupied)
	if conflict.body["deviceId"] != "d1" || conflict.body["equipmentId"] != "e1" {
		t.Errorf("the holder is missing: %s", conflict.raw)
	}
	moved := b.send(domain.RoleOperator, "PUT", other+"?move=true&wait=5s", `{"equipmentId":"e1"}`)
	b.want(moved, 200, "")
	now, _ := moved.body["assignment"].(map[string]any)
	if moved.body["outcome"] != "completed" || now["deviceId"] != "d2" || now["equipmentId"] != "e1" ||
		moved.header.Get("ETag") != `"`+moved.body["position"].(string)+`"` {
		t.Errorf("%s %s", moved.header.Get("ETag"), moved.raw)
	}
	b.want(b.send(domain.RoleViewer, "GET", path), 404, domain.CodeNotAssigned)
	same := b.send(domain.RoleOperator, "PUT", other, `{"equipmentId":"e1"}`)
	if same.status != 202 || same.body["unchanged"] != true {
		t.Errorf("%d %s", same.status, same.raw)
	}
	released := b.send(domain.RoleOperator, "DELETE", other+"?wait=5s")
	if released.status != 200 || released.body["outcome"] != "completed" || released.body["assignment"] != nil {
		t.Errorf("%d %s", released.status, released.raw)
	}
}

func TestAssignmentConditions(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.seed()
	path := sol + "/devices/d1/assignment"
	put := func(equipment string, header ...string) reply {
		return b.send(domain.RoleOperator, "PUT", path, append(header, `{"equipmentId":"`+equipment+`"}`)...)
	}
	first := put("e1", "If-None-Match: *")
	b.want(first, 202, "")
	old := first.body["position"].(string)
	b.want(put("e2", "If-None-Match: *"), 412, domain.CodeStale)
	b.want(put("e2", `If-Match: "`+old+`"`), 202, "")
	b.want(put("e1", `If-Match: "`+old+`"`), 412, domain.CodeStale)
	b.want(b.send(domain.RoleOperator, "DELETE", path, "If-Match: "+old), 412, domain.CodeStale)
	now := b.send(domain.RoleViewer, "GET", path).header.Get("ETag")
	stale := put("e1", `If-Match: "`+old+`"`)
	if `"`+stale.body["position"].(string)+`"` != now || stale.body["equipmentId"] != "e2" {
		t.Errorf("the present position is missing: %s", stale.raw)
	}
	for _, bad := range []string{"*", `"x"`, `"1-0", "2-0"`} {
		b.want(put("e1", "If-Match: "+bad), 400, CodeInvalidRequest)
	}
	b.want(put("e1", "If-Match: "+now, "If-None-Match: *"), 400, CodeInvalidRequest)
	b.want(put("e1", "If-Match: W/"+now), 202, "") // marked weak by a proxy that compresses
}

func TestCommandOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.seed()
	path, before := sol+"/devices/d1/assignment", b.count()
	first := b.send(domain.RoleOperator, "PUT", path, `{"equipmentId":"e1"}`, "Idempotency-Key: k")
	b.want(b.send(domain.RoleOperator, "DELETE", path), 202, "")
	again := b.send(domain.RoleOperator, "PUT", path, `{"equipmentId":"e1"}`, "Idempotency-Key: k")
	if first.raw != again.raw || again.header.Get("Idempotency-Replayed") != "true" || b.count() != before+2 {
		t.Errorf("first %s, again %s, %d events", first.raw, again.raw, b.count()-before)
	}
	for name, other := range map[string]reply{
		"content":   b.send(domain.RoleOperator, "PUT", path, `{"equipmentId":"e2"}`, "Idempotency-Key: k"),
		"device":    b.send(domain.RoleOperator, "PUT", sol+"/devices/d2/assignment", `{"equipmentId":"e1"}`, "Idempotency-Key: k"),
		"operation": b.send(domain.RoleOperator, "DELETE", path, "Idempotency-Key: k"),
		"parameter": b.send(domain.RoleOperator, "PUT", path+"?move=true", `{"equipmentId":"e1"}`, "Idempotency-Key: k"),
	} {
		if other.status != 422 || other.code() != string(domain.CodeKeyReused) {
			t.Errorf("another %s: %d %s", name, other.status, other.raw)
		}
	}
	// How long a caller waits makes no other request of it.
	waited := b.send(domain.RoleOperator, "PUT", path+"?wait=1s", `{"equipmentId":"e1"}`, "Idempotency-Key: k")
	if waited.status != 200 || b.count() != before+2 {
		t.Errorf("%d %s", waited.status, waited.raw)
	}
}

func TestWait(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.seed()
	path := sol + "/devices/d1/assignment"
	for _, bad := range []string{"soon", "-1s", "31s"} {
		b.want(b.send(domain.RoleOperator, "PUT", path+"?wait="+bad, `{"equipmentId":"e1"}`), 400, CodeInvalidRequest)
	}
	b.want(b.send(domain.RoleOperator, "PUT", path+"?wiat=5s", `{"equipmentId":"e1"}`), 400, CodeInvalidRequest)
	if n := b.count(); n != 4 {
		t.Fatalf("%d events", n)
	}
	b.setLag(1)
	behind := b.send(domain.RoleOperator, "PUT", path+"?wait=1ms", `{"equipmentId":"e1"}`)
	if behind.status != 202 || behind.body["outcome"] != nil {
		t.Errorf("nothing is known of the outcome: %d %s", behind.status, behind.raw)
	}
	done := make(chan reply)
	go func() { done <- b.send(domain.RoleOperator, "PUT", path+"?wait=30s", `{"equipmentId":"e2"}`) }()
	for b.count() != 6 { // until the command is in the log
		b.send(domain.RoleViewer, "GET", sol+"/devices")
	}
	b.setLag(0)
	if r := <-done; r.status != 200 || !strings.Contains(r.raw, `"equipmentId":"e2"`) {
		t.Errorf("%d %s", r.status, r.raw)
	}
}

func TestRelay(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.seed()
	path := sol + "/devices/d1/relay"
	r := b.send(domain.RoleOperator, "POST", path, `{"on":true,"toggleAfter":"30m"}`)
	b.want(r, 202, "")
	wantData := `{"commandId":"` + r.body["commandId"].(string) + `","deviceId":"d1","on":true,"toggleAfterS":1800}`
	if got := string(b.events[4].Data); got != wantData {
		t.Errorf("appended %s", got)
	}
	b.want(b.send(domain.RoleOperator, "POST", path, `{}`), 400, CodeInvalidRequest)
	b.want(b.send(domain.RoleOperator, "POST", path, `{"on":true,"toggleAfter":"soon"}`), 400, domain.CodeInvalidCommand)
	b.want(b.send(domain.RoleOperator, "POST", path, `{"on":true,"toggleAfter":"25h"}`), 400, domain.CodeInvalidCommand)
	b.want(b.send(domain.RoleOperator, "POST", sol+"/devices/nope/relay", `{"on":true}`), 404, domain.CodeUnknownDevice)
	b.want(b.send(domain.RoleViewer, "POST", path, `{"on":true}`), 403, domain.CodeForbidden)
	if n := b.count(); n != 5 {
		t.Errorf("%d events", n)
	}
}

func TestEnergyCorrection(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.seed()
	b.want(b.send(service, "POST", publishPath, `[{"systemId":"clinica-sol","deviceId":"d1","energyWh":100.25}]`), 200, "")
	path := sol + "/devices/d1/energy-correction"
	r := b.send(domain.RoleOperator, "POST", path+"?wait=5s", `{"energyWh":5000.1234,"reason":"read by hand"}`)
	b.want(r, 200, "")
	if device := r.body["device"].(map[string]any); device["energyWh"] != 5000.123 || device["energyOffsetWh"] != 4899.873 {
		t.Errorf("the answer shows %v", device)
	}
	wantData := `{"commandId":"` + r.body["commandId"].(string) + `","deviceId":"d1","energyWh":5000.123,"reason":"read by hand"}`
	if got := string(b.events[5].Data); got != wantData {
		t.Errorf("appended %s", got)
	}
	b.want(b.send(service, "POST", publishPath, `[{"systemId":"clinica-sol","deviceId":"d1","energyWh":101.25}]`), 200, "")
	if got := b.send(domain.RoleViewer, "GET", sol+"/devices/d1"); got.body["energyWh"] != 5001.123 {
		t.Errorf("it goes on with %v", got.body["energyWh"])
	}
	for _, body := range []string{`{}`, `{"energyWh":-1}`, `{"energyWh":1e13}`, `{"energyWh":"much"}`, `{"energyWh":null}`} {
		if r := b.send(domain.RoleOperator, "POST", path, body); r.status != 400 && r.status != 422 {
			t.Errorf("%s: %d %s", body, r.status, r.raw)
		}
	}
	b.want(b.send(domain.RoleOperator, "POST", sol+"/devices/nope/energy-correction", `{"energyWh":1}`), 404, domain.CodeUnknownDevice)
	b.want(b.send(domain.RoleViewer, "POST", path, `{"energyWh":1}`), 403, domain.CodeForbidden)
	b.want(b.send(domain.RoleAdmin, "POST", path, `{"energyWh":1}`), 202, "")
}
