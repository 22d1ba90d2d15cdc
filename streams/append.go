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

// Append implements [domain.Log]. Events without an id get a UUIDv7, and events
// without a time get now. It waits for no longer than ctx lasts: when ctx ends
// after the events were sent, the outcome is unknown.
//
// Events of several partitions are appended concurrently. If only some of the
// partitions took theirs, the outcome is unknown as well; with an idempotency
// key a repeat completes it.
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
		return domain.Appended{}, unavailable(ctx.Err())
	}
	stamped, err := stamp(events)
	if err != nil {
		return domain.Appended{}, err
	}
	shares := l.split(stamped)
	if opts.Expect != nil && !oneSystem(events) {
		return domain.Appended{}, errors.New("streams: append: an expectation needs all events in one system")
	}
	if len(shares) == 1 {
		return l.appendShare(ctx, shares[0], opts)
	}
	if opts.Idempotency != nil {
		begun, err := l.refuseReuse(ctx, stamped, opts.Idempotency)
		if err != nil {
			return domain.Appended{}, err
		}
		for i := range shares {
			shares[i].completes = begun
		}
	}
	return l.appendShares(ctx, shares, len(events), opts)
}

// isFailure tells a log that could not append from one that was right to refuse.
func isFailure(err error) bool {
	if conflict := new(domain.ConflictError); errors.As(err, &conflict) {
		return false
	}
	kind := domain.AsError(err).Kind
	return kind != domain.KindInvalid && kind != domain.KindLimited
}

// share is the part of an append that goes to one partition.
type share struct {
	partition int
	events    []domain.Event
	index     []int // where each event was in the whole; nil when it is the whole
	// completes is set when another partition took its part under the same idempotency
	// key before: this part is taken even if its systems have used up their keys.
	completes bool
}

func (l *Log) split(events []domain.Event) []share {
	first := l.Partition(events[0].SystemID)
	single := true
	for i := 1; i < len(events) && single; i++ {
		single = events[i].SystemID == events[i-1].SystemID || l.Partition(events[i].SystemID) == first
	}
	if single {
		return []share{{partition: first, events: events}}
	}
	var shares []share
	at := make(map[int]int)
	for i := range events {
		p := l.Partition(events[i].SystemID)
		n, known := at[p]
		if !known {
			n = len(shares)
			at[p] = n
			shares = append(shares, share{partition: p})
		}
		shares[n].events = append(shares[n].events, events[i])
		shares[n].index = append(shares[n].index, i)
	}
	return shares
}

func oneSystem(events []domain.Event) bool {
	for i := range events {
		if events[i].SystemID != events[0].SystemID {
			return false
		}
	}
	return true
}

// stamp returns a copy of the events with ids and times, or says which cannot
// be kept.
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

func (l *Log) appendShares(ctx context.Context, shares []share, n int, opts domain.AppendOptions) (domain.Appended, error) {
	whole := domain.Appended{Positions: make([]domain.Position, n), Replayed: true}
	parts, errs := make([]domain.Appended, len(shares)), make([]error, len(shares))
	var group errgroup.Group
	for i := range shares {
		group.Go(func() error {
			errs[i] = isolate.Run(l.logger, "streams", func() (err error) {
				parts[i], err = l.appendShare(ctx, shares[i], opts)
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
			whole.Positions[shares[i].index[j]] = at
		}
	}
	switch {
	case failed == nil:
		return whole, nil
	case uncertain != nil:
		return domain.Appended{}, uncertain
	case done > 0:
		return domain.Appended{}, fmt.Errorf("streams: append: %d of %d partitions took their events, and then: %v", done, len(shares), failed)
	default:
		return domain.Appended{}, failed
	}
}

func appendFailureIsUncertain(err error) bool {
	return domain.HasCode(appendFailure(err), domain.CodeUnknownOutcome)
}

// appendShare appends to one partition, and tries again while it is certain
// that nothing was done.
func (l *Log) appendShare(ctx context.Context, s share, opts domain.AppendOptions) (domain.Appended, error) {
	entries, err := l.draft(ctx, s)
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
				return domain.Appended{}, unavailable(err)
			}
			continue
		case errors.Is(err, errMissing):
			return domain.Appended{}, unavailable(err)
		case !passing(err):
			return domain.Appended{}, err
		case giveUp.IsZero():
			giveUp = time.Now().Add(l.config.Patience)
		}
		if !time.Now().Before(giveUp) {
			return domain.Appended{}, err
		}
		if err := retry.Wait(ctx); err != nil {
			return domain.Appended{}, unavailable(err)
		}
	}
}

// draft runs the events through Watermill's publisher.
func (l *Log) draft(ctx context.Context, s share) ([][]any, error) {
	d := &draft{entries: make([][]any, 0, len(s.events))}
	ctx = context.WithValue(ctx, draftKey{}, d)
	messages := make([]*message.Message, len(s.events))
	for i := range s.events {
		messages[i] = newMessage(ctx, &s.events[i])
	}
	if err := l.publisher.Publish(l.keys[s.partition].events, messages...); err != nil {
		return nil, unavailable(err)
	}
	return d.entries, nil
}

// send makes one attempt, in the cheapest way that the append allows.
func (l *Log) send(ctx context.Context, s share, entries [][]any, opts domain.AppendOptions) (domain.Appended, error) {
	switch {
	case opts != domain.AppendOptions{}:
		return l.sendScript(ctx, s, entries, opts)
	case len(entries) == 1:
		return l.sendOne(ctx, l.keys[s.partition].events, entries[0])
	default:
		return l.sendBatch(ctx, l.keys[s.partition].events, entries)
	}
}

// xadd is the command that adds one entry to a stream that exists. Where it
// does not, Redis was wiped, and the stream has to be set past what is archived
// before anything is appended.
func xadd(ctx context.Context, stream string, entry []any) once {
	args := make([]any, 0, 4+2*len(fieldNames))
	args = append(args, "xadd", stream, "nomkstream", "*")
	for i := range fieldArgs {
		args = append(args, fieldArgs[i], entry[i])
	}
	return newOnce(ctx, args...)
}

// sendOne shares a round trip with other appends of this moment.
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

// sendBatch sends the entries as one transaction in one round trip.
func (l *Log) sendBatch(ctx context.Context, stream string, entries [][]any) (domain.Appended, error) {
	return detached(ctx, l, func(ctx context.Context) (domain.Appended, error) {
		cmds := make([]once, len(entries))
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

func addedAt(cmd once) (domain.Position, error) {
	id, err := cmd.Text()
	if err != nil {
		return domain.Position{}, err
	}
	return domain.ParsePosition(id)
}

// detached runs do in a goroutine of the log's and waits for it as long as ctx
// lasts. A connection is not broken off because a caller went away.
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
