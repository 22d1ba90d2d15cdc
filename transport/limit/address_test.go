package limit

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/plugcast/plugcast/domain"
)

var noon = time.Unix(1_795_461_046, 0)

func TestAddresses(t *testing.T) {
	t.Parallel()
	a := NewAddresses(Rate{PerSecond: 1, Burst: 3})
	spend := func(remote string, n int) (refused int) {
		for range n {
			if a.requests.spend(remote, noon) > 0 {
				refused++
			}
		}
		return refused
	}
	if n := spend("192.0.2.1:1000", 3) + spend("[::ffff:192.0.2.1]:1001", 2); n != 2 {
		t.Errorf("of one address in two forms %d were refused", n)
	}
	if n := spend("192.0.2.2:1000", 3); n != 0 {
		t.Errorf("another address pays for it: %d", n)
	}
	for i := range 3 { // the addresses of one IPv6 client
		spend(fmt.Sprintf("[2001:db8::%d]:1", i), 1)
	}
	if n := spend("[2001:db8::ffff:1]:1", 1) + spend("[2001:db8:0:1::1]:1", 1); n != 1 {
		t.Errorf("%d were refused", n)
	}
	if wait := a.requests.spend("192.0.2.1:1", noon.Add(time.Second)); wait > 0 {
		t.Errorf("to wait %v after a second", wait)
	}
	everything := NewAddresses(Rate{})
	if everything.requests.spend("192.0.2.1:1", noon) > 0 {
		t.Error("refused without a limit")
	}
}

// The memory is bounded for any number of addresses, and the most recent ones are
// remembered.
func TestManyAddresses(t *testing.T) {
	t.Parallel()
	a := NewAddresses(Rate{PerSecond: 1, Burst: 1})
	for i := range 5 * maxAddresses {
		a.requests.spend(fmt.Sprintf("10.%d.%d.%d:1", i>>16, i>>8&255, i&255), noon)
	}
	if n := len(a.requests.known) + len(a.requests.before); n > 2*maxAddresses {
		t.Errorf("%d addresses are remembered", n)
	}
	last := 5*maxAddresses - 1
	if a.requests.spend(fmt.Sprintf("10.%d.%d.%d:1", last>>16, last>>8&255, last&255), noon) == 0 {
		t.Error("the last is forgotten")
	}
}

// gate is an authenticator that accepts one token.
type gate struct{}

func (gate) Authenticate(ctx context.Context, r *http.Request) (domain.Actor, error) {
	return gate{}.Verify(ctx, strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
}

func (g gate) AuthenticateStream(ctx context.Context, r *http.Request, _ domain.SystemID) (domain.Actor, error) {
	return g.Authenticate(ctx, r)
}

func (gate) Verify(_ context.Context, token string) (domain.Actor, error) {
	switch token {
	case "good":
		return domain.Actor{Subject: "eva"}, nil
	case "away":
		return domain.Actor{}, errors.New("the keys cannot be read")
	}
	return domain.Actor{}, domain.Fail(domain.KindUnauthenticated, "token-invalid", "no")
}

// Every request without a valid token counts, and is refused above the limit. A request
// with a valid token from the same address is served.
func TestGuard(t *testing.T) {
	t.Parallel()
	const burst = 5
	serve := func(a *Addresses) func(method, path, token string) *http.Response {
		by := a.Authenticated(gate{})
		guarded := a.Guard(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/healthz":
				w.WriteHeader(http.StatusOK)
				return
			case "/open":
				w.Header().Set("Etag", `"1"`)
				_, _ = w.Write([]byte("for all"))
				return
			case "/session":
				Attributed(r.Context())
				w.WriteHeader(http.StatusBadRequest)
				return
			case "/missing":
				http.NotFound(w, r)
				return
			}
			_, err := by.Authenticate(r.Context(), r)
			switch {
			case err == nil:
				w.WriteHeader(http.StatusForbidden) // counted for its system
			case domain.AsError(err).Kind == domain.KindInternal:
				w.WriteHeader(http.StatusServiceUnavailable)
			default:
				w.WriteHeader(http.StatusUnauthorized)
				_, _ = w.Write([]byte("refused"))
			}
		}), func(r *http.Request) bool { return r.URL.Path == "/healthz" })
		return func(method, path, token string) *http.Response {
			r := httptest.NewRequest(method, path, nil)
			if token != "" {
				r.Header.Set("Authorization", "Bearer "+token)
			}
			w := httptest.NewRecorder()
			guarded.ServeHTTP(w, r)
			return w.Result()
		}
	}
	for name, of := range map[string][3]string{
		"no token": {"GET", "/api", ""}, "a bad token": {"GET", "/api", "bad"}, "no path": {"GET", "/missing", ""},
		"what needs no token": {"HEAD", "/open", ""}, "OPTIONS of no page": {"OPTIONS", "/open", ""},
		"what needs no token, with a bad one": {"GET", "/open", "bad"}, "what needs no token, with any ticket": {"GET", "/open?ticket=x", ""},
		"no path, with any token": {"GET", "/missing", "good"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ask := serve(NewAddresses(Rate{PerSecond: 0.01, Burst: burst}))
			for i := range 4 * burst {
				r := ask(of[0], of[1], of[2])
				if limited := r.StatusCode == http.StatusTooManyRequests; limited != (i >= burst) {
					t.Fatalf("request %d got %s", i, r.Status)
				} else if limited && (r.Header.Get("Retry-After") == "" || r.Header.Get("Etag") != "" ||
					r.Header.Get("Content-Type") != "application/problem+json") {
					t.Fatalf("request %d got %v", i, r.Header)
				}
			}
			if r := ask("GET", "/api", "good"); r.StatusCode != http.StatusForbidden {
				t.Errorf("a valid token got %s", r.Status)
			}
			if r := ask("GET", "/healthz", ""); r.StatusCode != http.StatusOK {
				t.Errorf("a load balancer got %s", r.Status)
			}
		})
	}
	t.Run("what is counted elsewhere", func(t *testing.T) {
		t.Parallel()
		ask := serve(NewAddresses(Rate{PerSecond: 0.01, Burst: burst}))
		for range 4 * burst {
			if r := ask("GET", "/api", "good"); r.StatusCode != http.StatusForbidden {
				t.Fatalf("a valid token got %s", r.Status)
			}
			if r := ask("GET", "/session", ""); r.StatusCode != http.StatusBadRequest {
				t.Fatalf("a session got %s", r.Status)
			}
		}
		if r := ask("GET", "/open", ""); r.StatusCode != http.StatusOK {
			t.Errorf("after all that: %s", r.Status)
		}
	})
	t.Run("the faces are told", func(t *testing.T) {
		t.Parallel()
		a := NewAddresses(Rate{PerSecond: 0.01, Burst: 1})
		by, r := a.Authenticated(gate{}), httptest.NewRequest("GET", "/", nil)
		if _, err := by.Authenticate(t.Context(), r); domain.AsError(err).Kind != domain.KindUnauthenticated {
			t.Errorf("the first: %v", err)
		}
		a.requests.spend(r.RemoteAddr, time.Now())
		if _, err := by.Authenticate(t.Context(), r); domain.AsError(err).Kind != domain.KindLimited {
			t.Errorf("the second: %v", err)
		}
	})
}

// Preflight requests and other requests of an address do not use up each other's budget,
// and both are limited on every path.
func TestPreflightsHaveABudgetOfTheirOwn(t *testing.T) {
	t.Parallel()
	const burst = 5
	a := NewAddresses(Rate{PerSecond: 0.01, Burst: burst})
	guarded := a.Guard(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodOptions {
			w.WriteHeader(http.StatusNoContent)
		}
	}), func(r *http.Request) bool { return r.URL.Path == "/spared" })
	ask := func(method, path, remote string) int {
		w, r := httptest.NewRecorder(), httptest.NewRequest(method, path, nil)
		r.RemoteAddr = remote
		r.Header.Set("Origin", "https://app.example.com")
		guarded.ServeHTTP(w, r)
		return w.Code
	}
	flood := func(method, path, remote string, served int) {
		t.Helper()
		for i := range 2 * burst {
			want := http.StatusTooManyRequests
			if i < burst {
				want = served
			}
			if got := ask(method, path, remote); got != want {
				t.Fatalf("%s %s: request %d got %d", method, path, i, got)
			}
		}
	}
	flood("GET", "/open", "192.0.2.1:1", http.StatusOK)
	flood("OPTIONS", "/open", "192.0.2.1:1", http.StatusNoContent)
	flood("OPTIONS", "/spared", "192.0.2.2:1", http.StatusNoContent)
	flood("GET", "/open", "192.0.2.2:1", http.StatusOK)
	if got := ask("GET", "/spared", "192.0.2.2:1"); got != http.StatusOK {
		t.Errorf("what is spared got %d", got)
	}
}
