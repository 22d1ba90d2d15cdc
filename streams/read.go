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
	// blockFor is how long a follow waits for news in one round trip. A shorter
	// wait notices a wiped Redis sooner, and costs more when idle.
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
		if _, err := l.look(ctx, partition, after); err != nil {
			return nil, err
		}
		events, _, err = l.readRange(ctx, partition, after, limit)
	}
	if err != nil || len(events) > 0 || after.IsZero() {
		return events, err
	}
	p, err := l.look(ctx, partition, after)
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
