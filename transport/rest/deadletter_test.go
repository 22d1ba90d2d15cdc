package rest

import (
	"context"
	"errors"
	"testing"

	"github.com/plugcast/plugcast/domain"
)

// deadLetters returns one dead letter, which contains the arguments of List.
type deadLetters struct{ *platform }

// List implements DeadLetters.
func (d deadLetters) List(_ context.Context, system domain.SystemID, limit int) ([]domain.DeadLetter, error) {
	if system == "broken" {
		return nil, errors.New("a secret of ours")
	}
	return []domain.DeadLetter{{
		SystemID: system, EventID: "e1", Position: domain.Position{Ms: 7, N: 1}, Type: domain.TypeConnectionStarted, Node: "n1", Tries: limit,
		Error: "not now", Time: start,
	}}, nil
}

func TestDeadLetters(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.send(domain.RoleStaff, "GET", "/api/v1/dead-letters?systemId=clinica-sol&limit=3")
	b.want(r, 200, "")
	letter, _ := r.body["deadLetters"].([]any)[0].(map[string]any)
	if letter["systemId"] != "clinica-sol" || letter["position"] != "7-1" || letter["tries"] != 3.0 || letter["error"] != "not now" {
		t.Errorf("got %s", r.raw)
	}
	if r := b.send(domain.RoleStaff, "GET", "/api/v1/dead-letters"); r.body["deadLetters"].([]any)[0].(map[string]any)["tries"] != 100.0 {
		t.Errorf("got %s", r.raw)
	}
	b.want(b.send(domain.RoleStaff, "GET", "/api/v1/dead-letters?systemId=broken"), 503, domain.CodeUnavailable)
	b.want(b.send(domain.RoleStaff, "GET", "/api/v1/dead-letters?systemId=a/b"), 400, domain.CodeInvalidSystemID)
	b.want(b.send(domain.RoleStaff, "GET", "/api/v1/dead-letters?limit=1001"), 400, CodeInvalidRequest)
	for _, role := range []domain.Role{domain.RoleAdmin, domain.RoleAuditor, domain.RoleService} {
		b.want(b.send(role, "GET", "/api/v1/dead-letters?systemId=clinica-sol"), 403, domain.CodeForbidden)
	}
}
