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

// DefaultUnauthenticated is what one client address may do without a valid token.
var DefaultUnauthenticated = Rate{PerSecond: 100, Burst: 1_000}

// mostAddresses bounds the memory: of so many addresses, and of as many before
// those, it is known what they did.
const mostAddresses = 10_000

// Addresses bounds the requests without a valid token, per client address and in
// this process: there is no system to count them for. It is safe for concurrent
// use.
//
// A client with a valid token is never refused here, however many others there are
// at its address: that may be a proxy's. Its browser sends preflights without the
// token, so those have a budget of their own: neither uses up that of the other.
type Addresses struct{ requests, preflights budget }

// NewAddresses makes Addresses. A rate of 0 per second allows everything.
func NewAddresses(r Rate) *Addresses {
	return &Addresses{requests: newBudget(r), preflights: newBudget(r)}
}

// budget is what each address may do of one kind of request.
type budget struct {
	rate Rate

	mu            sync.Mutex
	known, before map[string]*rate.Limiter
}

func newBudget(r Rate) budget { return budget{rate: r, known: map[string]*rate.Limiter{}} }

// spend counts a request from an address, or says how long to wait with the next.
func (b *budget) spend(remote string, now time.Time) (wait time.Duration) {
	return b.take(remote, now, 1)
}

// wait says how long the address has to wait, and counts nothing.
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
	if len(b.known) >= mostAddresses {
		b.before, b.known = b.known, map[string]*rate.Limiter{}
	}
	b.known[address] = l
	return l
}

type attributedKey struct{}

// Attributed says that the request of a context is counted elsewhere: for the
// system of a valid token, or for a session that has shown one.
func Attributed(ctx context.Context) {
	if mark, ok := ctx.Value(attributedKey{}).(*atomic.Bool); ok {
		mark.Store(true)
	}
}

// Guard counts the requests to next that nobody marks as [Attributed]. Of an address
// that has nothing left such a request gets 429 and Retry-After: before it is served
// if it shows no credential, and otherwise in place of its answer, so what is open to
// all is not to be had without end by showing something that nobody looks at. spared
// says which requests are served in any case, such as those of load balancers; no
// preflight is.
func (a *Addresses) Guard(next http.Handler, spared func(*http.Request) bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		from, isSpared := &a.requests, false
		if isPreflight(r) {
			from = &a.preflights
		} else {
			isSpared = spared(r)
		}
		if !isSpared && !showsCredential(r) {
			if wait := from.wait(r.RemoteAddr, time.Now()); wait > 0 {
				refuse(w, wait)
				return
			}
		}
		mark := new(atomic.Bool)
		out := &guarded{ResponseWriter: w, mark: mark, spared: isSpared, spend: func() time.Duration { return from.spend(r.RemoteAddr, time.Now()) }}
		next.ServeHTTP(out, r.WithContext(context.WithValue(r.Context(), attributedKey{}, mark)))
		if !out.spent && !isSpared && !mark.Load() {
			out.spend()
		}
	})
}

// isPreflight reports whether a browser may ask on behalf of a page of another origin.
// No face does anything for such a request but answer it.
func isPreflight(r *http.Request) bool {
	return r.Method == http.MethodOptions && r.Header.Get("Origin") != ""
}

func showsCredential(r *http.Request) bool {
	return r.Header.Get("Authorization") != "" || r.Header.Get("Sec-WebSocket-Protocol") != "" || strings.Contains(r.URL.RawQuery, "ticket=")
}

func refuse(w http.ResponseWriter, wait time.Duration) {
	header := w.Header()
	for _, name := range []string{"Content-Length", "Content-Encoding", "Cache-Control", "Etag", "Last-Modified"} {
		header.Del(name) // of the answer in whose place this goes out
	}
	header.Set("Content-Type", "application/problem+json")
	header.Set("Retry-After", strconv.Itoa(max(1, int(math.Ceil(wait.Seconds())))))
	w.WriteHeader(http.StatusTooManyRequests)
	_, _ = w.Write([]byte(`{"type":"about:blank","title":"Too Many Requests","status":429,"code":"` + string(CodeRateLimited) +
		`","detail":"too many requests without a valid token from this address"}` + "\n")) // a client that is gone needs none
}

// guarded is a response that may become a refusal.
type guarded struct {
	http.ResponseWriter
	mark     *atomic.Bool
	spend    func() time.Duration
	spared   bool // unless it is refused
	begun    bool // the status is written
	spent    bool
	replaced bool // what else is written is of no use
}

// WriteHeader implements [http.ResponseWriter].
func (g *guarded) WriteHeader(status int) {
	g.begun = g.begun || status >= http.StatusOK
	if g.counts(status) && !g.spent && !g.mark.Load() {
		g.spent = true
		if wait := g.spend(); wait > 0 {
			g.replaced = true
			refuse(g.ResponseWriter, wait)
			return
		}
	}
	g.ResponseWriter.WriteHeader(status)
}

// counts reports whether an answer with that status is counted before it goes out. A
// failure of the server's own is no fault of the client, which may have a valid token.
func (g *guarded) counts(status int) bool {
	return status >= http.StatusOK && status < http.StatusBadRequest && !g.spared ||
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

// Authenticated is an [auth.Authenticator] that marks the requests of valid tokens as
// [Attributed], and answers with [CodeRateLimited] where an address shows one after
// the other that is not.
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

// charge puts a request on the account of its token or, without a valid one, of its
// address.
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
