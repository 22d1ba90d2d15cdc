package auth

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"

	"github.com/plugcast/plugcast/domain"
)

// identityProvider serves a JWKS that a test can change.
type identityProvider struct {
	mu      sync.Mutex
	keys    map[string]any
	down    bool
	fetches int
}

func (p *identityProvider) set(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
}

func (p *identityProvider) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fetches
}

func (p *identityProvider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fetches++
	if p.down {
		http.Error(w, "down", http.StatusBadGateway)
		return
	}
	storage := jwkset.NewMemoryStorage()
	for id, key := range p.keys {
		jwk, err := jwkset.NewJWKFromKey(key, jwkset.JWKOptions{Metadata: jwkset.JWKMetadataOptions{KID: id}})
		if err == nil {
			err = storage.KeyWrite(r.Context(), jwk)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
	}
	set, err := storage.JSONPublic(r.Context())
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_ = json.NewEncoder(w).Encode(set)
}

func newProvider(t *testing.T) (*identityProvider, *rsa.PrivateKey, *Verifier) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p := &identityProvider{keys: map[string]any{"k1": key.Public()}}
	server := httptest.NewServer(p)
	t.Cleanup(server.Close)
	return p, key, newAuthenticator(t, Config{JWKSURL: server.URL}, nil)
}

func signWith(t *testing.T, method jwt.SigningMethod, key any, kid string) string {
	t.Helper()
	token := jwt.NewWithClaims(method, jwt.MapClaims{"sub": "maria", "role": "viewer", "systems": []string{"s"}, "exp": hour().Unix()})
	if kid != "" {
		token.Header["kid"] = kid
	}
	signed, err := token.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

func TestKeySet(t *testing.T) {
	t.Parallel()
	_, key, a := newProvider(t)
	public := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: x509.MarshalPKCS1PublicKey(&key.PublicKey)})
	for name, c := range map[string]struct {
		token string
		code  domain.Code
	}{
		"with key id":              {signWith(t, jwt.SigningMethodRS256, key, "k1"), ""},
		"without key id":           {signWith(t, jwt.SigningMethodRS256, key, ""), ""},
		"PS512":                    {signWith(t, jwt.SigningMethodPS512, key, "k1"), ""},
		"unknown key id":           {signWith(t, jwt.SigningMethodRS256, key, "k9"), CodeTokenInvalid},
		"HMAC with the public key": {signWith(t, jwt.SigningMethodHS256, public, "k1"), CodeTokenInvalid},
		"alg none":                 {signWith(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, "k1"), CodeTokenInvalid},
	} {
		_, err := a.Verify(t.Context(), c.token)
		if c.code == "" && err != nil || c.code != "" && !domain.HasCode(err, c.code) {
			t.Errorf("%s: want %q, got %v", name, c.code, err)
		}
	}
}

// The first token with a new key causes a fetch, and tokens with invented key ids do not
// cause one fetch each.
func TestKeyRotation(t *testing.T) {
	t.Parallel()
	p, _, a := newProvider(t)
	if err := a.keys.fetch(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	a.keys.tried = time.Now().Add(-eagerFor)
	_, fresh, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p.set(func() { p.keys = map[string]any{"k2": fresh.Public()} })
	if _, err := a.Verify(t.Context(), signWith(t, jwt.SigningMethodEdDSA, fresh, "k2")); err != nil {
		t.Fatalf("token of the new key: %v", err)
	}
	before := p.count()
	for range 50 {
		if _, err := a.Verify(t.Context(), signWith(t, jwt.SigningMethodEdDSA, fresh, "k9")); !domain.HasCode(err, CodeTokenInvalid) {
			t.Fatal(err)
		}
	}
	if n := p.count() - before; n != 0 {
		t.Errorf("50 made-up key ids made %d fetches", n)
	}
}

// Before the first successful fetch, a token is neither valid nor invalid: the fault is
// the server's, not the client's.
func TestKeysCannotBeFetched(t *testing.T) {
	t.Parallel()
	p, key, a := newProvider(t)
	p.set(func() { p.down = true })
	for _, kid := range []string{"k1", ""} {
		_, err := a.Verify(t.Context(), signWith(t, jwt.SigningMethodRS256, key, kid))
		if domain.AsError(err).Kind != domain.KindUnavailable {
			t.Errorf("key id %q: %v", kid, err)
		}
	}
}

// roundTrip is a provider without a network, for tests that move the clock.
type roundTrip struct{ p *identityProvider }

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	f.p.ServeHTTP(w, r)
	return w.Result(), nil
}

// A removed key is refused within freshFor, even by a process that had no failure. An
// outage loses no key, and fetching recovers by itself.
func TestKeysAreKeptFresh(t *testing.T) {
	t.Parallel()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		p := &identityProvider{keys: map[string]any{"k1": key.Public()}}
		a := newAuthenticator(t, Config{JWKSURL: "https://id.example.com/keys"}, nil)
		a.keys.client.Transport = roundTrip{p}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- a.Run(ctx) }()
		defer func() {
			stop()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}()
		synctest.Wait()
		token := func() string { return signWith(t, jwt.SigningMethodRS256, key, "k1") }
		if _, err := a.Verify(ctx, token()); err != nil {
			t.Fatal(err)
		}
		p.set(func() { p.down = true })
		time.Sleep(freshFor + time.Second)
		if _, err := a.Verify(ctx, token()); err != nil {
			t.Fatalf("during an outage: %v", err)
		}
		p.set(func() { p.down, p.keys = false, map[string]any{} })
		time.Sleep(retryFor)
		if _, err := a.Verify(ctx, token()); !domain.HasCode(err, CodeTokenInvalid) {
			t.Fatalf("the key was taken out: %v", err)
		}
	})
}
