// Package fences keeps out for a while who was thrown out. Every process knows
// all fences in memory, so that a check costs nothing; they are kept in Redis as
// well, for processes that start later.
//
// # How a process comes to know a fence
//
// It hears the command that raises it, from the log, and writes the fence to
// Redis before it drops a single socket; every process does, and writes the
// same. A process that starts hears commands from a place in the log on, and then
// loads what Redis has. Between the two is a gap: a command from before that
// place whose fence nobody has written yet. So it loads again after a few
// seconds, and then now and again, which also mends what it missed while the log
// could not be followed. Whoever came in meanwhile is thrown out then, by
// [Fences.Learned]. One gap remains: if every process dies between the
// command and its writing, the fence is lost. Then nobody was thrown out either,
// and the sender was not told that it is done.
package fences

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/plugcast/plugcast/domain"
)

// Bounds of what is kept. Beyond them the fences that end first go first. They
// are per system, so that no system can push another's out.
const (
	MaxPerSystem = 256
	MaxSystems   = 1024
)

const (
	writeLimit   = time.Second // the most that a fence holds up the drop behind it
	loadLimit    = 5 * time.Second
	retryPause   = time.Second
	gapPause     = 3 * time.Second // longer than a process takes from hearing a command to writing its fence
	refreshEvery = time.Minute
	slack        = time.Minute // for clocks that differ, before what is over is thrown away
	keyLifetime  = domain.MaxFence + time.Hour
)

// Fence keeps out everybody who matches all of Subject and Role that are set:
// from one system or, without a system, from everything.
type Fence struct {
	System    domain.SystemID `json:"system,omitempty"`
	Subject   string          `json:"subject,omitempty"`
	Role      domain.Role     `json:"role,omitempty"`
	Reason    string          `json:"reason,omitempty"`
	CommandID string          `json:"commandId"`
	Until     time.Time       `json:"-"`
}

// who is whom a fence is for, within its system. There is one fence for each: the
// one that ends last.
type who struct {
	subject string
	role    domain.Role
}

type entry struct {
	Fence
	unwritten bool // Redis does not have it yet
}

// Fences is safe for concurrent use.
type Fences struct {
	client redis.UniversalClient
	prefix string
	logger *slog.Logger

	// Learned is called with each fence that Load brings and nobody raised here: who
	// matches it may have come in already. Nil does nothing. Set it before use.
	Learned func(Fence)

	any atomic.Bool // whether there may be a fence: nearly always there is none

	mu      sync.RWMutex
	systems map[domain.SystemID]map[who]entry // "" is the whole platform
}

// New makes the fences of one process. It knows none before [Fences.Load].
func New(client redis.UniversalClient, prefix string, logger *slog.Logger) *Fences {
	return &Fences{
		client: client, prefix: prefix + ":{fences}:", logger: logger, // one slot of a cluster: they are few
		systems: map[domain.SystemID]map[who]entry{},
	}
}

// Check returns the fence that keeps the actor out of the system or of the whole
// platform, the one that ends last if there are several. An empty system asks for
// the platform alone.
func (f *Fences) Check(actor domain.Actor, system domain.SystemID) (found Fence, fenced bool) {
	if !f.any.Load() {
		return Fence{}, false
	}
	now := time.Now()
	f.mu.RLock()
	defer f.mu.RUnlock()
	look := func(of map[who]entry) {
		for _, w := range [...]who{{actor.Subject, actor.Role}, {actor.Subject, ""}, {"", actor.Role}, {}} {
			if e, ok := of[w]; ok && now.Before(e.Until) && e.Until.After(found.Until) {
				found, fenced = e.Fence, true
			}
		}
	}
	look(f.systems[""])
	if system != "" {
		look(f.systems[system])
	}
	return found, fenced
}

// Raise holds a fence in this process, and returns when Redis has it, or with an
// error when Redis does not take it within a second: [Fences.Run] then tries
// again. Raising a fence twice is fine; one that is over is not raised.
func (f *Fences) Raise(ctx context.Context, fence Fence) error {
	if fence.System == "" && fence.Subject == "" && fence.Role == "" {
		return errors.New("fences: raise: a fence needs a system, a subject or a role")
	}
	fence.Until = fence.Until.Truncate(time.Millisecond) // as Redis has it
	if !time.Now().Before(fence.Until) {
		return nil
	}
	e := entry{fence, true}
	f.hold(e) // first, so that it is not learned of from Redis
	if err := f.write(ctx, fence); err != nil {
		return fmt.Errorf("fences: raise: %w", err)
	}
	f.written(e)
	return nil
}

// hold keeps a fence in memory, and reports false when there is one for the same
// that ends no sooner.
func (f *Fences) hold(e entry) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	of := f.systems[e.System]
	if of == nil {
		of = map[who]entry{}
		f.systems[e.System] = of
	}
	w := who{e.Subject, e.Role}
	if known, ok := of[w]; ok && !known.Until.Before(e.Until) {
		return false
	}
	of[w] = e
	if len(of) > MaxPerSystem {
		drop(of, func(_ who, e entry) time.Time { return e.Until })
	}
	if len(f.systems) > MaxSystems+1 { // and the platform
		drop(f.systems, func(system domain.SystemID, of map[who]entry) time.Time {
			if system == "" {
				return time.Time{}
			}
			return last(of)
		})
	}
	f.any.Store(true)
	return true
}

// drop removes what ends first. What has no end stays.
func drop[K comparable, V any](from map[K]V, until func(K, V) time.Time) {
	var first K
	var ends time.Time
	for k, v := range from {
		if at := until(k, v); !at.IsZero() && (ends.IsZero() || at.Before(ends)) {
			first, ends = k, at
		}
	}
	delete(from, first)
}

func last(of map[who]entry) (at time.Time) {
	for _, e := range of {
		if e.Until.After(at) {
			at = e.Until
		}
	}
	return at
}

// write puts a fence into Redis, and throws out what is over or too much there.
func (f *Fences) write(ctx context.Context, fence Fence) error {
	ctx, cancel := context.WithTimeout(ctx, writeLimit)
	defer cancel()
	member, err := json.Marshal(fence)
	if err != nil {
		return err
	}
	over := fmt.Sprint(time.Now().Add(-slack).UnixMilli())
	until := redis.Z{Score: float64(fence.Until.UnixMilli()), Member: member}
	_, err = f.client.TxPipelined(ctx, func(p redis.Pipeliner) error {
		keep := func(key string, most int64) {
			p.ZRemRangeByScore(ctx, key, "-inf", over)
			p.ZRemRangeByRank(ctx, key, 0, -most-1)
			p.PExpire(ctx, key, keyLifetime)
		}
		p.ZAdd(ctx, f.fencesKey(fence.System), until)
		keep(f.fencesKey(fence.System), MaxPerSystem)
		if fence.System != "" { // the platform's are looked at in any case
			p.ZAddGT(ctx, f.systemsKey(), redis.Z{Score: until.Score, Member: string(fence.System)})
			keep(f.systemsKey(), MaxSystems)
		}
		return nil
	})
	return err
}

// Load takes over what Redis has.
func (f *Fences) Load(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, loadLimit)
	defer cancel()
	since := &redis.ZRangeBy{Min: fmt.Sprint("(", time.Now().UnixMilli()), Max: "+inf"}
	systems, err := f.client.ZRangeByScore(ctx, f.systemsKey(), since).Result()
	if err != nil {
		return fmt.Errorf("fences: load: %w", err)
	}
	systems = append(systems, "")
	replies := make([]*redis.ZSliceCmd, len(systems))
	_, err = f.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, system := range systems {
			replies[i] = p.ZRangeByScoreWithScores(ctx, f.fencesKey(domain.SystemID(system)), since)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("fences: load: %w", err)
	}
	for _, reply := range replies {
		for _, z := range reply.Val() {
			fence := Fence{Until: time.UnixMilli(int64(z.Score))}
			text, _ := z.Member.(string)
			if err := json.Unmarshal([]byte(text), &fence); err != nil {
				f.logger.Error("fences: a fence cannot be read", "error", err)
				continue
			}
			if f.hold(entry{Fence: fence}) && f.Learned != nil {
				f.Learned(fence)
			}
		}
	}
	return nil
}

// Run loads what others have raised, writes what could not be written, and
// forgets what is over, until ctx ends.
func (f *Fences) Run(ctx context.Context) error {
	pause := gapPause
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
		pause = refreshEvery
		if err := f.refresh(ctx); err != nil && ctx.Err() == nil {
			f.logger.Warn("fences: not up to date; trying again", "error", err)
			pause = retryPause
		}
	}
}

func (f *Fences) refresh(ctx context.Context) error {
	var failed error
	for _, e := range f.purge(time.Now()) {
		if err := f.write(ctx, e.Fence); err != nil {
			failed = fmt.Errorf("fences: write: %w", err)
			break
		}
		f.written(e)
	}
	return errors.Join(failed, f.Load(ctx))
}

// purge forgets what is over, and returns what Redis does not have yet.
func (f *Fences) purge(now time.Time) (unwritten []entry) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for system, of := range f.systems {
		for w, e := range of {
			switch {
			case !now.Before(e.Until):
				delete(of, w)
			case e.unwritten:
				unwritten = append(unwritten, e)
			}
		}
		if len(of) == 0 {
			delete(f.systems, system)
		}
	}
	f.any.Store(len(f.systems) > 0)
	return unwritten
}

func (f *Fences) written(e entry) {
	f.mu.Lock()
	defer f.mu.Unlock()
	w := who{e.Subject, e.Role}
	if known, ok := f.systems[e.System][w]; ok && known.CommandID == e.CommandID {
		known.unwritten = false
		f.systems[e.System][w] = known
	}
}

func (f *Fences) systemsKey() string { return f.prefix + "systems" }

// fencesKey is where the fences of a system are, by the time that they end. A
// system's id has no colon in it: it cannot be taken for the key above.
func (f *Fences) fencesKey(system domain.SystemID) string { return f.prefix + "of:" + string(system) }
