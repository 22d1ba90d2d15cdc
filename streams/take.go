package streams

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/plugcast/plugcast/domain"
)

// ErrStale says that what a caller of [Log.Take] had looked up is too old by now:
// the archive moved on, or Redis was lost. Look again.
var ErrStale = errors.New("streams: what the archive said is out of date")

// takeScript appends what is new in a batch from another log and moves the cursor
// of that log, or does neither.
//
// KEYS: events, heads, origin, cursors, foreign. ARGV: incarnation of the stream,
// field of the cursor, position that the batch begins after, position that it goes
// up to, milliseconds up to which the caller has seen the archive; then per event
// the values of its entry, its position in the other log, its member of foreign,
// and the field of its head or "".
//
// What came from elsewhere is in foreign until it is archived. The caller has
// looked in the archive as of some checkpoint, so nothing after that may have been
// cleared: together they have every event that ever came.
var takeScript = newScript(luaAfter + luaAdd + `
local origin = redis.call('GET', KEYS[3])
if not origin or redis.call('EXISTS', KEYS[1]) == 0 then return {'stale'} end
if string.match(origin, ' (.*)$') ~= ARGV[1] then return {'stale'} end
local cleared = redis.call('HGET', KEYS[4], '') or '0'
if less(ARGV[5], cleared) then return {'stale'} end
local cursor = redis.call('HGET', KEYS[4], ARGV[2]) or '0-0'
if after(ARGV[3], cursor) then return {'behind', cursor} end
local accepted, duplicates = 0, 0
for v = 5, #ARGV - 13, 13 do
	if not after(ARGV[v + 11], cursor) or redis.call('ZSCORE', KEYS[5], ARGV[v + 12]) then
		duplicates = duplicates + 1
	else
		local id = add(KEYS[1], '*', v)
		local ms = cut(id)
		redis.call('ZADD', KEYS[5], ms, ARGV[v + 12])
		if ARGV[v + 13] ~= '' then redis.call('HSET', KEYS[2], ARGV[v + 13], id) end
		accepted = accepted + 1
	end
end
if after(ARGV[4], cursor) then
	cursor = ARGV[4]
	redis.call('HSET', KEYS[4], ARGV[2], cursor)
end
if less(cleared, ARGV[5]) then
	redis.call('ZREMRANGEBYSCORE', KEYS[5], '-inf', '(' .. ARGV[5])
	redis.call('HSET', KEYS[4], '', ARGV[5])
end
return {'taken', accepted, duplicates, cursor}
`)

// rewindScript moves a cursor back. KEYS: cursors. ARGV: its field, the position.
var rewindScript = newScript(luaAfter + `
local cursor = redis.call('HGET', KEYS[1], ARGV[1])
if not cursor or not after(cursor, ARGV[2]) then return {0} end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return {1}
`)

// Looked is what a caller of [Log.Take] has looked up before.
type Looked struct {
	Incarnation string          // of the partition's stream, before it looked in the archive: see [Log.Incarnation]
	Archived    domain.Position // how far the partition was archived when it looked there for the batch's events
}

// Take appends the events of the batch that are not here, and moves the cursor of
// its source to b.Through, in one step: a batch that is given again, by whomever,
// changes nothing. The caller has left out what is in the archive already. All
// events have an id, a time and an origin, and are of b.System; their positions
// grow.
//
// It fails with [*domain.ImportGapError] when the cursor is before b.After, with
// [ErrStale], and otherwise as [Log.Append]; after an outcome that is not known, it
// may be repeated as it is.
func (l *Log) Take(ctx context.Context, b domain.ImportBatch, looked Looked) (domain.ImportResult, error) {
	taken, err := l.take(ctx, b, looked)
	behind := new(domain.ImportGapError)
	switch {
	case err == nil:
		l.appends.Add(uint64(taken.Accepted))
		return taken, nil
	case errors.Is(err, ErrStale), errors.As(err, &behind):
		return taken, err
	}
	err = appendFailure(err)
	if isFailure(err) {
		l.appendErrors.Add(1)
	}
	return taken, err
}

func (l *Log) take(ctx context.Context, b domain.ImportBatch, looked Looked) (domain.ImportResult, error) {
	if ctx.Err() != nil {
		return domain.ImportResult{}, unavailable("append", ctx.Err())
	}
	for i := range b.Events {
		if err := b.Events[i].Canonicalize(); err != nil {
			return domain.ImportResult{}, domain.AtIndex(err, i)
		}
		if e := &b.Events[i]; e.ID == "" || e.Time.IsZero() || e.Origin == "" || e.SystemID != b.System {
			return domain.ImportResult{}, domain.AtIndex(domain.Invalid(domain.CodeInvalidUpdate,
				"an event from elsewhere has an id, a time, an origin and the system of its batch"), i)
		}
	}
	partition := l.Partition(b.System)
	var entries [][]any
	if len(b.Events) > 0 {
		var err error
		if entries, err = l.marshal(ctx, shard{partition: partition, events: b.Events}); err != nil {
			return domain.ImportResult{}, err
		}
	}
	k := &l.keys[partition]
	args := make([]any, 0, 5+len(entries)*(len(fieldNames)+3))
	args = append(args, looked.Incarnation, cursorField(b.System, b.Source), b.After.String(), b.Through.String(),
		strconv.FormatUint(looked.Archived.Ms, 10))
	for i, entry := range entries {
		e := &b.Events[i]
		head := ""
		if about := e.Aggregate(); about != "" {
			head = headField(b.System, about)
		}
		args = append(args, entry...)
		args = append(args, e.Position.String(), string(e.SystemID)+"/"+e.Origin+"/"+e.ID, head)
	}
	reply, err := detached(ctx, l, func(ctx context.Context) ([]any, error) {
		return takeScript.run(ctx, l.appender, []string{k.events, k.heads, k.origin, k.cursors, k.foreign}, args...)
	})
	if err != nil {
		return domain.ImportResult{}, err
	}
	return takeAnswer(reply, &b)
}

func takeAnswer(reply []any, b *domain.ImportBatch) (domain.ImportResult, error) {
	verdict, _ := reply[0].(string)
	switch {
	case verdict == "stale": // who looks again repairs what is missing
		return domain.ImportResult{}, ErrStale
	case verdict == "behind" && len(reply) == 2:
		at, err := parseReplied(reply[1])
		if err != nil {
			return domain.ImportResult{}, err
		}
		return domain.ImportResult{Cursor: at}, &domain.ImportGapError{Source: b.Source, After: b.After, Cursor: at}
	case verdict == "taken" && len(reply) == 4:
		accepted, _ := reply[1].(int64)
		duplicates, _ := reply[2].(int64)
		at, err := parseReplied(reply[3])
		return domain.ImportResult{Accepted: int(accepted), Duplicates: int(duplicates), Cursor: at}, err
	}
	return domain.ImportResult{}, fmt.Errorf("streams: take: the script answered %v", reply)
}

func parseReplied(v any) (domain.Position, error) {
	text, _ := v.(string)
	return domain.ParsePosition(text)
}

// cursorField names a cursor. Neither part has a slash in it.
func cursorField(system domain.SystemID, source string) string { return string(system) + "/" + source }

// Incarnation returns which stream the partition has: another one after Redis lost
// or was set back behind what is archived, which is repaired first.
func (l *Log) Incarnation(ctx context.Context, partition int) (string, error) {
	p, err := l.inspect(ctx, partition, domain.Position{})
	if err != nil {
		return "", fmt.Errorf("streams: look at partition %d: %w", partition, err)
	}
	return p.origin.incarnation, nil
}

// SourceCursor returns up to where the log of a source was taken, and false when
// nothing is known of that here.
func (l *Log) SourceCursor(ctx context.Context, system domain.SystemID, source string) (domain.Position, bool, error) {
	kept, err := l.general.HGet(ctx, l.keys[l.Partition(system)].cursors, cursorField(system, source)).Result()
	if errors.Is(err, redis.Nil) {
		return domain.Position{}, false, nil
	}
	var at domain.Position
	if err == nil {
		at, err = domain.ParsePosition(kept)
	}
	if err != nil {
		return at, false, fmt.Errorf("streams: read the cursor of a source: %w", err)
	}
	return at, true, nil
}

// StartSource makes a position the cursor of a source, unless it has one.
func (l *Log) StartSource(ctx context.Context, system domain.SystemID, source string, at domain.Position) error {
	err := l.general.HSetNX(ctx, l.keys[l.Partition(system)].cursors, cursorField(system, source), at.String()).Err()
	if err != nil {
		return fmt.Errorf("streams: start a source: %w", err)
	}
	return nil
}

// RewindSource moves the cursor of a source back.
func (l *Log) RewindSource(ctx context.Context, system domain.SystemID, source string, to domain.Position) error {
	cursors := l.keys[l.Partition(system)].cursors
	if _, err := rewindScript.run(ctx, l.general, []string{cursors}, cursorField(system, source), to.String()); err != nil {
		return fmt.Errorf("streams: rewind a source: %w", err)
	}
	return nil
}

// Source is the cursor of one source of a system.
type Source struct {
	System   domain.SystemID
	Name     string
	Position domain.Position
}

// Sources lists the cursors of the partition's systems, in no order.
func (l *Log) Sources(ctx context.Context, partition int) ([]Source, error) {
	kept, err := l.general.HGetAll(ctx, l.keys[partition].cursors).Result()
	if err != nil {
		return nil, fmt.Errorf("streams: list the sources of partition %d: %w", partition, err)
	}
	var sources []Source
	for field, value := range kept {
		system, name, isCursor := strings.Cut(field, "/")
		if !isCursor {
			continue // how far foreign was cleared
		}
		at, err := domain.ParsePosition(value)
		if err != nil {
			return nil, fmt.Errorf("streams: list the sources of partition %d: %w", partition, err)
		}
		sources = append(sources, Source{domain.SystemID(system), name, at})
	}
	return sources, nil
}
