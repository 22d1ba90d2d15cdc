package rest

import (
	"testing"

	"github.com/plugcast/plugcast/domain"
)

func TestDevices(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.seed()
	b.want(b.send(domain.RoleOperator, "PUT", sol+"/devices/d1/assignment", `{"equipmentId":"e1"}`), 202, "")

	list := b.send(domain.RoleViewer, "GET", sol+"/devices")
	b.want(list, 200, "")
	devices := list.body["devices"].([]any)
	first := devices[0].(map[string]any)
	if len(devices) != 2 || first["deviceId"] != "d1" || first["relayOn"] != true || first["powerW"] != 12.5 ||
		first["assignment"].(map[string]any)["equipmentId"] != "e1" || list.body["seq"] != 5.0 {
		t.Errorf("%s", list.raw)
	}
	one := b.send(domain.RoleViewer, "GET", sol+"/devices?limit=1")
	if one.body["next"] != "d1" || len(one.body["devices"].([]any)) != 1 {
		t.Errorf("first page: %s", one.raw)
	}
	two := b.send(domain.RoleViewer, "GET", sol+"/devices?limit=1&after=d1")
	if two.body["next"] != nil || two.body["devices"].([]any)[0].(map[string]any)["deviceId"] != "d2" {
		t.Errorf("last page: %s", two.raw)
	}

	got := b.send(domain.RoleViewer, "GET", sol+"/devices/d1")
	tag := got.header.Get("ETag")
	if got.status != 200 || tag == "" || got.body["assignment"] == nil {
		t.Errorf("%d %s %s", got.status, tag, got.raw)
	}
	b.want(b.send(domain.RoleViewer, "GET", sol+"/devices/d1", "If-None-Match: "+tag), 304, "")
	b.want(b.send(domain.RoleOperator, "DELETE", sol+"/devices/d1/assignment"), 202, "")
	released := b.send(domain.RoleViewer, "GET", sol+"/devices/d1", "If-None-Match: "+tag)
	if released.status != 200 || released.body["assignment"] != nil {
		t.Errorf("after the release: %d %s", released.status, released.raw)
	}
}

func TestPast(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.seed()
	first := b.events[0]
	off := `[{"systemId":"clinica-sol","deviceId":"d1","relayOn":false}]`
	b.want(b.send(domain.RoleService, "POST", publishPath, off), 200, "")
	for _, at := range []string{
		first.Position.String(), domain.FormatTime(first.Time), "2026-11-23T19:00:00.001Z", "2026-11-23T19:00:00.001%2B01:00",
	} {
		then := b.send(domain.RoleAuditor, "GET", sol+"/devices/d1?at="+at)
		wantOn := at != "2026-11-23T19:00:00.001Z" // an hour later: the newest state
		if then.status != 200 || then.body["relayOn"] != wantOn {
			t.Errorf("as of %s: %d %s", at, then.status, then.raw)
		}
	}
	b.want(b.send(domain.RoleAuditor, "GET", sol+"/devices/d2?at="+first.Position.String()), 404, domain.CodeUnknownDevice)
	empty := b.send(domain.RoleAuditor, "GET", sol+"/snapshot?at=2020-01-01T00:00:00Z")
	if empty.status != 200 || empty.body["seq"] != 0.0 || len(empty.body["devices"].([]any)) != 0 {
		t.Errorf("before everything: %s", empty.raw)
	}
	b.want(b.send(domain.RoleViewer, "GET", sol+"/snapshot"), 200, "")
	b.want(b.send(domain.RoleViewer, "GET", sol+"/snapshot?at=0-1"), 403, domain.CodeForbidden)
	b.want(b.send(domain.RoleAuditor, "GET", sol+"/snapshot?at=yesterday"), 400, domain.CodeInvalidPosition)
	b.want(b.send(domain.RoleAuditor, "GET", sol+"/snapshot?at=12:00"), 400, CodeInvalidRequest)
}

// A parameter that is not UTF-8 text without NUL gets 400, and never reaches the
// database, which stores no NUL.
func TestParametersAreText(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, path := range []string{
		"/devices?after=%00", "/equipment?after=a%00b", "/connections?after=%ff", "/events?actor=%00",
		"/events?correlationId=%c0%80", "/events?type=%00",
	} {
		b.want(b.send(domain.RoleAdmin, "GET", sol+path), 400, CodeInvalidRequest)
	}
}
