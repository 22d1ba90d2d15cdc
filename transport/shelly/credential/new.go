package credential

import (
	"context"

	"github.com/plugcast/plugcast/domain"
)

// CodeNoSecretKey says that a credential would have to be sealed and that there is no
// key to seal it with.
const CodeNoSecretKey domain.Code = "no-secret-key"

// Request is what a new credential is made of.
type Request struct {
	System       domain.SystemID
	ConnectionID domain.ConnectionID
	Kind         domain.ConnectionKind
	AuthCode     Secret // of a [domain.ConnectionShellyCloud]
}

// New is a new credential of one connection. It is for one goroutine.
type New interface {
	// Keep puts it in the place of what was kept when it was made; once it is kept
	// it stays, however often it is called. Errors: [domain.CodeContention] when
	// something else is kept by now.
	Keep(ctx context.Context) error
	// Undo puts back what was kept before, if this is kept.
	Undo(ctx context.Context) error
	// DialInKey is the key that devices dial in with, or "". It can be had nowhere
	// else.
	DialInKey() string
}
