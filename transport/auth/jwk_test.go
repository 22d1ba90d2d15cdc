package auth

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"

	"github.com/plugcast/plugcast/domain"
)

// member writes a key as a member of a key set, with additional members.
func member(t *testing.T, public crypto.PublicKey, kid string, change map[string]any) string {
	t.Helper()
	jwk, err := jwkset.NewJWKFromKey(public, jwkset.JWKOptions{Metadata: jwkset.JWKMetadataOptions{KID: kid}})
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(jwk.Marshal())
	if err != nil {
		t.Fatal(err)
	}
	members := map[string]any{}
	if err := json.Unmarshal(text, &members); err != nil {
		t.Fatal(err)
	}
	for name, value := range change {
		if members[name] = value; value == nil {
			delete(members, name)
		}
	}
	if text, err = json.Marshal(members); err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func keySetOf(members ...string) string { return `{"keys":[` + strings.Join(members, ",") + `]}` }

// textProvider serves a key set as the given text.
func textProvider(t *testing.T, text func() string, log *slog.Logger) *Verifier {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(text())) }))
	t.Cleanup(server.Close)
	a, err := New(Config{JWKSURL: server.URL}, nil, log)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// One unusable member does not affect the other keys, and members that verification does
// not need make no key unusable.
func TestMembersOfAKeySet(t *testing.T) {
	t.Parallel()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	n := base64.RawURLEncoding.EncodeToString(key.N.Bytes())
	anothers := base64.RawURLEncoding.EncodeToString(append([]byte{key.N.Bytes()[0] ^ 0x40}, key.N.Bytes()[1:]...))
	padded := base64.URLEncoding.EncodeToString(key.N.Bytes())
	for name, c := range map[string]struct {
		change map[string]any
		usable bool
		warned bool
	}{
		"nothing else":         {nil, true, false},
		"sig":                  {map[string]any{"use": "sig", "alg": "RS256", "key_ops": []any{"verify"}}, true, false},
		"x5t in hex":           {map[string]any{"x5t": "9F86D081884C7D659A2FEAA0C55AD015A3BF4F1B"}, true, false},
		"x5t of no type":       {map[string]any{"x5t": 7, "x5t#S256": []int{1}}, true, false},
		"bad certificate":      {map[string]any{"x5c": []any{"MIIB"}, "x5t": "x"}, true, false},
		"certificate no list":  {map[string]any{"x5c": "MIIB", "x5u": "http://10.0.0.1/"}, true, false},
		"more operations":      {map[string]any{"key_ops": []any{"verify", "vendor:attest", 7}}, true, false},
		"padded":               {map[string]any{"n": padded}, true, false},
		"unknown member":       {map[string]any{"exp": "tomorrow", "nbf": map[string]any{}}, true, false},
		"private members":      {map[string]any{"d": "AQAB", "p": "!"}, true, false},
		"null use":             {map[string]any{"use": json.RawMessage("null"), "key_ops": json.RawMessage(`["verify"]`)}, true, false},
		"enc":                  {map[string]any{"use": "enc"}, false, false},
		"unknown use":          {map[string]any{"use": "attest"}, false, false},
		"use of other case":    {map[string]any{"use": "SIG"}, false, false},
		"sign alone":           {map[string]any{"key_ops": []any{"sign"}}, false, false},
		"unknown operations":   {map[string]any{"key_ops": []any{"vendor:attest"}}, false, false},
		"no operations":        {map[string]any{"key_ops": []any{}}, false, false},
		"operations no list":   {map[string]any{"key_ops": "verify"}, false, true},
		"encryption algorithm": {map[string]any{"alg": "RSA-OAEP"}, false, false},
		"HMAC":                 {map[string]any{"alg": "HS256"}, false, false},
		"other key's alg":      {map[string]any{"alg": "ES256"}, false, true},
		"alg a number":         {map[string]any{"alg": 1}, false, true},
		"unknown kty":          {map[string]any{"kty": "PQC"}, false, true},
		"kty of other case":    {map[string]any{"kty": "rsa"}, false, true},
		"no kty":               {map[string]any{"kty": nil}, false, true},
		"kid a number":         {map[string]any{"kid": 1}, false, true},
		"no modulus":           {map[string]any{"n": nil}, false, true},
		"modulus no base64":    {map[string]any{"n": "***"}, false, true},
		"short modulus":        {map[string]any{"n": base64.RawURLEncoding.EncodeToString(key.N.Bytes()[:128])}, false, true},
		"modulus a number":     {map[string]any{"n": 1}, false, true},
		"another's modulus":    {map[string]any{"N": n, "n": anothers}, false, false},
	} {
		other := "other"
		var log bytes.Buffer
		text := keySetOf(member(t, key.Public(), "k1", c.change), `{"kty":"oct","k":"AAAA"}`, member(t, curve.Public(), other, nil))
		a := textProvider(t, func() string { return text }, slog.New(slog.NewTextHandler(&log, nil)))
		if _, err := a.Verify(t.Context(), signWith(t, jwt.SigningMethodES256, curve, other)); err != nil {
			t.Errorf("%s: the other key: %v", name, err)
		}
		_, err := a.Verify(t.Context(), signWith(t, jwt.SigningMethodRS256, key, "k1"))
		if c.usable && err != nil || !c.usable && !domain.HasCode(err, CodeTokenInvalid) {
			t.Errorf("%s: usable should be %v: %v", name, c.usable, err)
		}
		if warned := strings.Contains(log.String(), "skipped unusable"); warned != c.warned {
			t.Errorf("%s: warned should be %v: %s", name, c.warned, log.String())
		}
		if strings.Contains(log.String(), "level=ERROR") {
			t.Errorf("%s: %s", name, log.String())
		}
	}
}

// Members that are not objects, or that two readers may read differently, are skipped
// alone as well.
func TestMembersOfAKeySetThatAreNone(t *testing.T) {
	t.Parallel()
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	good := member(t, public, "k1", nil)
	for name, bad := range map[string]string{
		"null": "null", "a number": "7", "a string": `"x"`, "a list": "[]", "an empty object": "{}",
		"twice": `{"kty":"OKP","kty":"RSA"}`, "a deep one": `{"kty":` + strings.Repeat("[", 500) + strings.Repeat("]", 500) + `}`,
		"off the curve":    `{"kty":"EC","crv":"P-256","x":"AAAA","y":"AAAA"}`,
		"unknown curve":    `{"kty":"EC","crv":"secp256k1","x":"AAAA","y":"AAAA"}`,
		"Ed448":            `{"kty":"OKP","crv":"Ed448","x":"AAAA"}`,
		"short":            `{"kty":"OKP","crv":"Ed25519","x":"AAAA"}`,
		"empty exponent":   `{"kty":"RSA","n":"AQAB","e":""}`,
		"huge exponent":    `{"kty":"RSA","n":"AQAB","e":"` + strings.Repeat("_", 400) + `"}`,
		"nothing to it":    `{"kty":"RSA","n":"","e":"AQAB"}`,
		"control in a kid": `{"kid":"a\u0000\u001b[2J","kty":"RSA"}`,
	} {
		var log bytes.Buffer
		a := textProvider(t, func() string { return "\ufeff" + keySetOf(bad, good, bad) }, slog.New(slog.NewTextHandler(&log, nil)))
		if _, err := a.Verify(t.Context(), signWith(t, jwt.SigningMethodEdDSA, key, "k1")); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if !strings.Contains(log.String(), "skipped unusable") || strings.ContainsAny(log.String(), "\x00\x1b") {
			t.Errorf("%s: %q", name, log.String())
		}
	}
}

// Each fetched set replaces the keys, whatever else is wrong with it. A set that cannot
// be used leaves the keys as they were, up to keepFor.
func TestRevokedBesideABrokenMember(t *testing.T) {
	t.Parallel()
	revoked, revokedKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	kept, keptKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	const broken = `{"kty":"RSA","kid":"k3","n":7}`
	text := keySetOf(member(t, revoked, "k1", nil), member(t, kept, "k2", nil))
	a := textProvider(t, func() string { return text }, discard)
	verify := func(key ed25519.PrivateKey, kid string) error {
		_, err := a.Verify(t.Context(), signWith(t, jwt.SigningMethodEdDSA, key, kid))
		return err
	}
	if err := verify(revokedKey, "k1"); err != nil {
		t.Fatal(err)
	}
	text = keySetOf(broken, member(t, kept, "k2", nil))
	if err := a.keys.fetch(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if err := verify(revokedKey, "k1"); !domain.HasCode(err, CodeTokenInvalid) {
		t.Errorf("the revoked key: %v", err)
	}
	if err := verify(keptKey, "k2"); err != nil {
		t.Errorf("the other key: %v", err)
	}
	for _, useless := range []string{
		keySetOf(broken), keySetOf(broken, `{"use":"enc","kty":"RSA"}`), `{}`, `[]`, ``, `{"keys":{}}`, `{"keys":[],"keys":[]}`, `{"Keys":[]}`,
		keySetOf(strings.Repeat(" ", maxKeySet)),
	} {
		text = useless
		if err := a.keys.fetch(t.Context(), 0); err == nil {
			t.Errorf("%.80q was taken", useless)
		}
		if err := verify(keptKey, "k2"); err != nil {
			t.Errorf("%.80q: the key before it: %v", useless, err)
		}
	}
	for _, empty := range []string{`{"keys":[]}`, keySetOf(`{"use":"enc","kty":"RSA"}`)} {
		text = keySetOf(member(t, kept, "k2", nil))
		if err := a.keys.fetch(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		text = empty
		if err := a.keys.fetch(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		if err := verify(keptKey, "k2"); !domain.HasCode(err, CodeTokenInvalid) {
			t.Errorf("%s: all keys are revoked: %v", empty, err)
		}
	}
}

// Keys survive an outage of the provider, but no longer than keepFor.
func TestKeysEnd(t *testing.T) {
	t.Parallel()
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		p := &identityProvider{keys: map[string]any{"k1": public}}
		a := newAuthenticator(t, Config{JWKSURL: "https://id.example.com/keys"}, nil)
		a.keys.client.Transport = roundTrip{p}
		verify := func() error {
			_, err := a.Verify(context.Background(), signWith(t, jwt.SigningMethodEdDSA, key, "k1"))
			return err
		}
		if err := verify(); err != nil {
			t.Fatal(err)
		}
		p.set(func() { p.down = true })
		time.Sleep(keepFor)
		if err := verify(); err != nil {
			t.Errorf("during an outage: %v", err)
		}
		time.Sleep(time.Second)
		if err := verify(); domain.AsError(err).Kind != domain.KindUnavailable {
			t.Errorf("after a long outage: %v", err)
		}
		p.set(func() { p.down = false })
		time.Sleep(eagerFor)
		if err := verify(); err != nil {
			t.Errorf("after the outage: %v", err)
		}
	})
}

func TestKeySetIsBounded(t *testing.T) {
	t.Parallel()
	var members []string
	for i := range maxKeys + 1 {
		public, _, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		members = append(members, member(t, public, fmt.Sprint(i), nil))
	}
	keys, skipped, err := parseKeySet([]byte(keySetOf(members...)))
	if len(keys) != maxKeys || len(skipped) != 1 || err != nil {
		t.Errorf("%d keys, %v, %v", len(keys), skipped, err)
	}
}
