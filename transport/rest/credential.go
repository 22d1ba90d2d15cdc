package rest

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/shelly/credential"
)

// Credentials is where the secrets of connections are kept. No event and no read
// has any of them.
type Credentials interface {
	// Make readies a new credential and keeps nothing yet: it only notes what is
	// kept now. Errors: [credential.CodeNoSecretKey] when it would have to be sealed and there
	// is no key for that, [domain.CodeInvalidCommand] when it is none. No error
	// shows any of it.
	Make(ctx context.Context, r credential.Request) (credential.New, error)
	// Removal readies the removal of what is kept for a connection now. Calling the
	// answer does nothing when something else is kept by then.
	Removal(ctx context.Context, system domain.SystemID, id domain.ConnectionID) (func(context.Context) error, error)
}

// SecretText is a text in a request that is not to be seen in logs and errors.
type SecretText string

// Format implements [fmt.Formatter].
func (SecretText) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("[secret]")) }

// LogValue implements [slog.LogValuer].
func (SecretText) LogValue() slog.Value { return slog.StringValue("[secret]") }

// credentialTime is how long putting back or removing may take, also when the
// caller is gone.
const credentialTime = 5 * time.Second

// withCredential runs a command that a new credential goes with. The credential
// is kept right before the events are appended: what the old one let in is told
// to go by those events, and nothing comes in by it again. If the process dies in
// between, what is kept is for a connection that does not exist, which lets nobody
// in and is replaced by the next attempt; or it is a key that nobody knows, and
// the caller, who got no answer, asks again.
//
// When the command is refused, or was a repeat, what was kept before is put back.
// When its outcome is unknown it is not: the old credential may have been declared
// void.
func (a *API) withCredential(ctx context.Context, c credential.Request, r domain.Request,
	command func(domain.Request) (domain.Receipt, error),
) (receipt domain.Receipt, dialInKey string, err error) {
	made, err := a.credentials.Make(ctx, c)
	if err != nil {
		return domain.Receipt{}, "", err
	}
	r.BeforeAppend = made.Keep
	receipt, err = command(r)
	switch {
	case err == nil && !receipt.Replayed:
		return receipt, made.DialInKey(), nil
	case domain.HasCode(err, domain.CodeUnknownOutcome):
		return receipt, "", err
	}
	undoing, cancel := context.WithTimeout(context.WithoutCancel(ctx), credentialTime)
	defer cancel()
	if undo := made.Undo(undoing); undo != nil {
		a.log.WarnContext(ctx, "a credential could not be put back; the connection needs a new one", "requestId", requestID(ctx),
			"systemId", c.System, "connectionId", c.ConnectionID, "error", undo)
	}
	return receipt, "", err
}

// Reached is part of the input of operations whose answer says how to reach this
// server.
type Reached struct {
	at url.URL
}

// Resolve implements [huma.Resolver].
func (in *Reached) Resolve(ctx huma.Context) []error {
	in.at = url.URL{Scheme: "http", Host: ctx.Host()}
	if ctx.TLS() != nil {
		in.at.Scheme = "https"
	}
	return nil
}

// dialInURL is where devices of a connection dial in. It is "" without a key.
func (a *API) dialInURL(in *Reached, id domain.ConnectionID, key string) string {
	if key == "" {
		return ""
	}
	base := in.at
	if a.publicURL != nil {
		base = *a.publicURL
	}
	base.Scheme = map[string]string{"http": "ws", "https": "wss"}[base.Scheme]
	return base.JoinPath("shelly", string(id), key).String()
}
