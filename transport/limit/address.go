package limit

import (
	"context"
	"math"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/auth"
	"github.com/plugcast/plugcast/transport/edge"
)

// DefaultUnauthenticated is the default limit for one client address without a valid token.
var DefaultUnauthenticated = Rate{PerSecond: 100, Burst: 1_000}

// maxAddresses bounds the memory: the budgets of this many addresses are kept, and of as
// many before them.
const maxAddresses = 10_000

// Addresses limits the requests without a valid token per client address, in this process,
// because there is no system to count them for. It is safe for concurrent use.
//
// It never refuses a client with a valid token, however many other clients share the
// address, because the address may be a proxy's. A browser sends preflight requests without
// the token, so those have a budget of their own: neither kind uses up the other's.
type Addresses struct{ requests, preflights budget }

// NewAddresses makes Addresses. A rate of 0 per second disables the limit.
func NewAddresses(r Rate) *Addresses {
	return &Addresses{requests: newBudget(r), preflights: newBudget(r)}
}

// budget is the limit of every address for one kind of request.
type budget struct {
	rate Rate

	mu            sync.Mutex
	known, before map[string]*rate.Limiter // the current generation, and the previous one
}

func newBudget(r Rate) budget { return budget{rate: r, known: map[string]*rate.Limiter{}} }

// spend counts a request of an address, or returns how long the address has to wait.
func (b *budget) spend(remote string, now time.Time) (wait time.Duration) {
	return b.take(remote, now, 1)
}

// wait returns how long the address has to wait, without counting anything.
func (b *budget) wait(remote string, now time.Time) time.Duration { return b.take(remote, now, 0) }

func (b *budget) take(remote string, now time.Time, n int) time.Duration {
	if b.rate.PerSecond == 0 {
		return 0
	}
	l := b.of(edge.Source(remote))
	reserved := l.ReserveN(now, 1)
	wait := reserved.DelayFrom(now)
	if wait > 0 || n == 0 {
		reserved.CancelAt(now)
	}
	return wait
}

func (b *budget) of(address string) *rate.Limiter {
	b.mu.Lock()
	defer b.mu.Unlock()
	l := b.known[address]
	if l != nil {
		return l
	}
	if l = b.before[address]; l == nil {
		l = rate.NewLimiter(b.rate.PerSecond, b.rate.Burst)
	}
	if len(b.known) >= maxAddresses {
		b.before, b.known = b.known, map[string]*rate.Limiter{}
	}
	b.known[address] = l
	return l
}

type attributedKey struct{}

// Attributed marks the request of a context as counted elsewhere: for the system of a
// valid token, or for an authenticated session.
func Attributed(ctx context.Context) {
	if mark, ok := ctx.Value(attributedKey{}).(*atomic.Bool); ok {
		mark.Store(true)
	}
}

// Guard limits the requests to next that are not marked as [Attributed]. When an address
// has used up its budget, such a request gets 429 and Retry-After: without a credential
// before next runs, and with one in place of next's response, so that a meaningless
// credential does not give unlimited access to public resources. A request for which
// exempt returns true is always served, for example a load balancer's; preflight requests
// are never exempt.
func (a *Addresses) Guard(next http.Handler, exempt func(*http.Request) bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		from, isExempt := &a.requests, false
		if isPreflight(r) {
			from = &a.preflights
		} else {
			isExempt = exempt(r)
		}
		if !isExempt && !hasCredential(r) {
			if wait := from.wait(r.RemoteAddr, time.Now()); wait > 0 {
				refuse(w, wait)
				return
			}
		}
		attributed := new(atomic.Bool)
		out := &guarded{
			ResponseWriter: w, attributed: attributed, exempt: isExempt,
			spend: func() time.Duration { return from.spend(r.RemoteAddr, time.Now()) },
		}
		next.ServeHTTP(out, r.WithContext(context.WithValue(r.Context(), attributedKey{}, attributed)))
		if !out.spent && !isExempt && !attributed.Load() {
			out.spend()
		}
	})
}

// isPreflight reports whether a browser sends the request on behalf of a page of another
// origin. No face does more for such a request than answer it.
func isPreflight(r *http.Request) bool {
	return r.Method == http.MethodOptions && r.Header.Get("Origin") != ""
}

func hasCredential(r *http.Request) bool {
	return r.Header.Get("Authorization") != "" || r.Header.Get("Sec-WebSocket-Protocol") != "" || strings.Contains(r.URL.RawQuery, "ticket=")
}

func refuse(w http.ResponseWriter, wait time.Duration) {
	header := w.Header()
	for _, name := range []string{"Content-Length", "Content-Encoding", "Cache-Control", "Etag", "Last-Modified"} {
		header.Del(name) // set for the response that this one replaces
	}
	header.Set("Content-Type", "application/problem+json")
	header.Set("Retry-After", strconv.Itoa(max(1, int(math.Ceil(wait.Seconds())))))
	w.WriteHeader(http.StatusTooManyRequests)
	_, _ = w.Write([]byte(`{"type":"about:blank","title":"Too Many Requests","status":429,"code":"` + string(CodeRateLimited) +
		`","detail":"too many requests without a valid token from this address"}` + "\n")) // fails only if the client is gone
}

// guarded is a response that a refusal may replace.
type guarded struct {
	http.ResponseWriter
	attributed *atomic.Bool
	spend      func() time.Duration
	exempt     bool
	begun      bool // the status is written
	spent      bool
	replaced   bool // by a refusal; further writes are dropped
}

// WriteHeader implements [http.ResponseWriter].
func (g *guarded) WriteHeader(status int) {
	g.begun = g.begun || status >= http.StatusOK
	if g.counts(status) && !g.spent && !g.attributed.Load() {
		g.spent = true
		if wait := g.spend(); wait > 0 {
			g.replaced = true
			refuse(g.ResponseWriter, wait)
			return
		}
	}
	g.ResponseWriter.WriteHeader(status)
}

// counts reports whether a response with this status is counted before it goes out. A
// failure of the server does not count, because the client may have a valid token.
func (g *guarded) counts(status int) bool {
	return status >= http.StatusOK && status < http.StatusBadRequest && !g.exempt ||
		status >= http.StatusBadRequest && status < http.StatusInternalServerError
}

// Write implements [http.ResponseWriter].
func (g *guarded) Write(b []byte) (int, error) {
	if !g.begun {
		g.WriteHeader(http.StatusOK)
	}
	if g.replaced {
		return len(b), nil
	}
	return g.ResponseWriter.Write(b)
}

// Unwrap is for [http.ResponseController].
func (g *guarded) Unwrap() http.ResponseWriter { return g.ResponseWriter }

// Authenticated wraps an [auth.Authenticator]. It marks requests with valid tokens as
// [Attributed], and fails with [CodeRateLimited] if an address keeps sending invalid ones.
func (a *Addresses) Authenticated(by auth.Authenticator) auth.Authenticator {
	return authenticator{by, a}
}

type authenticator struct {
	auth.Authenticator
	addresses *Addresses
}

// Authenticate implements [auth.Authenticator].
func (a authenticator) Authenticate(ctx context.Context, r *http.Request) (domain.Actor, error) {
	actor, err := a.Authenticator.Authenticate(ctx, r)
	return a.charge(r, actor, err)
}

// AuthenticateStream implements [auth.Authenticator].
func (a authenticator) AuthenticateStream(ctx context.Context, r *http.Request, system domain.SystemID) (domain.Actor, error) {
	actor, err := a.Authenticator.AuthenticateStream(ctx, r, system)
	return a.charge(r, actor, err)
}

// charge counts a request for its token or, without a valid token, for its address.
func (a authenticator) charge(r *http.Request, actor domain.Actor, err error) (domain.Actor, error) {
	switch {
	case err == nil:
		Attributed(r.Context())
	case domain.AsError(err).Kind == domain.KindUnauthenticated:
		if wait := a.addresses.requests.wait(r.RemoteAddr, time.Now()); wait > 0 {
			return actor, limited("requests without a valid token", wait)
		}
	}
	return actor, err
}
