// Package auth turns the credential of a request, a token or a ticket, into a
// [domain.Actor]. Every face uses it; no other package authenticates clients.
//
// Tokens are JSON Web Tokens, signed with a shared secret (HS256) or with a key
// of a JWKS. The configuration decides which algorithms are accepted; the token
// does not. No error and no log line contains a token or a ticket.
package auth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/plugcast/plugcast/domain"
)

// The codes of a refused credential. All are of [domain.KindUnauthenticated].
const (
	CodeTokenMissing  domain.Code = "token-missing"
	CodeTokenInvalid  domain.Code = "token-invalid"
	CodeTokenExpired  domain.Code = "token-expired"
	CodeTicketInvalid domain.Code = "ticket-invalid"
)

// MinSecret is the least length of an HS256 secret in bytes: shorter ones can
// be guessed offline from a single token.
const MinSecret = 32

// leeway is how far the signer's clock may be ahead of ours. It applies to the
// start of a token (nbf). The expiry has no leeway, on any face.
const leeway = 30 * time.Second

// Config says which tokens are accepted. Exactly one of Secret and JWKSURL is set.
type Config struct {
	Secret   []byte // HS256; at least MinSecret bytes
	JWKSURL  string // https, or http on a loopback address
	Issuer   string // the required iss; empty accepts any
	Audience string // must be among aud; empty accepts any
}

// Validate reports the first error of the configuration, in one line.
func (c Config) Validate() error {
	switch {
	case len(c.Secret) == 0 && c.JWKSURL == "":
		return errors.New("auth: a JWT secret or a JWKS URL is needed (PLUGCAST_JWT_SECRET, PLUGCAST_JWKS_URL)")
	case len(c.Secret) != 0 && c.JWKSURL != "":
		return errors.New("auth: a JWT secret and a JWKS URL exclude each other (PLUGCAST_JWT_SECRET, PLUGCAST_JWKS_URL)")
	case c.JWKSURL != "":
		return checkKeySetURL(c.JWKSURL)
	default:
		return checkSecret(c.Secret)
	}
}

func checkSecret(secret []byte) error {
	if len(secret) < MinSecret {
		return fmt.Errorf("auth: the JWT secret has %d bytes and needs at least %d (PLUGCAST_JWT_SECRET)", len(secret), MinSecret)
	}
	return nil
}

// Tickets issues credentials that may appear in a URL. One kind is valid for a single
// use, so it is worthless afterwards. The other is valid for one event stream, so it
// grants nothing else.
type Tickets interface {
	// Issue makes a ticket that represents the actor until expires.
	Issue(ctx context.Context, actor domain.Actor) (ticket string, expires time.Time, err error)
	// Redeem returns the actor of a ticket, once. ok is false for a ticket that is
	// unknown, used or expired.
	Redeem(ctx context.Context, ticket string) (actor domain.Actor, ok bool, err error)
	// IssueStream makes a ticket for the event stream of one system. It is valid until
	// the actor's token expires.
	IssueStream(ctx context.Context, actor domain.Actor, system domain.SystemID) (ticket string, expires time.Time, err error)
	// Stream returns the actor of a stream's ticket, any number of times. ok is false for
	// a ticket that is unknown, expired, or for another stream.
	Stream(ctx context.Context, ticket string, system domain.SystemID) (actor domain.Actor, ok bool, err error)
}

// Authenticator authenticates clients. It is safe for concurrent use. Its errors are
// each a [domain.Error] that the client may see.
type Authenticator interface {
	// Authenticate checks the headers, the subprotocols and the ticket of a request.
	Authenticate(ctx context.Context, r *http.Request) (domain.Actor, error)
	// AuthenticateStream is Authenticate for a request for the event stream of a
	// system. It also accepts tickets for that stream.
	AuthenticateStream(ctx context.Context, r *http.Request, system domain.SystemID) (domain.Actor, error)
	// Verify checks a token.
	Verify(ctx context.Context, token string) (domain.Actor, error)
}

// Verifier is the [Authenticator] that verifies tokens and redeems tickets.
type Verifier struct {
	parser    *jwt.Parser // checks the signature only
	validator *jwt.Validator
	key       func(ctx context.Context) jwt.Keyfunc
	keys      *keySet // nil with a secret
	tickets   Tickets
}

// New makes a Verifier. With a JWKS, [Verifier.Run] has to run: it refreshes the keys.
// With nil tickets, no ticket is valid.
func New(c Config, tickets Tickets, log *slog.Logger) (*Verifier, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	a := &Verifier{tickets: tickets}
	algorithms := []string{jwt.SigningMethodHS256.Alg()}
	if c.JWKSURL == "" {
		a.key = func(context.Context) jwt.Keyfunc {
			return func(*jwt.Token) (any, error) { return c.Secret, nil }
		}
	} else {
		a.keys = newKeySet(c.JWKSURL, log)
		algorithms, a.key = asymmetric, a.keys.keyfunc
	}
	options := []jwt.ParserOption{jwt.WithExpirationRequired(), jwt.WithLeeway(leeway)}
	if c.Issuer != "" {
		options = append(options, jwt.WithIssuer(c.Issuer))
	}
	if c.Audience != "" {
		options = append(options, jwt.WithAudience(c.Audience))
	}
	a.parser = jwt.NewParser(jwt.WithValidMethods(algorithms), jwt.WithStrictDecoding(), jwt.WithoutClaimsValidation())
	a.validator = jwt.NewValidator(options...)
	return a, nil
}

// Run refreshes the keys of a JWKS until ctx ends, and then returns nil. With a secret
// it only waits for ctx.
func (a *Verifier) Run(ctx context.Context) error {
	if a.keys == nil {
		<-ctx.Done()
		return nil
	}
	return a.keys.run(ctx)
}

// Authenticate implements [Authenticator]. Its errors have one of the codes above, or
// [domain.KindUnavailable] when it cannot look up the keys or the ticket.
func (a *Verifier) Authenticate(ctx context.Context, r *http.Request) (domain.Actor, error) {
	shown, err := credentialOf(r)
	switch {
	case err != nil:
		return domain.Actor{}, err
	case shown.ticket != "":
		return a.redeem(ctx, shown.ticket)
	case shown.token != "":
		return a.Verify(ctx, shown.token)
	default:
		return domain.Actor{}, refuse(CodeTokenMissing, "send a token in Authorization: Bearer")
	}
}

// AuthenticateStream implements [Authenticator]. A ticket for the stream stays valid,
// so that the reader can reconnect with it.
func (a *Verifier) AuthenticateStream(ctx context.Context, r *http.Request, system domain.SystemID) (domain.Actor, error) {
	shown, err := credentialOf(r)
	if err == nil && shown.ticket != "" && len(shown.ticket) <= maxTicket && a.tickets != nil {
		actor, ok, err := a.tickets.Stream(ctx, shown.ticket, system)
		switch {
		case err != nil:
			return domain.Actor{}, domain.Fail(domain.KindUnavailable, domain.CodeUnavailable,
				"the ticket cannot be checked now; connect again").WithCause(fmt.Errorf("auth: ticket of a stream: %w", err))
		case ok && actor.ExpiresAt.After(time.Now()):
			return actor, nil
		case ok:
			return domain.Actor{}, refuse(CodeTokenExpired, expiredTicket)
		}
	}
	return a.Authenticate(ctx, r)
}

func (a *Verifier) redeem(ctx context.Context, ticket string) (domain.Actor, error) {
	if a.tickets == nil || len(ticket) > maxTicket {
		return domain.Actor{}, refuse(CodeTicketInvalid, invalidTicket)
	}
	actor, ok, err := a.tickets.Redeem(ctx, ticket)
	switch {
	case err != nil:
		return domain.Actor{}, domain.Fail(domain.KindUnavailable, domain.CodeUnavailable,
			"the ticket cannot be checked now; get another one").WithCause(fmt.Errorf("auth: redeem ticket: %w", err))
	case !ok:
		return domain.Actor{}, refuse(CodeTicketInvalid, invalidTicket)
	case !actor.ExpiresAt.After(time.Now()):
		return domain.Actor{}, refuse(CodeTokenExpired, expiredTicket)
	}
	return actor, nil
}

const (
	maxTicket     = 2048 // bytes; a stream's ticket contains its actor and system
	invalidTicket = "the ticket is unknown, used or expired"
	expiredTicket = "the token behind the ticket has expired"
)

func refuse(code domain.Code, detail string) *domain.Error {
	return domain.Fail(domain.KindUnauthenticated, code, detail)
}
