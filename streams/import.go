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

// ErrStale means that the [ArchiveView] of a [Log.Import] is out of date: the archive
// advanced, or Redis was lost. Look up the archive again.
var ErrStale = errors.New("streams: the view of the archive is out of date")

// importScript appends the new events of a batch from another log, and moves the cursor of that
// log, or does neither.
//
// KEYS: events, heads, origin, cursors, foreign. ARGV: incarnation of the stream, field of the
// cursor, the position that the batch follows, the position up to which it goes, milliseconds
// up to which the caller has seen the archive; then per event the values of its entry, its
// position in the other log, its member of foreign, and the field of its head or "".
//
// An imported event is in foreign until it is archived. The caller has looked it up in the
// archive as of some checkpoint, so nothing after that checkpoint may have been removed from
// foreign: then the two together contain every imported event.
var importScript = newScript(luaAfter + luaAdd + `
local origin = redis.call('GET', KEYS[3])
if not origin or redis.call('EXISTS', KEYS[1]) == 0 then return {'stale'} end
if string.match(origin, ' (.*)$') ~= ARGV[1] then return {'stale'} end
local cleared = redis.call('HGET', KEYS[4], '') or '0'
if less(ARGV[5], cleared) then return {'stale'} end
local cursor = redis.call('HGET', KEYS[4], ARGV[2]) or '0-0'
if after(ARGV[3], cursor) then return {'gap', cursor} end
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
return {'imported', accepted, duplicates, cursor}
`)

// rewindScript moves a cursor back. KEYS: cursors. ARGV: its field, the position.
var rewindScript = newScript(luaAfter + `
local cursor = redis.call('HGET', KEYS[1], ARGV[1])
if not cursor or not after(cursor, ARGV[2]) then return {0} end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return {1}
`)

// ArchiveView is what the caller of [Log.Import] has looked up in the archive.
type ArchiveView struct {
	Incarnation string          // of the partition's stream, read before the lookup: see [Log.Incarnation]
	Archived    domain.Position // how far the partition was archived at the lookup of the batch's events
}

// Import appends the events of the batch that are not in this log yet, and moves the cursor of
// its source to b.Through, atomically: a repeated batch changes nothing. The caller has removed
// the events that are in the archive already. All events have an id, a time and an origin, and
// belong to b.System; their positions ascend.
//
// Import fails with [*domain.ImportGapError] if the cursor is before b.After, with [ErrStale],
// and otherwise as [Log.Append]. After an unknown outcome it may be repeated unchanged.
func (l *Log) Import(ctx context.Context, b domain.ImportBatch, seen ArchiveView) (domain.ImportResult, error) {
	result, err := l.importBatch(ctx, b, seen)
	gap := new(domain.ImportGapError)
	switch {
	case err == nil:
		l.appends.Add(uint64(result.Accepted))
		return result, nil
	case errors.Is(err, ErrStale), errors.As(err, &gap):
		return result, err
	}
	err = appendFailure(err)
	if isFailure(err) {
		l.appendErrors.Add(1)
	}
	return result, err
}

func (l *Log) importBatch(ctx context.Context, b domain.ImportBatch, seen ArchiveView) (domain.ImportResult, error) {
	if ctx.Err() != nil {
		return domain.ImportResult{}, unavailable("import", ctx.Err())
	}
	for i := range b.Events {
		if err := b.Events[i].Canonicalize(); err != nil {
			return domain.ImportResult{}, domain.AtIndex(err, i)
		}
		if e := &b.Events[i]; e.ID == "" || e.Time.IsZero() || e.Origin == "" || e.SystemID != b.System {
			return domain.ImportResult{}, domain.AtIndex(domain.Invalid(domain.CodeInvalidUpdate,
				"an imported event has an id, a time, an origin and the system of its batch"), i)
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
	args = append(args, seen.Incarnation, cursorField(b.System, b.Source), b.After.String(), b.Through.String(),
		strconv.FormatUint(seen.Archived.Ms, 10))
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
		return importScript.run(ctx, l.appender, []string{k.events, k.heads, k.origin, k.cursors, k.foreign}, args...)
	})
	if err != nil {
		return domain.ImportResult{}, err
	}
	return importReply(reply, &b)
}

func importReply(reply []any, b *domain.ImportBatch) (domain.ImportResult, error) {
	verdict, _ := reply[0].(string)
	switch {
	case verdict == "stale": // the next inspection repairs a missing stream
		return domain.ImportResult{}, ErrStale
	case verdict == "gap" && len(reply) == 2:
		at, err := parsePositionReply(reply[1])
		if err != nil {
			return domain.ImportResult{}, err
		}
		return domain.ImportResult{Cursor: at}, &domain.ImportGapError{Source: b.Source, After: b.After, Cursor: at}
	case verdict == "imported" && len(reply) == 4:
		accepted, _ := reply[1].(int64)
		duplicates, _ := reply[2].(int64)
		at, err := parsePositionReply(reply[3])
		return domain.ImportResult{Accepted: int(accepted), Duplicates: int(duplicates), Cursor: at}, err
	}
	return domain.ImportResult{}, fmt.Errorf("streams: import: the script answered %v", reply)
}

func parsePositionReply(v any) (domain.Position, error) {
	text, _ := v.(string)
	return domain.ParsePosition(text)
}

// cursorField names the cursor of a source in a system. Neither part contains a slash.
func cursorField(system domain.SystemID, source string) string { return string(system) + "/" + source }

// Incarnation returns the incarnation of the partition's stream. It changes when Redis lost the
// stream or was set back behind the archive; Incarnation repairs that first.
func (l *Log) Incarnation(ctx context.Context, partition int) (string, error) {
	p, err := l.inspect(ctx, partition, domain.Position{})
	if err != nil {
		return "", fmt.Errorf("streams: inspect partition %d: %w", partition, err)
	}
	return p.origin.incarnation, nil
}

// SourceCursor returns the position up to which the log of a source was imported. ok is false
// if Redis has no cursor of that source.
func (l *Log) SourceCursor(ctx context.Context, system domain.SystemID, source string) (at domain.Position, ok bool, err error) {
	stored, err := l.general.HGet(ctx, l.keys[l.Partition(system)].cursors, cursorField(system, source)).Result()
	if errors.Is(err, redis.Nil) {
		return domain.Position{}, false, nil
	}
	if err == nil {
		at, err = domain.ParsePosition(stored)
	}
	if err != nil {
		return at, false, fmt.Errorf("streams: read the cursor of a source: %w", err)
	}
	return at, true, nil
}

// StartSource sets the cursor of a source, unless it has one.
func (l *Log) StartSource(ctx context.Context, system domain.SystemID, source string, at domain.Position) error {
	err := l.general.HSetNX(ctx, l.keys[l.Partition(system)].cursors, cursorField(system, source), at.String()).Err()
	if err != nil {
		return fmt.Errorf("streams: start a source: %w", err)
	}
	return nil
}

// RewindSource moves the cursor of a source back, if it is after the position.
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

// Sources returns the cursors of the partition's systems, in no order.
func (l *Log) Sources(ctx context.Context, partition int) ([]Source, error) {
	stored, err := l.general.HGetAll(ctx, l.keys[partition].cursors).Result()
	if err != nil {
		return nil, fmt.Errorf("streams: list the sources of partition %d: %w", partition, err)
	}
	var sources []Source
	for field, value := range stored {
		system, name, isCursor := strings.Cut(field, "/")
		if !isCursor {
			continue // the field "": how far foreign was cleared
		}
		at, err := domain.ParsePosition(value)
		if err != nil {
			return nil, fmt.Errorf("streams: list the sources of partition %d: %w", partition, err)
		}
		sources = append(sources, Source{domain.SystemID(system), name, at})
	}
	return sources, nil
}
