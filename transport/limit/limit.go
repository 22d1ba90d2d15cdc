// Package limit bounds the rate at which clients send: each socket, all sockets of a system
// together, and each address without a valid token. Control frames, which the protocol
// libraries answer by themselves, count as well.
package limit

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/plugcast/plugcast/domain"
)

// Limiter limits rates across the deployment.
type Limiter interface {
	// Allow takes n from the system's budget for a flow, or returns when to retry. The
	// flows are [domain.FlowJoins] and [domain.FlowFrames].
	Allow(ctx context.Context, flow domain.Flow, system domain.SystemID, n int) (ok bool, retryAfter time.Duration)
}

// CodeRateLimited is the code of a request that exceeds a limit. The error has retryAfterMs.
const CodeRateLimited domain.Code = "rate-limited"

// Rate allows PerSecond in the long run and Burst at once.
type Rate struct {
	PerSecond rate.Limit
	Burst     int
}

// Rates are the limits of one socket.
type Rates struct {
	Frames  Rate // of frames from the client; default 50/s, burst 200
	Joins   Rate // default 10/s, burst 128
	Refused Rate // of refused frames and joins, beyond which the socket is closed; default 5/s, burst 100
}

// WithDefaults replaces zero fields by their defaults.
func (r Rates) WithDefaults() Rates {
	return Rates{cmp.Or(r.Frames, Rate{50, 200}), cmp.Or(r.Joins, Rate{10, 128}), cmp.Or(r.Refused, Rate{5, 100})}
}

// Budget tracks the limits of one socket. It is safe for concurrent use. It allocates its
// limiters on first use, so an idle socket costs little.
type Budget struct {
	mu                     sync.Mutex // not held while the limiter across sockets is called
	frames, joins, refused *rate.Limiter
	unchecked              int       // frames not yet reported to the limiter across sockets
	paused                 time.Time // until when that limiter refuses
}

// frameBatch is how many frames are reported to the limiter across sockets at a time,
// because a call per frame would cost more than most frames.
const frameBatch = 16

// Frame counts a frame for the socket and, if across is not nil, across sockets. home
// returns the system that the frames are counted for there, if any; it is called once per
// frameBatch frames.
func (b *Budget) Frame(ctx context.Context, now time.Time, rates *Rates, across Limiter, home func() (domain.SystemID, bool)) error {
	n, err := b.frame(now, rates)
	if err != nil || n == 0 || across == nil {
		return err
	}
	system, ok := home()
	if !ok {
		return nil // the frames are not counted later either, for a system that did not cause them
	}
	if ok, wait := across.Allow(ctx, domain.FlowFrames, system, n); !ok {
		b.mu.Lock()
		b.paused = now.Add(wait)
		b.mu.Unlock()
		return limited(string(domain.FlowFrames), wait)
	}
	return nil
}

// frame counts a frame for the socket, and returns how many to count across sockets now.
func (b *Budget) frame(now time.Time, rates *Rates) (n int, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := spend(&b.frames, rates.Frames, now, string(domain.FlowFrames)); err != nil {
		return 0, err
	}
	if wait := b.paused.Sub(now); wait > 0 { // otherwise only one frame of a batch would be refused
		return 0, limited(string(domain.FlowFrames), wait)
	}
	if b.unchecked++; b.unchecked < frameBatch {
		return 0, nil
	}
	n, b.unchecked = b.unchecked, 0
	return n, nil
}

// Control counts a ping or a pong of the underlying protocol, or a request that cannot be
// served, as a frame. answer is false for a frame beyond the limit. After an error, the
// caller must tell the client and close the socket.
func (b *Budget) Control(
	ctx context.Context, now time.Time, rates *Rates, across Limiter, home func() (domain.SystemID, bool),
) (answer bool, err error) {
	if err = b.Frame(ctx, now, rates, across, home); err == nil {
		return true, nil
	}
	if b.Refused(now, rates) {
		return false, nil
	}
	return false, err
}

// Join counts a join of a system's room for the socket and, if across is not nil, across
// sockets.
func (b *Budget) Join(ctx context.Context, now time.Time, rates *Rates, across Limiter, system domain.SystemID) error {
	b.mu.Lock()
	err := spend(&b.joins, rates.Joins, now, string(domain.FlowJoins))
	b.mu.Unlock()
	if err != nil {
		return err
	}
	return Joins(ctx, across, system)
}

// Joins counts a join across sockets only, for faces that join without a request.
func Joins(ctx context.Context, across Limiter, system domain.SystemID) error {
	if across == nil {
		return nil
	}
	if ok, wait := across.Allow(ctx, domain.FlowJoins, system, 1); !ok {
		return limited(string(domain.FlowJoins), wait)
	}
	return nil
}

// Handshake counts an actor's handshake across sockets, as a frame. A handshake costs as
// much as a frame, and without this a client could repeat handshakes without limit.
func Handshake(ctx context.Context, across Limiter, actor domain.Actor) error {
	if across == nil {
		return nil
	}
	if ok, wait := across.Allow(ctx, domain.FlowFrames, actor.QuotaSystem(""), 1); !ok {
		return limited("handshakes", wait)
	}
	return nil
}

// Refused counts a refusal, and reports whether the socket may stay.
func (b *Budget) Refused(now time.Time, rates *Rates) (stays bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return spend(&b.refused, rates.Refused, now, "refusals") == nil
}

// spend takes one token from a limiter, which it makes on first use.
func spend(l **rate.Limiter, r Rate, now time.Time, what string) error {
	if *l == nil {
		*l = rate.NewLimiter(r.PerSecond, r.Burst)
	}
	reserved := (*l).ReserveN(now, 1)
	wait := reserved.DelayFrom(now)
	if wait == 0 {
		return nil
	}
	reserved.CancelAt(now)
	return limited(what, wait)
}

func limited(what string, wait time.Duration) *domain.Error {
	ms := max((wait + time.Millisecond - 1).Milliseconds(), 1)
	return domain.Fail(domain.KindLimited, CodeRateLimited, fmt.Sprintf("too many %s; wait %d ms", what, ms)).With("retryAfterMs", ms)
}
