package auth

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/golang-jwt/jwt/v5"

	"github.com/plugcast/plugcast/domain"
)

// claims is what a token says. SystemID is an older, shorter way to name a
// single system.
type claims struct {
	Systems  []string    `json:"systems,omitempty"`
	SystemID string      `json:"systemId,omitempty"`
	Role     domain.Role `json:"role,omitempty"`
	jwt.RegisteredClaims
}

// everySystem among a token's systems stands for all of them.
const everySystem = "*"

// Bounds on what a token may hold.
const (
	maxToken   = 16 << 10 // bytes
	maxSubject = 128      // bytes; it is written to every event that the subject causes
)

// Verify tells whom a token stands for. Errors: as
// [Authenticator.Authenticate].
func (a *Authenticator) Verify(ctx context.Context, token string) (domain.Actor, error) {
	if token == "" {
		return domain.Actor{}, refuse(CodeTokenMissing, "the token is empty")
	}
	if len(token) > maxToken {
		return domain.Actor{}, refuse(CodeTokenInvalid, "the token is too long")
	}
	var c claims
	if _, err := a.parser.ParseWithClaims(token, &c, a.key(ctx)); err != nil {
		return domain.Actor{}, explain(err)
	}
	actor, err := c.actor()
	if err == nil && !actor.ExpiresAt.After(time.Now()) {
		return domain.Actor{}, refuse(CodeTokenExpired, "the token has expired")
	}
	return actor, err
}

// explain says what is wrong with a token in words of ours: the parser's own
// may quote the token.
func explain(err error) error {
	var own *domain.Error
	switch {
	case errors.As(err, &own):
		return own
	case errors.Is(err, jwt.ErrTokenMalformed):
		return refuse(CodeTokenInvalid, "the token is not a JSON Web Token with the claims sub, systems, role and exp")
	case errors.Is(err, jwt.ErrTokenUnverifiable), errors.Is(err, jwt.ErrTokenSignatureInvalid):
		return refuse(CodeTokenInvalid, "the token is not signed with a key and an algorithm that are accepted here")
	// Only now are the claims known to be the signer's.
	case errors.Is(err, jwt.ErrTokenExpired):
		return refuse(CodeTokenExpired, "the token has expired")
	case errors.Is(err, jwt.ErrTokenNotValidYet):
		return refuse(CodeTokenInvalid, "the token is not valid yet (nbf)")
	case errors.Is(err, jwt.ErrTokenInvalidIssuer):
		return refuse(CodeTokenInvalid, "the token is from another issuer (iss)")
	case errors.Is(err, jwt.ErrTokenInvalidAudience):
		return refuse(CodeTokenInvalid, "the token is for another audience (aud)")
	case errors.Is(err, jwt.ErrTokenRequiredClaimMissing):
		return refuse(CodeTokenInvalid, "the token lacks a claim that is demanded: exp, iss or aud")
	default:
		return refuse(CodeTokenInvalid, "the token is not valid")
	}
}

// actor checks the claims that are ours.
func (c *claims) actor() (domain.Actor, error) {
	if err := checkSubject(c.Subject); err != nil {
		return domain.Actor{}, err
	}
	if !c.Role.Valid() {
		return domain.Actor{}, refuse(CodeTokenInvalid, fmt.Sprintf("the token's role must be one of %v", domain.Roles()))
	}
	actor := domain.Actor{Subject: c.Subject, Role: c.Role, ExpiresAt: c.ExpiresAt.Time}
	names := c.Systems
	if c.SystemID != "" {
		names = append(slices.Clip(names), c.SystemID)
	}
	for _, name := range names {
		if name == everySystem {
			actor.AllSystems = true
			continue
		}
		system, err := domain.ParseSystemID(name)
		if err != nil {
			return domain.Actor{}, refuse(CodeTokenInvalid, "a system of the token is not 1 to 64 characters of A-Z a-z 0-9 . _ -")
		}
		if !slices.Contains(actor.Systems, system) {
			actor.Systems = append(actor.Systems, system)
		}
	}
	if len(names) == 0 && c.Role != domain.RoleStaff {
		return domain.Actor{}, refuse(CodeTokenInvalid, "the token names no system (systems)")
	}
	return actor, nil
}

func checkSubject(sub string) error {
	switch {
	case sub == "":
		return refuse(CodeTokenInvalid, "the token says nobody (sub)")
	case len(sub) > maxSubject, !utf8.ValidString(sub), slices.ContainsFunc([]rune(sub), unicode.IsControl):
		return refuse(CodeTokenInvalid, fmt.Sprintf("the token's sub must be at most %d bytes of printable text", maxSubject))
	default:
		return nil
	}
}

// Sign makes the token that [Authenticator.Verify] of the same configuration
// turns into the actor again. The configuration needs a secret. It is what
// `plugcast token` prints.
func (c Config) Sign(actor domain.Actor, now time.Time) (string, error) {
	if err := checkSecret(c.Secret); err != nil {
		return "", err
	}
	if !actor.ExpiresAt.After(now) {
		return "", errors.New("auth: sign token: it would be expired at once")
	}
	said := claims{Role: actor.Role, RegisteredClaims: jwt.RegisteredClaims{
		Subject: actor.Subject, Issuer: c.Issuer,
		IssuedAt: jwt.NewNumericDate(now), ExpiresAt: jwt.NewNumericDate(actor.ExpiresAt),
	}}
	if c.Audience != "" {
		said.Audience = jwt.ClaimStrings{c.Audience}
	}
	if actor.AllSystems {
		said.Systems = []string{everySystem}
	} else {
		for _, system := range actor.Systems {
			said.Systems = append(said.Systems, string(system))
		}
	}
	if _, err := said.actor(); err != nil {
		return "", fmt.Errorf("auth: sign token: %w", err)
	}
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, &said).SignedString(c.Secret)
	if err != nil {
		return "", fmt.Errorf("auth: sign token: %w", err)
	}
	return token, nil
}
