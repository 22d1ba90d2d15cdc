package streams

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/domain/backoff"
)

// ensureScript makes a stream exist with its last id at or past the floor, and
// knows where it begins. KEYS: events, origin, cursors, foreign. ARGV: floor, a new
// incarnation.
//
// A stream that had to be made or moved begins at the floor, in a new
// incarnation: what a reader of the one before has seen is not certain. How far the
// logs of others were taken is not certain then either, and is forgotten.
var ensureScript = newScript(luaAfter + `
if redis.call('EXISTS', KEYS[1]) == 0 then
	redis.call('XGROUP', 'CREATE', KEYS[1], 'none', '$', 'MKSTREAM')
	redis.call('XGROUP', 'DESTROY', KEYS[1], 'none')
	redis.call('XSETID', KEYS[1], ARGV[1])
	redis.call('SET', KEYS[2], ARGV[1] .. ' ' .. ARGV[2])
	redis.call('DEL', KEYS[3], KEYS[4])
	return {'created', '0-0'}
end
local last = lastID(KEYS[1])
if after(ARGV[1], last) then
	redis.call('XTRIM', KEYS[1], 'MAXLEN', 0)
	redis.call('XSETID', KEYS[1], ARGV[1])
	redis.call('SET', KEYS[2], ARGV[1] .. ' ' .. ARGV[2])
	redis.call('DEL', KEYS[3], KEYS[4])
	return {'repaired', last}
end
if redis.call('EXISTS', KEYS[2]) == 0 then
	redis.call('SET', KEYS[2], ARGV[1] .. ' ' .. ARGV[2])
	return {'adopted', last}
end
return {'fine', last}
`)

// trimScript removes the entries before a position and remembers the last one
// that went. KEYS: events, origin. ARGV: the position, an incarnation in case
// that there is none.
var trimScript = newScript(luaAfter + `
local gone = redis.call('XREVRANGE', KEYS[1], '(' .. ARGV[1], '-', 'COUNT', 1)
if #gone == 0 then return {0} end
local origin = redis.call('GET', KEYS[2])
local incarnation = origin and string.match(origin, ' (.*)$') or ARGV[2]
redis.call('SET', KEYS[2], gone[1][1] .. ' ' .. incarnation)
return {redis.call('XTRIM', KEYS[1], 'MINID', ARGV[1])}
`)

// expireHeadsScript removes heads that are still before a position. KEYS: heads. ARGV: the
// position, then fields.
var expireHeadsScript = newScript(luaAfter + `
local removed = 0
for i = 2, #ARGV do
	local head = redis.call('HGET', KEYS[1], ARGV[i])
	if head and after(ARGV[1], head) then removed = removed + redis.call('HDEL', KEYS[1], ARGV[i]) end
end
return {removed}
`)

// inspectScript says what readers need in order to trust their places. KEYS: events and
// origin of each partition. ARGV: the reader's position in each. For each it returns
// the origin, the last id ever given, whether the position's entry is there, whether
// that of the last id is, and why Redis could not say that, or "".
var inspectScript = newScript(luaAfter + `
local function look(events, origin, at)
	local begins = redis.call('GET', origin)
	if not begins or redis.call('EXISTS', events) == 0 then return {'', '', 0, 0, ''} end
	local last = lastID(events)
	return {begins, last, #redis.call('XRANGE', events, at, at), #redis.call('XRANGE', events, last, last), ''}
end
local states = {}
for i = 1, #ARGV do
	local ok, streamState = pcall(look, KEYS[2 * i - 1], KEYS[2 * i], ARGV[i])
	if not ok then
		if type(streamState) == 'table' then streamState = streamState.err end
		streamState = {'', '', 0, 0, tostring(streamState)}
	end
	states[i] = streamState
end
return states
`)

// luaAfter compares ids as text, because Lua's numbers would round them.
const luaAfter = `
local function cut(id)
	local dash = string.find(id, '-', 1, true)
	return string.sub(id, 1, dash - 1), string.sub(id, dash + 1)
end
local function less(a, b)
	if #a ~= #b then return #a < #b end
	return a < b
end
local function after(a, b)
	local ams, an = cut(a)
	local bms, bn = cut(b)
	if ams ~= bms then return less(bms, ams) end
	return less(bn, an)
end
local function lastID(stream)
	local info = redis.call('XINFO', 'STREAM', stream)
	for i = 1, #info, 2 do
		if info[i] == 'last-generated-id' then return info[i + 1] end
	end
end
`

// Ensure makes the partition's stream exist, with its last id at or past floor,
// so that the next append gets a later position. A stream that had to be made or
// moved although something is archived is logged as the loss that it is.
func (l *Log) Ensure(ctx context.Context, partition int, floor domain.Position) error {
	k := &l.keys[partition]
	reply, err := ensureScript.run(ctx, l.general, []string{k.events, k.origin, k.cursors, k.foreign}, floor.String(), rand.Text())
	if err != nil {
		return fmt.Errorf("streams: ensure partition %d: %w", partition, err)
	}
	verdict, _ := reply[0].(string)
	last, _ := reply[1].(string)
	switch {
	case verdict == "created" && !floor.IsZero():
		l.logger.Error("redis lost a stream of the log; events that were not archived are gone",
			"partition", partition, "archived", floor.String())
	case verdict == "repaired":
		l.logger.Error("redis was set back behind the archive; events that were not archived are gone",
			"partition", partition, "last", last, "archived", floor.String())
	case verdict == "adopted":
		l.logger.Warn("a stream of the log had lost the note of where it begins", "partition", partition, "last", last)
	case verdict == "created":
		l.logger.Debug("a stream of the log was created", "partition", partition)
	}
	return nil
}

// Tail is the last position that the partition ever gave, also if that entry is
// gone by now.
func (l *Log) Tail(ctx context.Context, partition int) (domain.Position, error) {
	p, err := l.inspect(ctx, partition, domain.Position{})
	if err != nil {
		return domain.Position{}, fmt.Errorf("streams: tail of partition %d: %w", partition, err)
	}
	return p.last, nil
}

// Origin is where the partition's log begins: everything at or before it was
// trimmed, or is in the archive only. Reading may start there.
func (l *Log) Origin(ctx context.Context, partition int) (domain.Position, error) {
	p, err := l.inspect(ctx, partition, domain.Position{})
	if err != nil {
		return domain.Position{}, fmt.Errorf("streams: origin of partition %d: %w", partition, err)
	}
	return p.origin.at, nil
}

// Nearest is the position closest to at from which the partition can be read
// without [ErrTrimmed] or [ErrRewound]: at itself where nothing is missing. While
// Redis does not answer it tries again, until ctx ends or the log is closed.
func (l *Log) Nearest(ctx context.Context, partition int, at domain.Position) (domain.Position, error) {
	if !l.enter() {
		return at, ErrClosed
	}
	defer l.leave()
	for {
		p, err := l.inspect(ctx, partition, at)
		if err == nil {
			return p.nearest(at), nil
		}
		l.logger.Debug("the log does not say from where it can be read; trying again", "partition", partition, "error", err)
		if err := backoff.SleepOr(ctx, backoff.Jitter(maxPause), l.closing.Done()); err != nil {
			return at, err
		}
		if l.closing.Err() != nil {
			return at, ErrClosed
		}
	}
}

// Trim removes the entries before the given position, and no other. The caller
// has archived them.
func (l *Log) Trim(ctx context.Context, partition int, before domain.Position) error {
	k := &l.keys[partition]
	if _, err := trimScript.run(ctx, l.general, []string{k.events, k.origin}, before.String(), rand.Text()); err != nil {
		return fmt.Errorf("streams: trim partition %d: %w", partition, err)
	}
	return nil
}

// Expire trims what is both archived and older than the retention. archived is
// the position up to which, inclusively, everything is archived. Heads of aggregates that
// were changed last before that go as well.
func (l *Log) Expire(ctx context.Context, partition int, archived domain.Position, now time.Time) error {
	before := domain.Position{Ms: archived.Ms, N: archived.N + 1}
	if old := positionOf(now.Add(-l.config.Retention)); old.Before(before) {
		before = old
	}
	if err := l.Trim(ctx, partition, before); err != nil {
		return err
	}
	if kept := positionOf(now.Add(-headRetention)); kept.Before(before) {
		before = kept
	}
	return l.expireHeads(ctx, partition, before)
}

func positionOf(t time.Time) domain.Position {
	return domain.Position{Ms: uint64(max(t.UnixMilli(), 0))}
}

// headRetention is how long heads are kept whatever the retention: longer than a command
// may take from reading its state to its append.
const headRetention = time.Hour

// headsPage is how many heads are looked at in one step.
const headsPage = 1000

// expireHeads removes the heads of aggregates that were last changed before a
// position that is archived: a state that anybody reads now has seen those changes, and
// no head is like one that was seen.
func (l *Log) expireHeads(ctx context.Context, partition int, before domain.Position) error {
	heads := l.keys[partition].heads
	for cursor := uint64(0); ; {
		pairs, next, err := l.general.HScan(ctx, heads, cursor, "", headsPage).Result()
		if err != nil {
			return fmt.Errorf("streams: look for old heads of partition %d: %w", partition, err)
		}
		args := []any{before.String()}
		for i := 0; i+1 < len(pairs); i += 2 {
			if at, err := domain.ParsePosition(pairs[i+1]); err == nil && at.Before(before) {
				args = append(args, pairs[i])
			}
		}
		if len(args) > 1 {
			if _, err := expireHeadsScript.run(ctx, l.general, []string{heads}, args...); err != nil {
				return fmt.Errorf("streams: remove old heads of partition %d: %w", partition, err)
			}
		}
		if cursor = next; cursor == 0 {
			return nil
		}
	}
}

// origin is where a stream begins, and which incarnation of it this is.
type origin struct {
	at          domain.Position
	incarnation string
}

// parseOrigin reads what the origin key holds. An absent one means that Redis
// was wiped and nobody repaired it yet.
func parseOrigin(s string) (origin, error) {
	at, incarnation, found := strings.Cut(s, " ")
	if !found {
		return origin{}, ErrRewound
	}
	p, err := domain.ParsePosition(at)
	return origin{p, incarnation}, err
}

// place is what Redis says about a reader's position.
type streamState struct {
	origin  origin
	last    domain.Position // given last, ever
	present bool            // the position's entry is there
	newest  bool            // the entry of last is there
	err     error           // of this partition alone; errMissing where there is no stream
}

// follows fails when a reader cannot read on from a position without a gap. seen says
// that the position is that of an entry which the reader had, and incarnation is the
// stream that it had it from, "" for none.
func (p *streamState) follows(at domain.Position, seen bool, incarnation string) error {
	switch {
	case at.Before(p.origin.at):
		return ErrTrimmed
	case at.After(p.last):
		return ErrRewound
	case at == p.origin.at:
		return nil // all that the reader has is archived, whatever happened
	case incarnation != "" && incarnation != p.origin.incarnation, seen && !p.present:
		return ErrRewound
	}
	return nil
}

// nearest moves a position into the part of the log that can be read.
func (p *streamState) nearest(at domain.Position) domain.Position {
	if at.After(p.last) {
		at = p.last
	}
	if at.Before(p.origin.at) {
		at = p.origin.at
	}
	return at
}

// look says how a position stands to the stream. Where there is no stream, Redis
// was wiped: look repairs that first.
func (l *Log) inspect(ctx context.Context, partition int, at domain.Position) (streamState, error) {
	for repaired := false; ; repaired = true {
		states, err := l.inspectPartitions(ctx, []int{partition}, []domain.Position{at})
		if err != nil {
			return streamState{}, err
		}
		if repaired || !errors.Is(states[0].err, errMissing) {
			return states[0], states[0].err
		}
		if err := l.prepare(ctx); err != nil {
			return streamState{}, err
		}
	}
}

// lookOnce looks at several partitions, which in a cluster share a slot, and repairs
// nothing. A partition that cannot be looked at has that error in its streamState.
func (l *Log) inspectPartitions(ctx context.Context, partitions []int, at []domain.Position) ([]streamState, error) {
	names, args := make([]string, 0, 2*len(partitions)), make([]any, 0, len(partitions))
	for i, p := range partitions {
		names = append(names, l.keys[p].events, l.keys[p].origin)
		args = append(args, at[i].String())
	}
	reply, err := inspectScript.run(ctx, l.general, names, args...)
	if err != nil {
		return nil, err
	}
	if len(reply) != len(partitions) {
		return nil, errMalformed
	}
	states := make([]streamState, len(reply))
	for i := range reply {
		if states[i], err = parseStreamState(reply[i]); err != nil {
			states[i].err = err
		}
	}
	return states, nil
}

func parseStreamState(reply any) (p streamState, err error) {
	fields, _ := reply.([]any)
	if len(fields) != 5 {
		return p, errMalformed
	}
	begins, _ := fields[0].(string)
	last, _ := fields[1].(string)
	found, _ := fields[2].(int64)
	newest, _ := fields[3].(int64)
	failure, _ := fields[4].(string)
	switch {
	case failure != "":
		return p, replyError(failure)
	case begins == "":
		return p, errMissing
	}
	p.present, p.newest = found == 1, newest == 1
	if p.origin, err = parseOrigin(begins); err != nil {
		return p, err
	}
	p.last, err = domain.ParsePosition(last)
	return p, err
}
