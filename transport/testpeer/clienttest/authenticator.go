package clienttest

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"github.com/plugcast/plugcast/domain"
)

// Authenticator reads the owner of a token from the token: "subject:system,system" is
// a viewer, and staff if the subject is "staff". The keys cannot be read for the token
// "broken". It is safe for concurrent use.
type Authenticator struct {
	Guest string // the token of clients that have none; "" refuses them

	mu    sync.Mutex
	named map[string]domain.Actor
}

// Name gives an actor a token of its own.
func (a *Authenticator) Name(token string, actor domain.Actor) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.named == nil {
		a.named = map[string]domain.Actor{}
	}
	a.named[token] = actor
}

// Verify returns the owner of a token.
func (a *Authenticator) Verify(_ context.Context, token string) (domain.Actor, error) {
	if token == "" {
		token = a.Guest
	}
	a.mu.Lock()
	actor, ok := a.named[token]
	a.mu.Unlock()
	if ok {
		return actor, nil
	}
	subject, systems, ok := strings.Cut(token, ":")
	switch {
	case token == "broken":
		return actor, errors.New("the keys cannot be read")
	case token == "banned":
		return actor, domain.Fail(domain.KindForbidden, domain.CodeForbidden, "this subject is kept out")
	case !ok:
		return actor, domain.Fail(domain.KindUnauthenticated, "token-invalid", "this is no token")
	}
	actor = domain.Actor{Subject: subject, Role: domain.RoleViewer, ExpiresAt: time.Now().Add(24 * time.Hour)}
	if subject == "staff" {
		actor.Role = domain.RoleStaff
	}
	for name := range strings.SplitSeq(systems, ",") {
		actor.Systems = append(actor.Systems, domain.SystemID(name))
	}
	return actor, nil
}

// Authenticate finds the token in the header or among the subprotocols. A token in the
// URL is refused.
func (a *Authenticator) Authenticate(ctx context.Context, r *http.Request) (domain.Actor, error) {
	if r.URL.Query().Has("token") {
		return domain.Actor{}, domain.Fail(domain.KindUnauthenticated, "token-invalid", "a token in a URL")
	}
	token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	for _, offered := range websocket.Subprotocols(r) {
		if t, ok := strings.CutPrefix(offered, "bearer."); ok {
			token = t
		}
	}
	if token == "" && a.Guest == "" {
		return domain.Actor{}, domain.Fail(domain.KindUnauthenticated, "token-missing", "send a token")
	}
	return a.Verify(ctx, token)
}

// AuthenticateStream is Authenticate: there are no tickets of streams.
func (a *Authenticator) AuthenticateStream(ctx context.Context, r *http.Request, _ domain.SystemID) (domain.Actor, error) {
	return a.Authenticate(ctx, r)
}
