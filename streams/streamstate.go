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

// ensureScript ensures that a stream exists with its last id at or past the floor, and that its
// origin is stored. KEYS: events, origin, cursors, foreign. ARGV: floor, a new incarnation.
//
// A stream that had to be created or moved begins at the floor, in a new incarnation: it is not
// certain which entries a reader of the previous one has had. How far other deployments' logs
// were imported is not certain then either, and is deleted.
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
return {'unchanged', last}
`)

// trimScript removes the entries before a position, and stores the position of the last removed
// entry as the origin. KEYS: events, origin. ARGV: the position, an incarnation in case the
// origin is missing.
var trimScript = newScript(luaAfter + `
local removed = redis.call('XREVRANGE', KEYS[1], '(' .. ARGV[1], '-', 'COUNT', 1)
if #removed == 0 then return {0} end
local origin = redis.call('GET', KEYS[2])
local incarnation = origin and string.match(origin, ' (.*)$') or ARGV[2]
redis.call('SET', KEYS[2], removed[1][1] .. ' ' .. incarnation)
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

// inspectScript returns the data by which readers check their positions. KEYS: events and
// origin of each partition. ARGV: the reader's position in each partition. For each it returns
// the origin, the last id ever assigned, whether the entry at the position exists, whether the
// entry of the last id exists, and the error by which Redis could not answer, or "".
var inspectScript = newScript(luaAfter + `
local function inspect(events, origin, at)
	local begins = redis.call('GET', origin)
	if not begins or redis.call('EXISTS', events) == 0 then return {'', '', 0, 0, ''} end
	local last = lastID(events)
	return {begins, last, #redis.call('XRANGE', events, at, at), #redis.call('XRANGE', events, last, last), ''}
end
local states = {}
for i = 1, #ARGV do
	local ok, streamState = pcall(inspect, KEYS[2 * i - 1], KEYS[2 * i], ARGV[i])
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

// Ensure ensures that the partition's stream exists, with its last id at or past floor, so that
// the next append gets a later position. If it had to create or move a stream although
// something is archived, it logs that as a loss of data.
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
		l.logger.Error("Redis lost a stream of the log; events that were not archived are lost",
			"partition", partition, "archived", floor.String())
	case verdict == "repaired":
		l.logger.Error("Redis was set back behind the archive; events that were not archived are lost",
			"partition", partition, "last", last, "archived", floor.String())
	case verdict == "adopted":
		l.logger.Warn("the origin of a stream of the log was missing", "partition", partition, "last", last)
	case verdict == "created":
		l.logger.Debug("a stream of the log was created", "partition", partition)
	}
	return nil
}

// Tail returns the last position that the partition ever assigned, even if that entry no longer
// exists.
func (l *Log) Tail(ctx context.Context, partition int) (domain.Position, error) {
	p, err := l.inspect(ctx, partition, domain.Position{})
	if err != nil {
		return domain.Position{}, fmt.Errorf("streams: tail of partition %d: %w", partition, err)
	}
	return p.last, nil
}

// Origin returns the position after which the partition's log begins: everything at or before
// it was trimmed, or is in the archive only. Reading may start there.
func (l *Log) Origin(ctx context.Context, partition int) (domain.Position, error) {
	p, err := l.inspect(ctx, partition, domain.Position{})
	if err != nil {
		return domain.Position{}, fmt.Errorf("streams: origin of partition %d: %w", partition, err)
	}
	return p.origin.at, nil
}

// Nearest returns the position closest to at from which the partition can be read without
// [ErrTrimmed] or [ErrRewound]: at itself if nothing is missing. While Redis does not answer,
// Nearest tries again until ctx ends or the log is closed.
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
		l.logger.Debug("cannot find the nearest readable position; trying again", "partition", partition, "error", err)
		if err := backoff.SleepOr(ctx, backoff.Jitter(maxPause), l.closing.Done()); err != nil {
			return at, err
		}
		if l.closing.Err() != nil {
			return at, ErrClosed
		}
	}
}

// Trim removes the entries before the given position, and no others. The caller has archived
// them.
func (l *Log) Trim(ctx context.Context, partition int, before domain.Position) error {
	k := &l.keys[partition]
	if _, err := trimScript.run(ctx, l.general, []string{k.events, k.origin}, before.String(), rand.Text()); err != nil {
		return fmt.Errorf("streams: trim partition %d: %w", partition, err)
	}
	return nil
}

// Expire trims the entries that are both archived and older than the retention. archived is the
// position up to which, inclusively, everything is archived. Expire also removes the heads of
// aggregates that were last changed before that.
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

// headRetention is the shortest time for which heads are kept, whatever the retention: longer
// than a command may take from reading its state to its append.
const headRetention = time.Hour

// headsPage is how many heads one step scans.
const headsPage = 1000

// expireHeads removes the heads of aggregates that were last changed before an archived
// position. A command needs no such head: the state that it reads contains those changes.
func (l *Log) expireHeads(ctx context.Context, partition int, before domain.Position) error {
	heads := l.keys[partition].heads
	for cursor := uint64(0); ; {
		pairs, next, err := l.general.HScan(ctx, heads, cursor, "", headsPage).Result()
		if err != nil {
			return fmt.Errorf("streams: scan heads of partition %d: %w", partition, err)
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

// origin is the position after which a stream begins, and its incarnation.
type origin struct {
	at          domain.Position
	incarnation string
}

// parseOrigin decodes the origin key. An empty value means that Redis was wiped and is not
// repaired yet.
func parseOrigin(s string) (origin, error) {
	at, incarnation, found := strings.Cut(s, " ")
	if !found {
		return origin{}, ErrRewound
	}
	p, err := domain.ParsePosition(at)
	return origin{p, incarnation}, err
}

// streamState is Redis' answer about a reader's position in a stream.
type streamState struct {
	origin  origin
	last    domain.Position // last position ever assigned
	present bool            // the entry at the reader's position exists
	newest  bool            // the entry at last exists
	err     error           // concerns this partition only; errMissing if there is no stream
}

// follows returns an error if a reader cannot continue from a position without a gap. seen
// means that the reader had the entry at the position, and incarnation is that of the stream it
// came from, "" if unknown.
func (p *streamState) follows(at domain.Position, seen bool, incarnation string) error {
	switch {
	case at.Before(p.origin.at):
		return ErrTrimmed
	case at.After(p.last):
		return ErrRewound
	case at == p.origin.at:
		return nil // all that the reader has had is archived
	case incarnation != "" && incarnation != p.origin.incarnation, seen && !p.present:
		return ErrRewound
	}
	return nil
}

// nearest moves a position into the readable part of the log.
func (p *streamState) nearest(at domain.Position) domain.Position {
	if at.After(p.last) {
		at = p.last
	}
	if at.Before(p.origin.at) {
		at = p.origin.at
	}
	return at
}

// inspect returns the state of one stream for a reader's position. If there is no stream, Redis
// was wiped, and inspect repairs it first.
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

// inspectPartitions returns the states of several streams, which in a cluster share a slot. It
// repairs nothing. A stream that cannot be inspected has the error in its state.
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
