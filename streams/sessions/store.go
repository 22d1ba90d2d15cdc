// Package sessions stores what a client needs to resume where it was, on any process, even if
// the process that served it died. The stored bytes mean nothing to this package. A session has
// one holder at a time: the connection that claimed it last. An older connection whose network
// hangs cannot overwrite it.
//
// # Bounds
//
// Every viewer can leave sessions behind, in the Redis that holds the log. Therefore the
// sessions of one subject, and of one system, are bounded in bytes. Beyond the bound the
// sessions that expire first are removed, those of the subject before those of other subjects.
// All sessions of a system are in four keys on one slot of a cluster. The keys expire when no
// session of the system was written for [Lifetime].
package sessions

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/plugcast/plugcast/domain"
)

const (
	// Lifetime is how long a session is kept after the last Save, Claim or Keep.
	Lifetime = 7 * 24 * time.Hour
	// EndedLifetime is how long a session is kept after its client ended it in order.
	EndedLifetime = 2 * time.Minute
)

// batch is how many sessions one call of a script extends.
const batch = 500

// Overhead is added to the stored bytes of each session when they are counted: its share of the
// four keys (measured: 470 bytes with Redis 7.0).
const Overhead = 512

// Limits bound the stored sessions, in bytes. Zero fields take their defaults.
type Limits struct {
	PerSubject int // of one subject in one system; default 1 MiB: 1,500 clients in one room each
	PerSystem  int // default 16 MiB
}

// Store stores sessions. It is safe for concurrent use. A session that one process saved can be
// claimed by every process.
type Store struct {
	client redis.UniversalClient
	prefix string
	limits Limits
}

// New returns a Store. prefix begins the names of its keys in Redis.
func New(client redis.UniversalClient, prefix string, limits Limits) *Store {
	limits.PerSubject = cmp.Or(limits.PerSubject, 1<<20)
	limits.PerSystem = cmp.Or(limits.PerSystem, 16<<20)
	return &Store{client: client, prefix: prefix, limits: limits}
}

// luaStore is the part that the scripts share.
//
// KEYS: a hash (session id -> holder and record), a sorted set of the ids by the time at which
// they expire, a sorted set of subject:time:id in the order of that text, and a hash of the
// bytes in use, per subject and, under the empty name, in all. ARGV: the bounds per subject and
// per system, Overhead, Lifetime in ms.
const luaStore = `
local saved, expiring, owned, used = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local perSubject, perSystem, overhead, lifetime = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

local function subjectOf(id) return string.match(id, '^[^:]*') end
local function ownedMember(id, expires) return subjectOf(id) .. ':' .. string.format('%015.0f', expires) .. ':' .. id end

local function read(id)
	local kept = redis.call('HGET', saved, id)
	if not kept then return nil end
	local holder, record = string.match(kept, '^(%S+) (.*)$')
	return holder, record
end

local function count(id, n)
	for _, field in ipairs({'', subjectOf(id)}) do
		if redis.call('HINCRBY', used, field, n) <= 0 then redis.call('HDEL', used, field) end
	end
end

local function remove(id)
	local expires = redis.call('ZSCORE', expiring, id)
	if not expires then return end
	count(id, -redis.call('HSTRLEN', saved, id) - overhead)
	redis.call('HDEL', saved, id)
	redis.call('ZREM', expiring, id)
	redis.call('ZREM', owned, ownedMember(id, tonumber(expires)))
end

local function expire(id, expires)
	local before = redis.call('ZSCORE', expiring, id)
	if before then redis.call('ZREM', owned, ownedMember(id, tonumber(before))) end
	redis.call('ZADD', expiring, string.format('%.0f', expires), id)
	redis.call('ZADD', owned, 0, ownedMember(id, expires))
end

local function put(id, holder, record, expires)
	remove(id)
	local kept = holder .. ' ' .. record
	redis.call('HSET', saved, id, kept)
	count(id, #kept + overhead)
	expire(id, expires)
end

-- trim removes the sessions that have expired, and then sessions beyond the bounds, except one.
local function trim(except)
	for _, id in ipairs(redis.call('ZRANGEBYSCORE', expiring, '-inf', now, 'LIMIT', 0, 1000)) do remove(id) end
	local subject = subjectOf(except)
	while tonumber(redis.call('HGET', used, subject) or 0) > perSubject do
		local gone
		for _, member in ipairs(redis.call('ZRANGEBYLEX', owned, '[' .. subject .. ':', '(' .. subject .. ';', 'LIMIT', 0, 2)) do
			local id = string.match(member, '^[^:]*:%d+:(.*)$')
			if id ~= except then gone = gone or id end
		end
		if not gone then break end
		remove(gone)
	end
	while tonumber(redis.call('HGET', used, '') or 0) > perSystem do
		local gone
		for _, id in ipairs(redis.call('ZRANGE', expiring, 0, 1)) do
			if id ~= except then gone = gone or id end
		end
		if not gone then break end
		remove(gone)
	end
	for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, lifetime) end
end
`

// claim makes ARGV[6] the holder of session ARGV[5], if the session exists, and returns its
// record. A field that cannot be read counts as no session: an error would turn its client away
// for ever.
var claim = redis.NewScript(luaStore + `
local id = ARGV[5]
local expires = redis.call('ZSCORE', expiring, id)
local _, record = read(id)
if not record or not expires or tonumber(expires) <= now then return false end
put(id, ARGV[6], record, now + lifetime)
trim(id)
return record`)

// save writes the record ARGV[7] if session ARGV[5] does not exist or is held by ARGV[6].
var save = redis.NewScript(luaStore + `
local id = ARGV[5]
local holder = read(id)
if holder and holder ~= ARGV[6] then return 0 end
put(id, ARGV[6], ARGV[7], now + lifetime)
trim(id)
return 1`)

// finish lets session ARGV[5] expire after ARGV[7] ms if it is held by ARGV[6].
var finish = redis.NewScript(luaStore + `
if read(ARGV[5]) == ARGV[6] then expire(ARGV[5], now + ARGV[7]) end
return 1`)

// extend extends the sessions from ARGV[5] on that exist.
var extend = redis.NewScript(luaStore + `
for i = 5, #ARGV do
	if redis.call('ZSCORE', expiring, ARGV[i]) then expire(ARGV[i], now + lifetime) end
end
for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, lifetime) end
return 1`)

func (s *Store) run(ctx context.Context, script *redis.Script, system domain.SystemID, args ...any) *redis.Cmd {
	base := s.prefix + ":{sessions:" + string(system) + "}:"
	keys := []string{base + "saved", base + "expiring", base + "owned", base + "used"}
	all := append([]any{s.limits.PerSubject, s.limits.PerSystem, Overhead, Lifetime.Milliseconds()}, args...)
	return script.Run(ctx, s.client, keys, all...)
}

// id names a session within its system. It hashes the subject, which may have any length and
// any characters.
func id(ref domain.SessionRef) string {
	sum := sha256.Sum256([]byte(ref.Subject))
	return base64.RawURLEncoding.EncodeToString(sum[:16]) + ":" + ref.PID
}

// Claim returns the record that was saved last, makes holder the only one that can save from
// now on, and keeps the session for [Lifetime] from now. ok is false if the session does not
// exist or has expired.
func (s *Store) Claim(ctx context.Context, ref domain.SessionRef, holder string) (saved []byte, ok bool, err error) {
	text, err := s.run(ctx, claim, ref.System, id(ref), holder).Text()
	if errors.Is(err, redis.Nil) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("sessions: claim: %w", err)
	}
	return []byte(text), true, nil
}

// Save stores a record for [Lifetime], unless the bounds of its subject or system remove it
// sooner. When Save returns, Redis has the record on disk, provided that Redis syncs every
// write. ok is false, and nothing is stored, if another holder has claimed the session. holder
// must not contain white space.
func (s *Store) Save(ctx context.Context, ref domain.SessionRef, holder string, saved []byte) (ok bool, err error) {
	did, err := s.run(ctx, save, ref.System, id(ref), holder, saved).Int()
	if err != nil {
		return false, fmt.Errorf("sessions: save: %w", err)
	}
	return did == 1, nil
}

// End notes that the client ended the session in order, or has nothing to resume: the session
// expires after [EndedLifetime]. End does nothing if another holder has claimed the session.
func (s *Store) End(ctx context.Context, ref domain.SessionRef, holder string) error {
	if err := s.run(ctx, finish, ref.System, id(ref), holder, EndedLifetime.Milliseconds()).Err(); err != nil {
		return fmt.Errorf("sessions: end: %w", err)
	}
	return nil
}

// Keep lets sessions expire [Lifetime] from now. It does not bring back sessions that are gone.
func (s *Store) Keep(ctx context.Context, refs []domain.SessionRef) error {
	bySystem := map[domain.SystemID][]any{}
	for _, ref := range refs {
		bySystem[ref.System] = append(bySystem[ref.System], id(ref))
	}
	for system, ids := range bySystem {
		for len(ids) > 0 {
			n := min(batch, len(ids))
			if err := s.run(ctx, extend, system, ids[:n]...).Err(); err != nil {
				return fmt.Errorf("sessions: keep: %w", err)
			}
			ids = ids[n:]
		}
	}
	return nil
}
