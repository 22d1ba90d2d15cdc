package auth

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/plugcast/plugcast/domain"
)

// maxToken bounds a token, in bytes.
const maxToken = 16 << 10

// Verify implements [Authenticator], with the errors of [Verifier.Authenticate].
func (a *Verifier) Verify(ctx context.Context, token string) (domain.Actor, error) {
	if token == "" {
		return domain.Actor{}, refuse(CodeTokenMissing, "the token is empty")
	}
	if len(token) > maxToken {
		return domain.Actor{}, refuse(CodeTokenInvalid, "the token is too long")
	}
	if err := checkHeader(token); err != nil {
		return domain.Actor{}, err
	}
	var text payload
	if _, err := a.parser.ParseWithClaims(token, &text, a.key(ctx)); err != nil {
		return domain.Actor{}, explain(err)
	}
	// The signature is valid, so the claims are the signer's.
	now := time.Now()
	c, err := parseClaims(text.json, now)
	if err != nil {
		return domain.Actor{}, err
	}
	if err := a.validator.Validate(c); err != nil {
		return domain.Actor{}, explain(err)
	}
	actor, err := c.actor()
	if err == nil && !actor.ExpiresAt.After(now) {
		return domain.Actor{}, refuse(CodeTokenExpired, "the token has expired")
	}
	return actor, err
}

// explain converts an error of the parser. It uses texts of its own, because the
// parser's may quote the token.
func explain(err error) error {
	var own *domain.Error
	switch {
	case errors.As(err, &own):
		return own
	case errors.Is(err, jwt.ErrTokenMalformed):
		return refuse(CodeTokenInvalid, "the token is not a JSON Web Token with the claims sub, systems, role and exp")
	case errors.Is(err, jwt.ErrTokenUnverifiable), errors.Is(err, jwt.ErrTokenSignatureInvalid):
		return refuse(CodeTokenInvalid, "the token is not signed with a key and an algorithm that this server accepts")
	case errors.Is(err, jwt.ErrTokenExpired):
		return refuse(CodeTokenExpired, "the token has expired")
	case errors.Is(err, jwt.ErrTokenNotValidYet):
		return refuse(CodeTokenInvalid, "the token is not valid yet (nbf)")
	case errors.Is(err, jwt.ErrTokenInvalidIssuer):
		return refuse(CodeTokenInvalid, "the token is from another issuer (iss)")
	case errors.Is(err, jwt.ErrTokenInvalidAudience):
		return refuse(CodeTokenInvalid, "the token is for another audience (aud)")
	case errors.Is(err, jwt.ErrTokenRequiredClaimMissing):
		return refuse(CodeTokenInvalid, "the token lacks a required claim: exp, iss or aud")
	default:
		return refuse(CodeTokenInvalid, "the token is not valid")
	}
}

// Sign makes a token, for `plugcast token`. [Verifier.Verify] with the same
// configuration turns it back into the actor. The configuration needs a secret.
func (c Config) Sign(actor domain.Actor, now time.Time) (string, error) {
	if err := checkSecret(c.Secret); err != nil {
		return "", err
	}
	expires := jwt.NewNumericDate(actor.ExpiresAt) // in whole seconds
	if !expires.After(now) {
		return "", errors.New("auth: sign token: it would expire at once")
	}
	if expires.After(latest(now)) {
		return "", errors.New("auth: sign token: it would be valid for more than a hundred years")
	}
	said := claims{Role: actor.Role, RegisteredClaims: jwt.RegisteredClaims{
		Subject: actor.Subject, Issuer: c.Issuer,
		IssuedAt: jwt.NewNumericDate(now), ExpiresAt: expires,
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
