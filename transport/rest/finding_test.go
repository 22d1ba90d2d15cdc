package rest

import (
	"context"
	"testing"
	"time"

	"github.com/plugcast/plugcast/domain"
)

func (p *platform) Findings(_ context.Context, filter domain.FindingsFilter) (*domain.FindingsReport, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked = append(p.asked, filter)
	if p.broken != nil {
		return nil, p.broken
	}
	at := domain.Position{Ms: 17, N: 1}
	return &domain.FindingsReport{
		Links: []domain.LinkFindings{{System: "clinica-sol", Link: "old", Counts: map[string]uint64{"same": 9}, Since: start}},
		Findings: []domain.Finding{
			{ID: 41, System: "clinica-sol", Link: "old", Kind: domain.FindingOnlyHere, At: start, Through: &at, Here: []byte(`{"deviceId":"d1"}`)},
			{ID: 42, System: "clinica-sol", Link: "old", Kind: domain.FindingGap, At: start, From: &start, To: &start},
		},
		More: true,
	}, nil
}

func TestFindings(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.send(domain.RoleStaff, "GET", "/api/v1/bridges/findings?systemId=clinica-sol&link=old&since="+
		start.Format(time.RFC3339)+"&after=7&limit=2")
	b.want(r, 200, "")
	at := start.Format(time.RFC3339Nano)
	want := `{"links":[{"system":"clinica-sol","link":"old","counts":{"same":9},"dropped":0,"since":"` + at + `"}],` +
		`"findings":[{"id":41,"system":"clinica-sol","link":"old","kind":"only-here","at":"` + at +
		`","through":"17-1","here":{"deviceId":"d1"}},` +
		`{"id":42,"system":"clinica-sol","link":"old","kind":"gap","at":"` + at + `","from":"` + at +
		`","to":"` + start.Format(time.RFC3339Nano) + `"}],"more":true,"next":"42"}`
	if got := r.raw; got != want && got != want+"\n" {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if len(b.asked) != 1 || b.asked[0] != (domain.FindingsFilter{System: "clinica-sol", Link: "old", Since: start, After: 7, Limit: 2}) {
		t.Errorf("asked for %+v", b.asked)
	}
	for _, query := range []string{"?since=yesterday", "?after=x"} {
		b.want(b.send(domain.RoleStaff, "GET", "/api/v1/bridges/findings"+query), 400, CodeInvalidRequest)
	}
	b.want(b.send(domain.RoleAdmin, "GET", "/api/v1/bridges/findings"), 403, domain.CodeForbidden)
}
