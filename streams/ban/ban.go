// Package ban stores bans, which keep disconnected clients from reconnecting for a
// while. Every process holds all bans in memory, so that a check costs nothing. Redis
// holds them as well, for processes that start later.
//
// # How a process learns of a ban
//
// Every process reads the command that raises the ban from the log, and writes the
// ban to Redis before it drops a single socket; all processes write the same. A
// process that starts reads commands from some position of the log on, and then loads
// the bans from Redis. It can miss a command from before that position whose ban no
// process has written yet. Therefore it loads the bans again after a few seconds, and
// then periodically, which also recovers bans that it missed while it could not follow
// the log. The process then disconnects the clients that connected in between. One
// gap remains: if every process dies between the command and its writing, the ban is
// lost. In that case no client was disconnected either, and the sender was not told
// that the command is done.
package ban

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

// Bounds of the list. Beyond them the bans that end first are removed. They apply per system, so
// that no system can push out the bans of another.
const (
	MaxPerSystem = 256
	MaxSystems   = 1024
)

const (
	writeTimeout = time.Second // the longest that writing a ban delays the disconnect that follows it
	loadTimeout  = 5 * time.Second
	retryPause   = time.Second
	gapPause     = 3 * time.Second // longer than a process takes from hearing a command to writing its ban
	refreshEvery = time.Minute
	clockSkew    = time.Minute // how long bans that are over stay in Redis, because clocks differ
	keyLifetime  = domain.MaxBan + time.Hour
)

// target identifies the clients that a ban refuses, within its system. There is one ban for
// each target: the one that ends last.
type target struct {
	subject string
	role    domain.Role
}

type entry struct {
	domain.Ban
	unwritten bool // Redis does not have it yet
}

// List holds the bans of one process. It is safe for concurrent use.
type List struct {
	client redis.UniversalClient
	prefix string
	logger *slog.Logger

	any     atomic.Bool   // whether there may be a ban: nearly always there is none
	refused chan struct{} // capacity 1: a write failed, and Run should try again

	mu      sync.RWMutex
	systems map[domain.SystemID]map[target]entry // "" holds the bans of the whole platform
}

// New returns an empty List; see [List.Load]. prefix begins the names of its keys in Redis.
func New(client redis.UniversalClient, prefix string, logger *slog.Logger) *List {
	return &List{
		client: client, prefix: prefix + ":{bans}:", logger: logger, // one slot of a cluster: they are few
		refused: make(chan struct{}, 1), systems: map[domain.SystemID]map[target]entry{},
	}
}

// Check returns the ban that refuses the actor in the system or on the whole platform, the one
// that ends last if there are several. With an empty system it checks the platform's bans only.
// Bans of a system do not refuse staff, because the system's admin could hide from staff
// otherwise.
func (l *List) Check(actor domain.Actor, system domain.SystemID) (found domain.Ban, banned bool) {
	if !l.any.Load() {
		return domain.Ban{}, false
	}
	now := time.Now()
	l.mu.RLock()
	defer l.mu.RUnlock()
	check := func(bans map[target]entry) {
		for _, t := range [...]target{{actor.Subject, actor.Role}, {actor.Subject, ""}, {"", actor.Role}, {}} {
			if e, ok := bans[t]; ok && now.Before(e.Until) && e.Until.After(found.Until) {
				found, banned = e.Ban, true
			}
		}
	}
	check(l.systems[""])
	if system != "" && actor.Role != domain.RoleStaff {
		check(l.systems[system])
	}
	return found, banned
}

// Raise adds a ban to this process, and returns once Redis has it. If Redis does not take it
// within a second, Raise returns an error, the ban holds in this process only, and [List.Run]
// tries to write it about once a second. Raising a ban twice is fine. Raise ignores a ban that
// is over.
func (l *List) Raise(ctx context.Context, ban domain.Ban) error {
	if ban.System == "" && ban.Subject == "" && ban.Role == "" {
		return errors.New("bans: raise: a ban needs a system, a subject or a role")
	}
	ban.Until = ban.Until.Truncate(time.Millisecond) // the precision that Redis stores
	if !time.Now().Before(ban.Until) {
		return nil
	}
	e := entry{ban, true}
	l.hold(e) // first, so that Load does not report it as learned
	if err := l.write(ctx, ban); err != nil {
		select {
		case l.refused <- struct{}{}:
		default: // Run already knows
		}
		return fmt.Errorf("bans: raise: %w", err)
	}
	l.written(e)
	return nil
}

// hold adds a ban to memory. It returns false if there is a ban for the same target that ends
// at the same time or later.
func (l *List) hold(e entry) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	bans := l.systems[e.System]
	if bans == nil {
		bans = map[target]entry{}
		l.systems[e.System] = bans
	}
	t := target{e.Subject, e.Role}
	if known, ok := bans[t]; ok && !known.Until.Before(e.Until) {
		return false
	}
	bans[t] = e
	if len(bans) > MaxPerSystem {
		dropFirst(bans, func(_ target, e entry) time.Time { return e.Until })
	}
	if len(l.systems) > MaxSystems+1 { // 1 for the platform
		dropFirst(l.systems, func(system domain.SystemID, bans map[target]entry) time.Time {
			if system == "" {
				return time.Time{}
			}
			return latest(bans)
		})
	}
	l.any.Store(true)
	return true
}

// dropFirst removes the value that ends first. A value with a zero end stays.
func dropFirst[K comparable, V any](from map[K]V, until func(K, V) time.Time) {
	var first K
	var ends time.Time
	for k, v := range from {
		if at := until(k, v); !at.IsZero() && (ends.IsZero() || at.Before(ends)) {
			first, ends = k, at
		}
	}
	delete(from, first)
}

func latest(bans map[target]entry) (end time.Time) {
	for _, e := range bans {
		if e.Until.After(end) {
			end = e.Until
		}
	}
	return end
}

// write stores a ban in Redis, and removes bans from there that are over or beyond the bounds.
func (l *List) write(ctx context.Context, ban domain.Ban) error {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	member, err := json.Marshal(ban)
	if err != nil {
		return err
	}
	over := fmt.Sprint(time.Now().Add(-clockSkew).UnixMilli())
	until := redis.Z{Score: float64(ban.Until.UnixMilli()), Member: member}
	_, err = l.client.TxPipelined(ctx, func(p redis.Pipeliner) error {
		trim := func(key string, most int64) {
			p.ZRemRangeByScore(ctx, key, "-inf", over)
			p.ZRemRangeByRank(ctx, key, 0, -most-1)
			p.PExpire(ctx, key, keyLifetime)
		}
		p.ZAdd(ctx, l.bansKey(ban.System), until)
		trim(l.bansKey(ban.System), MaxPerSystem)
		if ban.System != "" { // Load always reads the platform's bans
			p.ZAddGT(ctx, l.systemsKey(), redis.Z{Score: until.Score, Member: string(ban.System)})
			trim(l.systemsKey(), MaxSystems)
		}
		return nil
	})
	return err
}

// Load adds the bans that are in Redis to this process. It is for a process that serves no
// clients yet. It skips bans that it cannot decode.
func (l *List) Load(ctx context.Context) error { return l.fetch(ctx, func(domain.Ban) {}) }

// fetch adds the bans that are in Redis to this process, and passes each new one to learned.
func (l *List) fetch(ctx context.Context, learned func(domain.Ban)) error {
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	since := &redis.ZRangeBy{Min: fmt.Sprint("(", time.Now().UnixMilli()), Max: "+inf"}
	systems, err := l.client.ZRangeByScore(ctx, l.systemsKey(), since).Result()
	if err != nil {
		return fmt.Errorf("bans: load: %w", err)
	}
	systems = append(systems, "")
	replies := make([]*redis.ZSliceCmd, len(systems))
	_, err = l.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, system := range systems {
			replies[i] = p.ZRangeByScoreWithScores(ctx, l.bansKey(domain.SystemID(system)), since)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("bans: load: %w", err)
	}
	for _, reply := range replies {
		for _, z := range reply.Val() {
			ban := domain.Ban{Until: time.UnixMilli(int64(z.Score))}
			text, _ := z.Member.(string)
			if err := json.Unmarshal([]byte(text), &ban); err != nil {
				l.logger.Error("bans: cannot decode a ban", "error", err)
				continue
			}
			if l.hold(entry{Ban: ban}) {
				learned(ban)
			}
		}
	}
	return nil
}

// Run keeps the list up to date until ctx ends, and then returns nil: it loads the bans that other processes raised,
// writes bans that could not be written, and removes bans that are over. It calls learned with
// each ban that another process raised: matching clients may have connected already.
func (l *List) Run(ctx context.Context, learned func(domain.Ban)) error {
	due := time.Now().Add(gapPause)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-l.refused:
			if soon := time.Now().Add(retryPause); soon.Before(due) {
				due = soon
			}
			continue
		case <-time.After(time.Until(due)):
		}
		pause := refreshEvery
		if err := l.refresh(ctx, learned); err != nil && ctx.Err() == nil {
			l.logger.Warn("bans: cannot refresh; trying again", "error", err)
			pause = retryPause
		}
		due = time.Now().Add(pause)
	}
}

func (l *List) refresh(ctx context.Context, learned func(domain.Ban)) error {
	var failed error
	for _, e := range l.purge(time.Now()) {
		if err := l.write(ctx, e.Ban); err != nil {
			failed = fmt.Errorf("bans: write: %w", err)
			break
		}
		l.written(e)
	}
	return errors.Join(failed, l.fetch(ctx, learned))
}

// purge removes the bans that are over, and returns those that are not in Redis yet.
func (l *List) purge(now time.Time) (unwritten []entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for system, bans := range l.systems {
		for t, e := range bans {
			switch {
			case !now.Before(e.Until):
				delete(bans, t)
			case e.unwritten:
				unwritten = append(unwritten, e)
			}
		}
		if len(bans) == 0 {
			delete(l.systems, system)
		}
	}
	l.any.Store(len(l.systems) > 0)
	return unwritten
}

// written notes that Redis has a ban, unless another ban has replaced it.
func (l *List) written(e entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := target{e.Subject, e.Role}
	if known, ok := l.systems[e.System][t]; ok && known.CommandID == e.CommandID {
		known.unwritten = false
		l.systems[e.System][t] = known
	}
}

func (l *List) systemsKey() string { return l.prefix + "systems" }

// bansKey names the sorted set of a system's bans, by the time at which they end. A system's id
// has no colon, so it cannot collide with systemsKey.
func (l *List) bansKey(system domain.SystemID) string { return l.prefix + "of:" + string(system) }
