package streams

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/plugcast/plugcast/domain"
)

// keyLifetime is how long an idempotency key is remembered.
const keyLifetime = 24 * time.Hour

// appendScript checks the conditions of an append and adds all of its entries, or none. It
// checks everything before it writes anything.
//
// KEYS: events, heads, then the idempotency keys, one per system of the append, and if these
// are counted, the counter of each of those systems. ARGV: fingerprint, lifetime of keys in
// seconds, head field or "", expected head, number of idempotency keys, how many of them one
// system may have (0: they are not counted), then ten values per entry in the order of
// fieldNames.
//
// The first entry gets its id from Redis and the others follow it contiguously, so that an
// idempotency key only has to remember the first id and the count. Ids are compared as text:
// Lua's numbers would round them.
//
// A counter holds the number of keys that were made in each hour. When an hour has passed
// completely and the lifetime of keys with it, its keys have expired.
var appendScript = newScript(luaAfter + luaAdd + `
local named, most = tonumber(ARGV[5]), tonumber(ARGV[6])
local known = 0
for i = 3, 2 + named do
	local kept = redis.call('GET', KEYS[i])
	if kept then
		local fingerprint = string.match(kept, '^%d+ %S+ (.*)$')
		if fingerprint ~= ARGV[1] then return {'reused'} end
		known = known + 1
	end
end
if known > 0 then
	if known < named then return {'reused'} end
	local count, first = string.match(redis.call('GET', KEYS[3]), '^(%d+) (%S+)')
	return {'replayed', first, count}
end
if redis.call('EXISTS', KEYS[1]) == 0 then return {'missing'} end
if ARGV[3] ~= '' then
	local head = redis.call('HGET', KEYS[2], ARGV[3])
	if head and after(head, ARGV[4]) then return {'conflict', head} end
end
local seconds = tonumber(redis.call('TIME')[1])
local hour = math.floor(seconds / 3600)
if most > 0 then
	for i = 3 + named, 2 + 2 * named do
		local made, oldest = 0, hour
		local counts = redis.call('HGETALL', KEYS[i])
		for j = 1, #counts, 2 do
			local of = tonumber(counts[j])
			if (of + 1) * 3600 + ARGV[2] <= seconds then
				redis.call('HDEL', KEYS[i], counts[j])
			else
				made = made + counts[j + 1]
				oldest = math.min(oldest, of)
			end
		end
		if made >= most then return {'full', string.format('%.0f', (oldest + 1) * 3600 + ARGV[2] - seconds)} end
	end
end
local first, ms, n
local count = (#ARGV - 6) / 10
for i = 0, count - 1 do
	local id = '*'
	if i > 0 then id = ms .. '-' .. string.format('%.0f', n + i) end
	local v = 6 + i * 10
	local added = add(KEYS[1], id, v)
	if i == 0 then
		first = added
		ms, n = cut(added)
		n = tonumber(n)
	end
end
if ARGV[3] ~= '' then
	redis.call('HSET', KEYS[2], ARGV[3], ms .. '-' .. string.format('%.0f', n + count - 1))
end
for i = 3, 2 + named do
	redis.call('SET', KEYS[i], string.format('%.0f', count) .. ' ' .. first .. ' ' .. ARGV[1], 'EX', ARGV[2])
	if most > 0 then
		redis.call('HINCRBY', KEYS[i + named], hour, 1)
		redis.call('EXPIRE', KEYS[i + named], ARGV[2] + 3600)
	end
end
return {'added', first}
`)

// luaAdd adds the entry whose values follow the argument v, and returns its id.
const luaAdd = `
local function add(stream, id, v)
	return redis.call('XADD', stream, 'NOMKSTREAM', id,
		'id', ARGV[v + 1], 'type', ARGV[v + 2], 'version', ARGV[v + 3], 'systemId', ARGV[v + 4], 'time', ARGV[v + 5],
		'actor', ARGV[v + 6], 'correlationId', ARGV[v + 7], 'causationId', ARGV[v + 8], 'origin', ARGV[v + 9],
		'data', ARGV[v + 10])
end
`

// script is a Lua script. It is run by its digest if Redis knows it.
type script struct {
	text   string
	digest string
}

func newScript(text string) *script { return &script{text: text, digest: redis.NewScript(text).Hash()} }

// run runs the script, at most once: Redis answers NOSCRIPT before it does anything.
func (s *script) run(ctx context.Context, client redis.UniversalClient, keys []string, args ...any) ([]any, error) {
	all := make([]any, 0, 3+len(keys)+len(args))
	all = append(all, "evalsha", s.digest, len(keys))
	for _, key := range keys {
		all = append(all, key)
	}
	all = append(all, args...)
	cmd := newAttempt(ctx, all...)
	err := client.Process(ctx, cmd)
	if redis.HasErrorPrefix(err, "NOSCRIPT") {
		all[0], all[1] = "eval", s.text
		cmd = newAttempt(ctx, all...)
		err = client.Process(ctx, cmd)
	}
	if err != nil {
		return nil, err
	}
	return cmd.Slice()
}

func (l *Log) sendScript(ctx context.Context, s shard, entries [][]any, opts domain.AppendOptions) (domain.Appended, error) {
	k := &l.keys[s.partition]
	names := []string{k.events, k.heads}
	args := make([]any, 6, 6+len(entries)*len(fieldNames))
	args[0], args[1], args[2], args[3], args[4], args[5] = "", int(keyLifetime/time.Second), "", "", 0, 0
	if opts.Idempotency != nil {
		args[0] = fingerprint(opts.Idempotency)
		of := distinctSystems(s.events)
		for _, system := range of {
			names = append(names, k.idempotency(system, opts.Idempotency))
		}
		args[4] = len(of)
		if opts.Idempotency.CallerChosen {
			args[5] = l.config.MaxIdempotencyKeys
			if s.completes {
				args[5] = math.MaxInt32
			}
			for _, system := range of {
				names = append(names, k.idempotencyCounts(system))
			}
		}
	}
	if opts.Expect != nil {
		args[2] = headField(s.events[0].SystemID, opts.Expect.Aggregate)
		args[3] = opts.Expect.Head.String()
	}
	for _, entry := range entries {
		args = append(args, entry...)
	}
	reply, err := detached(ctx, l, func(ctx context.Context) ([]any, error) {
		return appendScript.run(ctx, l.appender, names, args...)
	})
	if err != nil {
		return domain.Appended{}, err
	}
	return scriptAnswer(reply, len(entries), opts)
}

// scriptAnswer decodes the reply of [appendScript].
func scriptAnswer(reply []any, n int, opts domain.AppendOptions) (domain.Appended, error) {
	words := make([]string, 3)
	for i, v := range reply {
		if i < len(words) {
			words[i], _ = v.(string)
		}
	}
	switch words[0] {
	case "missing":
		return domain.Appended{}, errMissing
	case "reused":
		return domain.Appended{}, keyReused()
	case "full":
		seconds, err := strconv.ParseInt(words[1], 10, 64)
		if err != nil {
			return domain.Appended{}, fmt.Errorf("streams: append: the script answered %v", reply)
		}
		return domain.Appended{}, tooManyKeys(time.Duration(seconds) * time.Second)
	case "conflict":
		head, err := domain.ParsePosition(words[1])
		if err != nil {
			return domain.Appended{}, err
		}
		return domain.Appended{}, &domain.ConflictError{
			Aggregate: opts.Expect.Aggregate, Expected: opts.Expect.Head, Head: head,
		}
	case "added":
		first, err := domain.ParsePosition(words[1])
		return domain.Appended{Positions: following(first, n)}, err
	case "replayed":
		replayed, err := parseRecalled(words[2] + " " + words[1])
		if err == nil && len(replayed.Positions) != n {
			err = keyReused()
		}
		return replayed, err
	}
	return domain.Appended{}, fmt.Errorf("streams: append: the script answered %v", reply)
}

func keyReused() error {
	return domain.Invalid(domain.CodeKeyReused, "this idempotency key was used for another request")
}

// tooManyKeys refuses a request whose key could not be remembered. If the log forgot another
// key before its time instead, a repeat under that key would append twice.
func tooManyKeys(wait time.Duration) error {
	return domain.Fail(domain.KindLimited, domain.CodeTooManyKeys, "the system has used all of its idempotency keys of 24 hours: "+
		"send more in one request, or repeat the request without a key if it may be done twice").
		With("retryAfterMs", max(wait, time.Second).Milliseconds())
}

// following returns n contiguous positions.
func following(first domain.Position, n int) []domain.Position {
	positions := make([]domain.Position, n)
	for i := range positions {
		positions[i] = domain.Position{Ms: first.Ms, N: first.N + uint64(i)}
	}
	return positions
}

// parseRecalled decodes "<count> <first position>", the value of an idempotency key.
func parseRecalled(kept string) (domain.Appended, error) {
	count, first, _ := strings.Cut(kept, " ")
	n, err := strconv.Atoi(count)
	if err != nil {
		return domain.Appended{}, fmt.Errorf("streams: an idempotency key holds %q", kept)
	}
	at, err := domain.ParsePosition(first)
	if err != nil {
		return domain.Appended{}, fmt.Errorf("streams: an idempotency key holds %q", kept)
	}
	return domain.Appended{Positions: following(at, n), Replayed: true}, nil
}

// fingerprint shortens a request's fingerprint to at most 64 characters.
func fingerprint(key *domain.Idempotency) string {
	if len(key.Fingerprint) <= 2*sha256.Size {
		return key.Fingerprint
	}
	sum := sha256.Sum256([]byte(key.Fingerprint))
	return hex.EncodeToString(sum[:])
}

// distinctSystems returns the systems of the events, each once, in order of appearance.
func distinctSystems(events []domain.Event) []domain.SystemID {
	var list []domain.SystemID
	seen := make(map[domain.SystemID]bool, 1)
	for i := range events {
		if system := events[i].SystemID; !seen[system] {
			seen[system] = true
			list = append(list, system)
		}
	}
	return list
}

// Recall implements [domain.Log]. For an append to several systems it returns the positions in
// the partition of the given system.
func (l *Log) Recall(ctx context.Context, system domain.SystemID, key domain.Idempotency) (domain.Appended, error) {
	k := &l.keys[l.Partition(system)]
	kept, err := l.general.Get(ctx, k.idempotency(system, &key)).Result()
	if errors.Is(err, redis.Nil) {
		return domain.Appended{}, nil
	}
	if err != nil {
		return domain.Appended{}, unavailable("recall", err)
	}
	words := strings.SplitN(kept, " ", 3)
	if len(words) != 3 {
		return domain.Appended{}, fmt.Errorf("streams: recall: an idempotency key holds %q", kept)
	}
	if words[2] != fingerprint(&key) {
		return domain.Appended{}, keyReused()
	}
	return parseRecalled(words[0] + " " + words[1])
}

// Newest implements [domain.Log]: the position of the last entry of the system's partition, of
// any system. It is zero if the partition has no entry, because then everything is archived. It
// differs from [Log.Tail], which may be a position without an entry, which no archive ever
// reaches.
func (l *Log) Newest(ctx context.Context, system domain.SystemID) (domain.Position, error) {
	last, err := l.general.XRevRangeN(ctx, l.keys[l.Partition(system)].events, "+", "-", 1).Result()
	if err != nil {
		return domain.Position{}, unavailable("newest", err)
	}
	if len(last) == 0 {
		return domain.Position{}, nil
	}
	return domain.ParsePosition(last[0].ID)
}

// checkReuse checks, before an append to several partitions, whether one of them knows the key
// from another request, or can remember no more keys. begun is true if one of them has its part
// already: then the others must follow, even if their systems have used up their keys.
func (l *Log) checkReuse(ctx context.Context, events []domain.Event, key *domain.Idempotency) (begun bool, err error) {
	of := distinctSystems(events)
	for _, system := range of {
		recalled, err := l.Recall(ctx, system, *key)
		if err != nil {
			return false, err
		}
		begun = begun || recalled.Replayed
	}
	if begun || !key.CallerChosen {
		return begun, nil
	}
	for _, system := range of {
		if err := l.checkKeyCount(ctx, system); err != nil {
			return false, err
		}
	}
	return false, nil
}

// checkKeyCount fails if a system has used up its idempotency keys.
func (l *Log) checkKeyCount(ctx context.Context, system domain.SystemID) error {
	counts, err := l.general.HGetAll(ctx, l.keys[l.Partition(system)].idempotencyCounts(system)).Result()
	if err != nil {
		return unavailable("count keys", err)
	}
	now, made, wait := time.Now(), 0, keyLifetime
	for hour, n := range counts {
		hours, _ := strconv.ParseInt(hour, 10, 64)
		over := time.Unix((hours+1)*3600, 0).Add(keyLifetime)
		if n, err := strconv.Atoi(n); err == nil && over.After(now) {
			made, wait = made+n, min(wait, over.Sub(now))
		}
	}
	if made >= l.config.MaxIdempotencyKeys {
		return tooManyKeys(wait)
	}
	return nil
}
