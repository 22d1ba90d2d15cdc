// Package limit bounds the rate at which clients may send: one socket by itself, all
// sockets of a system together, and one address without a valid token. Frames that
// the underlying protocols answer by themselves count as well.
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

// Limiter guards against floods across the deployment.
type Limiter interface {
	// Allow takes n of what the system may do of a flow, or says when to try
	// again. The flows are [domain.FlowJoins] and [domain.FlowFrames].
	Allow(ctx context.Context, flow domain.Flow, system domain.SystemID, n int) (ok bool, retryAfter time.Duration)
}

// CodeRateLimited is the code of what exceeds a limit. Its error has retryAfterMs.
const CodeRateLimited domain.Code = "rate-limited"

// Rate allows PerSecond in the long run and Burst at once.
type Rate struct {
	PerSecond rate.Limit
	Burst     int
}

// Rates are those of one socket.
type Rates struct {
	Frames  Rate // from the client; default 50/s, 200 at once
	Joins   Rate // default 10/s, 128 at once
	Refused Rate // refusals of frames and joins; who causes more is to be closed; default 5/s, 100 at once
}

// WithDefaults fills in what is zero.
func (r Rates) WithDefaults() Rates {
	return Rates{cmp.Or(r.Frames, Rate{50, 200}), cmp.Or(r.Joins, Rate{10, 128}), cmp.Or(r.Refused, Rate{5, 100})}
}

// Budget is what one socket has left. It is safe for concurrent use. A socket that
// sends nothing has not much of it.
type Budget struct {
	mu                     sync.Mutex // not held while the limiter across sockets is asked
	frames, joins, refused *rate.Limiter
	unchecked              int       // frames that the limiter across sockets has not counted
	paused                 time.Time // until when that limiter has nothing left
}

// framesAtOnce is how many frames are counted across sockets at a time: a call to
// the limiter for each would cost more than most frames.
const framesAtOnce = 16

// Frame counts a frame that came now, here and, if across is not nil, across
// sockets. home says for which system it is counted there, if for any; it is asked
// now and then.
func (b *Budget) Frame(ctx context.Context, now time.Time, rates *Rates, across Limiter, home func() (domain.SystemID, bool)) error {
	n, err := b.frame(now, rates)
	if err != nil || n == 0 || across == nil {
		return err
	}
	system, ok := home()
	if !ok {
		return nil // nor are they counted later, for a system that had nothing to do with them
	}
	if ok, wait := across.Allow(ctx, domain.FlowFrames, system, n); !ok {
		b.mu.Lock()
		b.paused = now.Add(wait)
		b.mu.Unlock()
		return limited(domain.FlowFrames, wait)
	}
	return nil
}

// frame counts a frame here, and says how many are to be counted across sockets now.
func (b *Budget) frame(now time.Time, rates *Rates) (n int, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := spend(&b.frames, rates.Frames, now, domain.FlowFrames); err != nil {
		return 0, err
	}
	if wait := b.paused.Sub(now); wait > 0 { // or it would be one frame of framesAtOnce that is refused
		return 0, limited(domain.FlowFrames, wait)
	}
	if b.unchecked++; b.unchecked < framesAtOnce {
		return 0, nil
	}
	n, b.unchecked = b.unchecked, 0
	return n, nil
}

// Control counts as a frame what carries none: a ping or a pong of the protocols
// below, or a request that cannot be served. One that is too much gets no answer,
// and for an error the socket is to be told and closed.
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

// Join counts a join of a system's room, here and, if across is not nil, across
// sockets.
func (b *Budget) Join(ctx context.Context, now time.Time, rates *Rates, across Limiter, system domain.SystemID) error {
	b.mu.Lock()
	err := spend(&b.joins, rates.Joins, now, domain.FlowJoins)
	b.mu.Unlock()
	if err != nil {
		return err
	}
	return Joins(ctx, across, system)
}

// Joins counts a join across sockets alone, for one that a client does not ask for.
func Joins(ctx context.Context, across Limiter, system domain.SystemID) error {
	if across == nil {
		return nil
	}
	if ok, wait := across.Allow(ctx, domain.FlowJoins, system, 1); !ok {
		return limited(domain.FlowJoins, wait)
	}
	return nil
}

// Handshake counts the handshake of an actor across sockets, as a frame: it costs as
// much, and a client that joins nothing may begin one after the other.
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

// spend takes one from a limiter, which it makes when it is needed first.
func spend(l **rate.Limiter, r Rate, now time.Time, what domain.Flow) error {
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

func limited(what domain.Flow, wait time.Duration) *domain.Error {
	ms := max((wait + time.Millisecond - 1).Milliseconds(), 1)
	return domain.Fail(domain.KindLimited, CodeRateLimited, fmt.Sprintf("too many %s; wait %d ms", what, ms)).With("retryAfterMs", ms)
}
