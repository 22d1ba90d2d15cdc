// Package auth turns what a caller shows, a token or a ticket, into a
// [domain.Actor]. Every face uses it and nothing else decides who somebody is.
//
// Tokens are JSON Web Tokens, signed with a shared secret (HS256) or with a key
// of a JWKS. Which algorithms are accepted follows from the configuration and
// never from the token. Tokens and tickets are in no error and in no log.
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

// leeway is how far the clock of whoever signs may be ahead of ours, for the
// beginning of a token. Its end is sharp, on every face alike.
const leeway = 30 * time.Second

// Config says which tokens are accepted. One of Secret and JWKSURL is set.
type Config struct {
	Secret   []byte // HS256; at least MinSecret bytes
	JWKSURL  string // https, or http on a loopback address
	Issuer   string // demanded as iss, unless empty
	Audience string // demanded in aud, unless empty
}

// Validate says in one line what is wrong with the configuration.
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

// Tickets gives out credentials that may stand in a URL: for one use, because they
// are worth nothing afterwards, or for one event stream, because they open nothing
// else.
type Tickets interface {
	// Issue makes a ticket that stands for the actor until expires.
	Issue(ctx context.Context, actor domain.Actor) (ticket string, expires time.Time, err error)
	// Redeem gives the actor of a ticket, once. ok is false for a ticket that is
	// unknown, used or too old.
	Redeem(ctx context.Context, ticket string) (actor domain.Actor, ok bool, err error)
	// IssueStream makes a ticket for the event stream of one system, good until the
	// actor's authority ends.
	IssueStream(ctx context.Context, actor domain.Actor, system domain.SystemID) (ticket string, expires time.Time, err error)
	// Stream gives the actor of such a ticket, any number of times. ok is false for a
	// ticket that is unknown, too old, or another stream's.
	Stream(ctx context.Context, ticket string, system domain.SystemID) (actor domain.Actor, ok bool, err error)
}

// Authenticator tells who somebody is. It is safe for concurrent use. Its errors are a
// [domain.Error], which the client is shown.
type Authenticator interface {
	// Authenticate looks at a request: its headers, its subprotocols, its ticket.
	Authenticate(ctx context.Context, r *http.Request) (domain.Actor, error)
	// AuthenticateStream is Authenticate for a request for the event stream of a
	// system, which may have a ticket of its own.
	AuthenticateStream(ctx context.Context, r *http.Request, system domain.SystemID) (domain.Actor, error)
	// Verify looks at a token.
	Verify(ctx context.Context, token string) (domain.Actor, error)
}

// Verifier is the [Authenticator] that verifies tokens and redeems tickets.
type Verifier struct {
	parser    *jwt.Parser // of the signature alone
	validator *jwt.Validator
	key       func(ctx context.Context) jwt.Keyfunc
	keys      *keySet // nil with a secret
	tickets   Tickets
}

// New makes a Verifier. With a JWKS, [Verifier.Run] keeps the keys
// fresh. tickets may be nil: then no ticket is valid.
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

// Run fetches the keys of a JWKS now and again until ctx ends, and returns when
// it does. With a secret there is nothing to fetch.
func (a *Verifier) Run(ctx context.Context) error {
	if a.keys == nil {
		<-ctx.Done()
		return nil
	}
	return a.keys.run(ctx)
}

// Authenticate tells who sent the request. Errors are a [domain.Error] with one
// of the codes above, or of [domain.KindUnavailable] when the keys or the
// tickets cannot be looked up.
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

// AuthenticateStream is [Verifier.Authenticate] for a request for the event
// stream of a system. It also takes a ticket that was made for that stream, which is
// good again when the reader reconnects.
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
			return domain.Actor{}, refuse(CodeTokenExpired, "the token that the ticket was made with has expired")
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
		return domain.Actor{}, refuse(CodeTokenExpired, "the token that the ticket was made with has expired")
	}
	return actor, nil
}

const (
	maxTicket     = 2048 // bytes; one of a stream has in it what it stands for
	invalidTicket = "the ticket is unknown, was used before or is too old"
)

func refuse(code domain.Code, detail string) *domain.Error {
	return domain.Fail(domain.KindUnauthenticated, code, detail)
}
