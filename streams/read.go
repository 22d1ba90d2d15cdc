package streams

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/plugcast/plugcast/domain"
)

const (
	// maxBatch bounds how many entries one round trip brings.
	maxBatch = 1000
	// blockFor is how long the reader waits for news in one round trip, and after which
	// it looks at a partition that gave none. A shorter wait notices a wiped Redis
	// sooner, and costs more when idle.
	blockFor = 2 * time.Second
)

// Read returns up to max events after a position, in order, none when there are
// none yet. Only an empty page says that: one of large entries, or of a partition
// whose entries' sizes are not known yet, has fewer than there are. Positions are set and Seq is not. Every entry of the partition is
// among them, also one that cannot be decoded ([domain.TypeUndecodable]; its
// SystemID is empty when the entry does not name one).
//
// It fails with [ErrTrimmed] when entries after the position may have been
// trimmed, and with [ErrRewound] when the position is beyond all that the
// partition ever gave.
func (l *Log) Read(ctx context.Context, partition int, after domain.Position, limit int) ([]domain.Event, error) {
	events, err := l.read(ctx, partition, after, limit)
	if err != nil {
		return nil, fmt.Errorf("streams: read partition %d after %s: %w", partition, after, err)
	}
	return events, nil
}

func (l *Log) read(ctx context.Context, partition int, after domain.Position, limit int) ([]domain.Event, error) {
	events, _, err := l.readRange(ctx, partition, after, limit)
	if errors.Is(err, ErrRewound) { // the stream may be missing, which look repairs
		if _, err := l.inspect(ctx, partition, after); err != nil {
			return nil, err
		}
		events, _, err = l.readRange(ctx, partition, after, limit)
	}
	if err != nil || len(events) > 0 || after.IsZero() {
		return events, err
	}
	p, err := l.inspect(ctx, partition, after)
	if err == nil && after.After(p.last) {
		err = ErrRewound
	}
	return nil, err
}

// readRange reads entries and the origin at the same moment.
func (l *Log) readRange(ctx context.Context, partition int, after domain.Position, limit int) ([]domain.Event, origin, error) {
	k := &l.keys[partition]
	tx := l.general.TxPipeline()
	begins := tx.Get(ctx, k.origin)
	if after == (domain.Position{Ms: math.MaxUint64, N: math.MaxUint64}) {
		return nil, origin{}, ErrRewound // Redis has no word for what is after it
	}
	count := l.appetites[partition].next(limit)
	raw := redis.NewRawCmd(ctx, "xrange", k.events, "("+after.String(), "+", "count", count)
	_ = tx.Process(ctx, raw)
	if _, err := tx.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return nil, origin{}, err
	}
	o, err := parseOrigin(begins.Val())
	if err != nil {
		return nil, origin{}, err
	}
	if after.Before(o.at) {
		return nil, o, ErrTrimmed
	}
	events, got, err := decodeEntries(&reply{buf: raw.Val()})
	l.appetites[partition].note(count, got)
	l.entriesRead.Add(uint64(len(events)))
	return events, o, err
}

// page is what a consumer reads on its own.
type page struct {
	events      []domain.Event  // after the consumer's position, closely; none when there are none yet
	incarnation string          // of the stream that they come from
	last        domain.Position // given last by the partition; only where there are no events
}

// readPage reads what follows a position, as a consumer needs it: it fails with
// [ErrTrimmed] or [ErrRewound] where there may be a gap. seen and incarnation are as
// [streamState.follows] has them.
func (l *Log) readPage(ctx context.Context, partition int, at domain.Position, seen bool, incarnation string) (page, error) {
	for range 3 {
		p, present, err := l.readFrom(ctx, partition, at)
		switch {
		case errors.Is(err, ErrRewound): // there is no origin, which look repairs
		case err != nil:
			return page{}, err
		case len(p.events) > 0 && (present || !seen) && (incarnation == "" || incarnation == p.incarnation):
			return p, nil
		}
		there, err := l.inspect(ctx, partition, at)
		if err == nil {
			err = there.follows(at, seen, incarnation)
		}
		if err != nil {
			return page{}, err
		}
		if p.last = there.last; p.incarnation == there.origin.incarnation && (present || !seen) {
			return p, nil
		}
	}
	return page{}, errors.New("streams: the stream was made again while it was read")
}

// readFrom reads entries, the origin, and whether the entry at a position is there,
// all at the same moment.
func (l *Log) readFrom(ctx context.Context, partition int, at domain.Position) (p page, present bool, err error) {
	k := &l.keys[partition]
	tx := l.general.TxPipeline()
	begins := tx.Get(ctx, k.origin)
	count := l.appetites[partition].next(maxBatch)
	raw := redis.NewRawCmd(ctx, "xrange", k.events, at.String(), "+", "count", count+1)
	_ = tx.Process(ctx, raw)
	if _, err := tx.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return page{}, false, err
	}
	o, err := parseOrigin(begins.Val())
	switch {
	case err != nil:
		return page{}, false, err
	case at.Before(o.at):
		return page{}, false, ErrTrimmed
	}
	events, present, got, err := decodeEntriesAfter(&reply{buf: raw.Val()}, at)
	l.appetites[partition].note(count, got)
	l.entriesRead.Add(uint64(len(events)))
	return page{events: events, incarnation: o.incarnation}, present || at == o.at, err
}
