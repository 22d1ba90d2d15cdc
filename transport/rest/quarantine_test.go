package rest

import (
	"context"
	"testing"

	"github.com/plugcast/plugcast/domain"
)

// quarantined is a [Quarantine] of 3 entries in two partitions.
type quarantined struct{}

func (quarantined) Quarantine(_ context.Context, _ domain.Actor, q domain.QuarantineQuery) (page domain.QuarantinePage, err error) {
	for _, one := range []domain.Quarantined{
		{Partition: 3, Position: domain.Position{Ms: 9}, SystemID: sol9, Reason: "it cannot be projected"},
		{Partition: 1, Position: domain.Position{Ms: 9}, Reason: "no well-formed systemId"},
		{Partition: 3, Position: domain.Position{Ms: 7}, SystemID: sol9, Reason: "data is not JSON"},
	} {
		at := one.Cursor()
		before := q.Before == nil || at.Position.Before(q.Before.Position) ||
			at.Position == q.Before.Position && at.Partition < q.Before.Partition
		if !before || q.System != "" && one.SystemID != q.System {
			continue
		}
		if len(page.Entries) == q.Limit {
			page.More = true
			break
		}
		page.Entries = append(page.Entries, one)
	}
	return page, nil
}

const sol9 = domain.SystemID("clinica-sol")

func TestQuarantine(t *testing.T) {
	t.Parallel()
	b := setup(t, func(c *Config) { c.Quarantine = quarantined{} })
	for _, role := range domain.Roles() {
		if role != domain.RoleStaff {
			b.want(b.send(role, "GET", "/api/v1/quarantine"), 403, domain.CodeForbidden)
		}
	}
	var reasons []any
	for path := "/api/v1/quarantine?limit=1"; path != ""; {
		r := b.send(domain.RoleStaff, "GET", path)
		if r.status != 200 {
			t.Fatalf("%d %s", r.status, r.raw)
		}
		entries := r.body["entries"].([]any)
		reasons = append(reasons, entries[0].(map[string]any)["reason"])
		path = ""
		if next, more := r.body["next"].(string); more {
			path = "/api/v1/quarantine?limit=1&before=" + next
		}
	}
	if len(reasons) != 3 || reasons[2] != "data is not JSON" {
		t.Errorf("got %v", reasons)
	}
	r := b.send(domain.RoleStaff, "GET", "/api/v1/quarantine?systemId=clinica-sol")
	if entries := r.body["entries"].([]any); len(entries) != 2 || r.body["next"] != nil {
		t.Errorf("of one system: %s", r.raw)
	}
	r = b.send(domain.RoleStaff, "GET", "/api/v1/quarantine?before=0-0/0")
	if entries := r.body["entries"].([]any); len(entries) != 0 { // no entry is before the first place
		t.Errorf("before 0-0/0: %s", r.raw)
	}
	for _, query := range []string{"before=9-0", "before=x/1", "systemId=a%20b", "limit=0"} {
		if r := b.send(domain.RoleStaff, "GET", "/api/v1/quarantine?"+query); r.status != 400 {
			t.Errorf("%s: %d %s", query, r.status, r.raw)
		}
	}
}
