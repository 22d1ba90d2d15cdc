package streams

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/domain/backoff"
	"github.com/plugcast/plugcast/domain/isolate"
)

// Append implements [domain.Log]. An event without an id gets a UUIDv7, and an event without a
// time gets the current time. Append waits for as long as ctx lasts. If ctx ends after the
// events were sent, the outcome is unknown.
//
// Append writes to several partitions concurrently. If only some of them took their events, the
// outcome is unknown as well; a repeat with the same idempotency key completes the append.
func (l *Log) Append(ctx context.Context, events []domain.Event, opts domain.AppendOptions) (domain.Appended, error) {
	if len(events) == 0 {
		return domain.Appended{}, nil
	}
	appended, err := l.append(ctx, events, opts)
	if err != nil {
		err = appendFailure(err)
		if isFailure(err) {
			l.appendErrors.Add(1)
		}
		return domain.Appended{}, err
	}
	if !appended.Replayed {
		l.appends.Add(uint64(len(events)))
	}
	return appended, nil
}

func (l *Log) append(ctx context.Context, events []domain.Event, opts domain.AppendOptions) (domain.Appended, error) {
	if ctx.Err() != nil {
		return domain.Appended{}, unavailable("append", ctx.Err())
	}
	stamped, err := stamp(events)
	if err != nil {
		return domain.Appended{}, err
	}
	shards := l.split(stamped)
	if opts.Expect != nil && !oneSystem(events) {
		return domain.Appended{}, errors.New("streams: append: an expectation needs all events in one system")
	}
	if len(shards) == 1 {
		return l.appendShard(ctx, shards[0], opts)
	}
	if opts.Idempotency != nil {
		begun, err := l.checkReuse(ctx, stamped, opts.Idempotency)
		if err != nil {
			return domain.Appended{}, err
		}
		for i := range shards {
			shards[i].completes = begun
		}
	}
	return l.appendShards(ctx, shards, len(events), opts)
}

// isFailure tells a log that could not append from a log that was right to refuse.
func isFailure(err error) bool {
	if conflict := new(domain.ConflictError); errors.As(err, &conflict) {
		return false
	}
	kind := domain.AsError(err).Kind
	return kind != domain.KindInvalid && kind != domain.KindLimited
}

// shard is the part of an append that goes to one partition.
type shard struct {
	partition int
	events    []domain.Event
	index     []int // index of each event in the whole append; nil if the shard is the whole
	// completes is set if another partition took its shard under the same idempotency key
	// before. Then this shard is appended even if its systems have used up their keys.
	completes bool
}

// split groups the events by partition.
func (l *Log) split(events []domain.Event) []shard {
	first := l.Partition(events[0].SystemID)
	single := true
	for i := 1; i < len(events) && single; i++ {
		single = events[i].SystemID == events[i-1].SystemID || l.Partition(events[i].SystemID) == first
	}
	if single {
		return []shard{{partition: first, events: events}}
	}
	var shards []shard
	at := make(map[int]int)
	for i := range events {
		p := l.Partition(events[i].SystemID)
		n, known := at[p]
		if !known {
			n = len(shards)
			at[p] = n
			shards = append(shards, shard{partition: p})
		}
		shards[n].events = append(shards[n].events, events[i])
		shards[n].index = append(shards[n].index, i)
	}
	return shards
}

func oneSystem(events []domain.Event) bool {
	for i := range events {
		if events[i].SystemID != events[0].SystemID {
			return false
		}
	}
	return true
}

// stamp returns a copy of the events with ids and times in canonical form, or an error with the
// index of the first event that is not valid.
func stamp(events []domain.Event) ([]domain.Event, error) {
	out := make([]domain.Event, len(events))
	copy(out, events)
	now := time.Now().UTC().Truncate(time.Microsecond)
	for i := range out {
		e := &out[i]
		if e.ID == "" {
			id, err := uuid.NewV7()
			if err != nil {
				return nil, fmt.Errorf("streams: append: new id: %w", err)
			}
			e.ID = id.String()
		}
		if e.Time.IsZero() {
			e.Time = now
		}
		if err := e.Canonicalize(); err != nil {
			return nil, domain.AtIndex(err, i)
		}
	}
	return out, nil
}

func (l *Log) appendShards(ctx context.Context, shards []shard, n int, opts domain.AppendOptions) (domain.Appended, error) {
	whole := domain.Appended{Positions: make([]domain.Position, n), Replayed: true}
	parts, errs := make([]domain.Appended, len(shards)), make([]error, len(shards))
	var group errgroup.Group
	for i := range shards {
		group.Go(func() error {
			errs[i] = isolate.Run(l.logger, "streams", func() (err error) {
				parts[i], err = l.appendShard(ctx, shards[i], opts)
				return err
			})
			return nil
		})
	}
	_ = group.Wait()
	var failed, uncertain error
	done := 0
	for i, part := range parts {
		switch {
		case errs[i] == nil:
			done++
		case failed == nil:
			failed = errs[i]
		}
		if errs[i] != nil && appendFailureIsUncertain(errs[i]) {
			uncertain = errs[i]
		}
		whole.Replayed = whole.Replayed && part.Replayed
		for j, at := range part.Positions {
			whole.Positions[shards[i].index[j]] = at
		}
	}
	switch {
	case failed == nil:
		return whole, nil
	case uncertain != nil:
		return domain.Appended{}, uncertain
	case done > 0:
		return domain.Appended{}, fmt.Errorf("streams: append: only %d of %d partitions took their events: %v", done, len(shards), failed)
	default:
		return domain.Appended{}, failed
	}
}

func appendFailureIsUncertain(err error) bool {
	return domain.HasCode(appendFailure(err), domain.CodeUnknownOutcome)
}

// appendShard appends to one partition, and retries while it is certain that nothing was
// appended.
func (l *Log) appendShard(ctx context.Context, s shard, opts domain.AppendOptions) (domain.Appended, error) {
	entries, err := l.marshal(ctx, s)
	if err != nil {
		return domain.Appended{}, err
	}
	var giveUp time.Time
	retry := backoff.Backoff{First: 5 * time.Millisecond, Max: 250 * time.Millisecond}
	for repairs := 0; ; {
		appended, err := l.send(ctx, s, entries, opts)
		switch {
		case err == nil:
			return appended, nil
		case errors.Is(err, errMissing) && repairs < 3:
			repairs++
			if err := l.prepare(ctx); err != nil {
				return domain.Appended{}, unavailable("append", err)
			}
			continue
		case errors.Is(err, errMissing):
			return domain.Appended{}, unavailable("append", err)
		case !temporary(err):
			return domain.Appended{}, err
		case giveUp.IsZero():
			giveUp = time.Now().Add(l.config.RetryFor)
		}
		if !time.Now().Before(giveUp) {
			return domain.Appended{}, err
		}
		if err := retry.Wait(ctx); err != nil {
			return domain.Appended{}, unavailable("append", err)
		}
	}
}

// marshal passes the events through Watermill's publisher, and returns the values of their
// entries.
func (l *Log) marshal(ctx context.Context, s shard) ([][]any, error) {
	c := &collector{entries: make([][]any, 0, len(s.events))}
	ctx = context.WithValue(ctx, collectorKey{}, c)
	messages := make([]*message.Message, len(s.events))
	for i := range s.events {
		messages[i] = newMessage(ctx, &s.events[i])
	}
	if err := l.publisher.Publish(l.keys[s.partition].events, messages...); err != nil {
		return nil, unavailable("append", err)
	}
	return c.entries, nil
}

// send sends the entries once, in the cheapest way that the append allows.
func (l *Log) send(ctx context.Context, s shard, entries [][]any, opts domain.AppendOptions) (domain.Appended, error) {
	switch {
	case opts != domain.AppendOptions{}:
		return l.sendScript(ctx, s, entries, opts)
	case len(entries) == 1:
		return l.sendOne(ctx, l.keys[s.partition].events, entries[0])
	default:
		return l.sendBatch(ctx, l.keys[s.partition].events, entries)
	}
}

// xadd returns the command that adds one entry to an existing stream. A missing stream means
// that Redis was wiped; the stream must be set past the archived positions before anything is
// appended.
func xadd(ctx context.Context, stream string, entry []any) attempt {
	args := make([]any, 0, 4+2*len(fieldNames))
	args = append(args, "xadd", stream, "nomkstream", "*")
	for i := range fieldArgs {
		args = append(args, fieldArgs[i], entry[i])
	}
	return newAttempt(ctx, args...)
}

// sendOne appends one entry, in a round trip that it shares with concurrent appends.
func (l *Log) sendOne(ctx context.Context, stream string, entry []any) (domain.Appended, error) {
	cmd := xadd(context.WithoutCancel(ctx), stream, entry)
	future := l.pipeline.Submit(ctx, cmd)
	if err := future.WaitContext(ctx); err != nil {
		if errors.Is(err, redis.Nil) {
			return domain.Appended{}, errMissing
		}
		return domain.Appended{}, err
	}
	at, err := addedAt(cmd)
	if err != nil {
		return domain.Appended{}, err
	}
	return domain.Appended{Positions: []domain.Position{at}}, nil
}

// sendBatch appends the entries as one transaction in one round trip.
func (l *Log) sendBatch(ctx context.Context, stream string, entries [][]any) (domain.Appended, error) {
	return detached(ctx, l, func(ctx context.Context) (domain.Appended, error) {
		cmds := make([]attempt, len(entries))
		tx := l.appender.TxPipeline()
		for i, entry := range entries {
			cmds[i] = xadd(ctx, stream, entry)
			_ = tx.Process(ctx, cmds[i])
		}
		if _, err := tx.Exec(ctx); err != nil {
			if errors.Is(err, redis.Nil) {
				return domain.Appended{}, errMissing
			}
			return domain.Appended{}, err
		}
		positions := make([]domain.Position, len(cmds))
		for i, cmd := range cmds {
			var err error
			if positions[i], err = addedAt(cmd); err != nil {
				return domain.Appended{}, err
			}
		}
		return domain.Appended{Positions: positions}, nil
	})
}

func addedAt(cmd attempt) (domain.Position, error) {
	id, err := cmd.Text()
	if err != nil {
		return domain.Position{}, err
	}
	return domain.ParsePosition(id)
}

// detached runs do in a goroutine of the log, and waits for it as long as ctx lasts. A caller
// that gives up does not break the connection.
func detached[T any](ctx context.Context, l *Log, do func(context.Context) (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	var none T
	if !l.enter() {
		return none, ErrClosed
	}
	answer := make(chan result, 1)
	go func() {
		defer l.leave()
		var r result
		r.err = isolate.Run(l.logger, "streams", func() (err error) {
			r.value, err = do(context.WithoutCancel(ctx))
			return err
		})
		answer <- r
	}()
	select {
	case r := <-answer:
		return r.value, r.err
	case <-ctx.Done():
		return none, ctx.Err()
	}
}
