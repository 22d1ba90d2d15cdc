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
// the log. [List.Learned] then disconnects the clients that connected in between. One
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

// Bounds of what is kept. Beyond them the bans that end first go first. They
// are per system, so that no system can push another's out.
const (
	MaxPerSystem = 256
	MaxSystems   = 1024
)

const (
	writeLimit   = time.Second // the most that a ban holds up the drop behind it
	loadLimit    = 5 * time.Second
	retryPause   = time.Second
	gapPause     = 3 * time.Second // longer than a process takes from hearing a command to writing its ban
	refreshEvery = time.Minute
	slack        = time.Minute // for clocks that differ, before what is over is thrown away
	keyLifetime  = domain.MaxBan + time.Hour
)

// Ban refuses every client that matches all of Subject and Role that are set: in one
// system or, without a system, everywhere.
type Ban struct {
	System    domain.SystemID `json:"system,omitempty"`
	Subject   string          `json:"subject,omitempty"`
	Role      domain.Role     `json:"role,omitempty"`
	Reason    string          `json:"reason,omitempty"`
	CommandID string          `json:"commandId"`
	Until     time.Time       `json:"-"`
}

// who identifies the clients that a ban is for, within its system. There is one ban
// for each: the one that ends last.
type who struct {
	subject string
	role    domain.Role
}

type entry struct {
	Ban
	unwritten bool // Redis does not have it yet
}

// List is safe for concurrent use.
type List struct {
	client redis.UniversalClient
	prefix string
	logger *slog.Logger

	// Learned is called with each ban that Load finds and that was not raised here:
	// matching clients may have connected already. Nil does nothing. Set it before use.
	Learned func(Ban)

	any     atomic.Bool   // whether there may be a ban: nearly always there is none
	refused chan struct{} // has room for one; Redis did not take a ban, and Run is to try again

	mu      sync.RWMutex
	systems map[domain.SystemID]map[who]entry // "" is the whole platform
}

// New makes the bans of one process. It knows none before [List.Load].
func New(client redis.UniversalClient, prefix string, logger *slog.Logger) *List {
	return &List{
		client: client, prefix: prefix + ":{bans}:", logger: logger, // one slot of a cluster: they are few
		refused: make(chan struct{}, 1), systems: map[domain.SystemID]map[who]entry{},
	}
}

// Check returns the ban that keeps the actor out of the system or of the whole
// platform, the one that ends last if there are several. An empty system asks for
// the platform alone. No system keeps staff out: its admin could hide from them.
func (f *List) Check(actor domain.Actor, system domain.SystemID) (found Ban, banned bool) {
	if !f.any.Load() {
		return Ban{}, false
	}
	now := time.Now()
	f.mu.RLock()
	defer f.mu.RUnlock()
	look := func(of map[who]entry) {
		for _, w := range [...]who{{actor.Subject, actor.Role}, {actor.Subject, ""}, {"", actor.Role}, {}} {
			if e, ok := of[w]; ok && now.Before(e.Until) && e.Until.After(found.Until) {
				found, banned = e.Ban, true
			}
		}
	}
	look(f.systems[""])
	if system != "" && actor.Role != domain.RoleStaff {
		look(f.systems[system])
	}
	return found, banned
}

// Raise holds a ban in this process, and returns when Redis has it, or with an
// error when Redis does not take it within a second: [List.Run] then tries
// again about once a second. Raising a ban twice is fine; one that is over is not raised.
func (f *List) Raise(ctx context.Context, ban Ban) error {
	if ban.System == "" && ban.Subject == "" && ban.Role == "" {
		return errors.New("bans: raise: a ban needs a system, a subject or a role")
	}
	ban.Until = ban.Until.Truncate(time.Millisecond) // as Redis has it
	if !time.Now().Before(ban.Until) {
		return nil
	}
	e := entry{ban, true}
	f.hold(e) // first, so that it is not learned of from Redis
	if err := f.write(ctx, ban); err != nil {
		select {
		case f.refused <- struct{}{}:
		default: // Run will try in any case
		}
		return fmt.Errorf("bans: raise: %w", err)
	}
	f.written(e)
	return nil
}

// hold keeps a ban in memory, and reports false when there is one for the same
// that ends no sooner.
func (f *List) hold(e entry) bool {
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

// write puts a ban into Redis, and throws out what is over or too much there.
func (f *List) write(ctx context.Context, ban Ban) error {
	ctx, cancel := context.WithTimeout(ctx, writeLimit)
	defer cancel()
	member, err := json.Marshal(ban)
	if err != nil {
		return err
	}
	over := fmt.Sprint(time.Now().Add(-slack).UnixMilli())
	until := redis.Z{Score: float64(ban.Until.UnixMilli()), Member: member}
	_, err = f.client.TxPipelined(ctx, func(p redis.Pipeliner) error {
		keep := func(key string, most int64) {
			p.ZRemRangeByScore(ctx, key, "-inf", over)
			p.ZRemRangeByRank(ctx, key, 0, -most-1)
			p.PExpire(ctx, key, keyLifetime)
		}
		p.ZAdd(ctx, f.bansKey(ban.System), until)
		keep(f.bansKey(ban.System), MaxPerSystem)
		if ban.System != "" { // the platform's are looked at in any case
			p.ZAddGT(ctx, f.systemsKey(), redis.Z{Score: until.Score, Member: string(ban.System)})
			keep(f.systemsKey(), MaxSystems)
		}
		return nil
	})
	return err
}

// Load takes over what Redis has.
func (f *List) Load(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, loadLimit)
	defer cancel()
	since := &redis.ZRangeBy{Min: fmt.Sprint("(", time.Now().UnixMilli()), Max: "+inf"}
	systems, err := f.client.ZRangeByScore(ctx, f.systemsKey(), since).Result()
	if err != nil {
		return fmt.Errorf("bans: load: %w", err)
	}
	systems = append(systems, "")
	replies := make([]*redis.ZSliceCmd, len(systems))
	_, err = f.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, system := range systems {
			replies[i] = p.ZRangeByScoreWithScores(ctx, f.bansKey(domain.SystemID(system)), since)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("bans: load: %w", err)
	}
	for _, reply := range replies {
		for _, z := range reply.Val() {
			ban := Ban{Until: time.UnixMilli(int64(z.Score))}
			text, _ := z.Member.(string)
			if err := json.Unmarshal([]byte(text), &ban); err != nil {
				f.logger.Error("bans: a ban cannot be read", "error", err)
				continue
			}
			if f.hold(entry{Ban: ban}) && f.Learned != nil {
				f.Learned(ban)
			}
		}
	}
	return nil
}

// Run loads what others have raised, writes what could not be written, and
// forgets what is over, until ctx ends.
func (f *List) Run(ctx context.Context) error {
	due := time.Now().Add(gapPause)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-f.refused:
			if soon := time.Now().Add(retryPause); soon.Before(due) {
				due = soon
			}
			continue
		case <-time.After(time.Until(due)):
		}
		pause := refreshEvery
		if err := f.refresh(ctx); err != nil && ctx.Err() == nil {
			f.logger.Warn("bans: not up to date; trying again", "error", err)
			pause = retryPause
		}
		due = time.Now().Add(pause)
	}
}

func (f *List) refresh(ctx context.Context) error {
	var failed error
	for _, e := range f.purge(time.Now()) {
		if err := f.write(ctx, e.Ban); err != nil {
			failed = fmt.Errorf("bans: write: %w", err)
			break
		}
		f.written(e)
	}
	return errors.Join(failed, f.Load(ctx))
}

// purge forgets what is over, and returns what Redis does not have yet.
func (f *List) purge(now time.Time) (unwritten []entry) {
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

func (f *List) written(e entry) {
	f.mu.Lock()
	defer f.mu.Unlock()
	w := who{e.Subject, e.Role}
	if known, ok := f.systems[e.System][w]; ok && known.CommandID == e.CommandID {
		known.unwritten = false
		f.systems[e.System][w] = known
	}
}

func (f *List) systemsKey() string { return f.prefix + "systems" }

// bansKey is where the bans of a system are, by the time that they end. A
// system's id has no colon in it: it cannot be taken for the key above.
func (f *List) bansKey(system domain.SystemID) string { return f.prefix + "of:" + string(system) }
