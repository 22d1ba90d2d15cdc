// Package ratelimit limits how much each system may send: a token bucket per system and flow,
// counted in Redis, so the count is the same whichever process a client reaches.
package ratelimit

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/go-redis/redis_rate/v10"
	"github.com/redis/go-redis/v9"

	"github.com/plugcast/plugcast/domain"
)

// Limit allows PerSecond in the long run and Burst at once. A PerSecond of 0 means no limit.
type Limit struct {
	PerSecond int
	Burst     int
}

// Config is the limit of each flow, per system.
type Config map[domain.Flow]Limit

// Defaults returns the default limits. They are far above what a centre needs, and low enough
// that one system cannot slow down the others.
func Defaults() Config {
	return Config{
		domain.FlowRequests:      {PerSecond: 500, Burst: 1_000},
		domain.FlowJoins:         {PerSecond: 200, Burst: 2_000},
		domain.FlowFrames:        {PerSecond: 500, Burst: 2_000},
		domain.FlowDeviceUpdates: {PerSecond: 20_000, Burst: 100_000},
		domain.FlowActions:       {PerSecond: 100, Burst: 1_000},
	}
}

// Validate returns an error for an unknown flow, a negative rate, or a limited flow without a
// burst.
func (c Config) Validate() error {
	for flow, limit := range c {
		if _, known := Defaults()[flow]; !known {
			return fmt.Errorf("rate limits: there is no flow %q", flow)
		}
		if limit.PerSecond < 0 || limit.PerSecond > 0 && limit.Burst < 1 {
			return fmt.Errorf("rate limits: flow %s needs a rate of at least 0 and a burst of at least 1", flow)
		}
	}
	return nil
}

// decision is the result of one check.
type decision struct {
	Allowed    bool
	RetryAfter time.Duration // until the request may be allowed; 0 if it is allowed now
	Remaining  int           // tokens left in the bucket
}

// Limiter checks and counts requests. It is safe for concurrent use.
type Limiter struct {
	limiter  *redis_rate.Limiter
	prefix   string
	config   Config
	logger   *slog.Logger
	refusals refusals
	warned   atomic.Int64 // when a failure of Redis was last logged, Unix seconds
}

// New returns a Limiter. prefix begins the names of its keys in Redis.
func New(client redis.UniversalClient, prefix string, config Config, logger *slog.Logger) *Limiter {
	return &Limiter{limiter: redis_rate.NewLimiter(client), prefix: prefix, config: config, logger: logger}
}

// Allow takes n tokens from the system's bucket for the flow, all or none. An n above the burst
// counts as the whole burst: such a batch waits for a full bucket instead of waiting for ever.
// A refusal is remembered until the request may be allowed, for at most a second, and requests
// before that are refused without asking Redis. While Redis cannot be reached, Allow allows
// everything: an outage of the limiter must not stop the platform.
func (l *Limiter) Allow(ctx context.Context, flow domain.Flow, system domain.SystemID, n int) (allowed bool, retryAfter time.Duration) {
	d := l.decide(ctx, flow, system, n)
	return d.Allowed, d.RetryAfter
}

func (l *Limiter) decide(ctx context.Context, flow domain.Flow, system domain.SystemID, n int) decision {
	limit := l.config[flow]
	if limit.PerSecond == 0 {
		return decision{Allowed: true}
	}
	key, cost, now := l.key(flow, system), min(n, limit.Burst), time.Now()
	if known, ok := l.refusals.find(key, cost, now); ok {
		return decision{RetryAfter: known.allowed.Sub(now), Remaining: known.remaining}
	}
	result, err := l.limiter.AllowN(ctx, key, rateOf(limit), cost)
	if err != nil {
		l.complain(ctx, err)
		return decision{Allowed: true}
	}
	if result.Allowed == 0 && n > 0 {
		wait := max(result.RetryAfter, time.Millisecond)
		l.refusals.add(key, cost, result.Remaining, now, wait)
		return decision{RetryAfter: wait, Remaining: result.Remaining}
	}
	return decision{Allowed: true, Remaining: result.Remaining}
}

// AllowAll takes tokens from several systems, from all or from none. refused is the first
// system without enough tokens, or "". It checks all systems before it takes anything. A
// concurrent request may use up a system's tokens between the check and the taking; then the
// systems before it are charged although AllowAll refuses.
func (l *Limiter) AllowAll(
	ctx context.Context, flow domain.Flow, counts map[domain.SystemID]int,
) (refused domain.SystemID, retryAfter time.Duration) {
	limit := l.config[flow]
	if limit.PerSecond == 0 {
		return "", 0
	}
	systems := slices.Sorted(maps.Keys(counts))
	if len(systems) > 1 {
		for _, system := range systems {
			if wait := l.missing(ctx, flow, system, min(counts[system], limit.Burst)); wait > 0 {
				return system, wait
			}
		}
	}
	for _, system := range systems {
		if allowed, wait := l.Allow(ctx, flow, system, counts[system]); !allowed {
			return system, wait
		}
	}
	return "", 0
}

// missing takes nothing. It returns how long it takes until the bucket has n tokens, 0 if it
// has them now.
func (l *Limiter) missing(ctx context.Context, flow domain.Flow, system domain.SystemID, n int) time.Duration {
	limit := l.config[flow]
	result, err := l.limiter.AllowN(ctx, l.key(flow, system), rateOf(limit), 0)
	if err != nil {
		l.complain(ctx, err)
		return 0
	}
	return max(time.Duration(n-result.Remaining)*time.Second/time.Duration(limit.PerSecond), 0)
}

func (l *Limiter) key(flow domain.Flow, system domain.SystemID) string {
	return fmt.Sprintf("%s:limit:%s:%s", l.prefix, flow, system)
}

func rateOf(limit Limit) redis_rate.Limit {
	return redis_rate.Limit{Rate: limit.PerSecond, Burst: limit.Burst, Period: time.Second}
}

// complain logs a failure of Redis, at most every ten seconds, and not if the caller gave up.
func (l *Limiter) complain(ctx context.Context, err error) {
	const pause = 10
	now, last := time.Now().Unix(), l.warned.Load()
	if ctx.Err() == nil && now-last >= pause && l.warned.CompareAndSwap(last, now) {
		l.logger.Warn("rate limits: cannot count in Redis; allowing everything", "error", err)
	}
}
