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

// Credentials stores the secrets of connections. No event and no read contains them.
type Credentials interface {
	// Make prepares a new credential without storing it, and notes the stored one.
	// Errors: [credential.CodeNoSecretKey] if the credential must be sealed and the
	// server has no key for that, [domain.CodeInvalidCommand] if it is malformed. No
	// error contains a part of a secret.
	Make(ctx context.Context, r credential.Request) (credential.New, error)
	// Removal prepares the removal of the credential that is stored for a connection
	// now. The returned function does nothing if another one is stored by then.
	Removal(ctx context.Context, system domain.SystemID, id domain.ConnectionID) (func(context.Context) error, error)
}

// SecretText is a text in a request that never appears in logs and errors.
type SecretText string

// Format implements [fmt.Formatter].
func (SecretText) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("[secret]")) }

// LogValue implements [slog.LogValuer].
func (SecretText) LogValue() slog.Value { return slog.StringValue("[secret]") }

// credentialTime bounds the restoring and removing of a credential, which go on when
// the caller is gone.
const credentialTime = 5 * time.Second

// withCredential runs a command with a new credential. It stores the credential right
// before the events are appended: those events drop the sockets that used the old
// credential, and no new socket can use it. If the process dies in between, the stored
// credential belongs to a connection that does not exist, so it admits no device and
// the next attempt replaces it; or it is a key that nobody knows, and the caller, who
// got no answer, rotates the key once more.
//
// If the command is refused, or is a repeat, withCredential restores the former
// credential. If the outcome is unknown it does not, because the events may have
// revoked the former credential.
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
		a.log.WarnContext(ctx, "could not restore a credential; the connection needs a new one", "requestId", requestID(ctx),
			"systemId", c.System, "connectionId", c.ConnectionID, "error", undo)
	}
	return receipt, "", err
}

// CallerURL is part of the input of operations whose answer contains a URL of this
// server. It holds the URL at which the caller reached the server.
type CallerURL struct {
	base url.URL
}

// Resolve implements [huma.Resolver].
func (in *CallerURL) Resolve(ctx huma.Context) []error {
	in.base = url.URL{Scheme: "http", Host: ctx.Host()}
	if ctx.TLS() != nil {
		in.base.Scheme = "https"
	}
	return nil
}

// dialInURL returns the URL at which devices of a connection dial in, or "" without a
// key.
func (a *API) dialInURL(in *CallerURL, id domain.ConnectionID, key string) string {
	if key == "" {
		return ""
	}
	base := in.base
	if a.publicURL != nil {
		base = *a.publicURL
	}
	base.Scheme = map[string]string{"http": "ws", "https": "wss"}[base.Scheme]
	return base.JoinPath("shelly", string(id), key).String()
}
