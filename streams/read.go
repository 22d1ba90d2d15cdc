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
	// maxBatch is the most entries of one round trip.
	maxBatch = 1000
	// blockFor is how long one read of the reader blocks, and after how long without entries
	// the reader checks a partition. A shorter time notices a wiped Redis sooner, and costs
	// more when idle.
	blockFor = 2 * time.Second
)

// Read returns up to limit events after a position, in order. An empty page means that there
// are no more events yet; a page with fewer than limit events does not, because Read also
// bounds the bytes of a page. Positions are set and Seq is not. Every entry of the partition is
// returned, including entries that cannot be decoded ([domain.TypeUndecodable]; the SystemID is
// empty if the entry does not name one).
//
// Read fails with [ErrTrimmed] if entries after the position may have been trimmed, and with
// [ErrRewound] if the position is beyond all that the partition ever assigned.
func (l *Log) Read(ctx context.Context, partition int, after domain.Position, limit int) ([]domain.Event, error) {
	events, err := l.read(ctx, partition, after, limit)
	if err != nil {
		return nil, fmt.Errorf("streams: read partition %d after %s: %w", partition, after, err)
	}
	return events, nil
}

func (l *Log) read(ctx context.Context, partition int, after domain.Position, limit int) ([]domain.Event, error) {
	events, _, err := l.readRange(ctx, partition, after, limit)
	if errors.Is(err, ErrRewound) { // the stream may be missing, which inspect repairs
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

// readRange reads entries and the origin atomically.
func (l *Log) readRange(ctx context.Context, partition int, after domain.Position, limit int) ([]domain.Event, origin, error) {
	k := &l.keys[partition]
	tx := l.general.TxPipeline()
	begins := tx.Get(ctx, k.origin)
	if after == (domain.Position{Ms: math.MaxUint64, N: math.MaxUint64}) {
		return nil, origin{}, ErrRewound // Redis has no way to ask for entries after it
	}
	count := l.sizers[partition].next(limit)
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
	l.sizers[partition].learn(count, got)
	l.entriesRead.Add(uint64(len(events)))
	return events, o, err
}

// page is a page that a consumer reads on its own.
type page struct {
	events      []domain.Event  // the next after the consumer's position; none if there are none yet
	incarnation string          // of the stream that the events come from
	last        domain.Position // last position that the partition assigned; set only without events
}

// readPage reads the page after a position for a consumer. It fails with [ErrTrimmed] or
// [ErrRewound] if there may be a gap. seen and incarnation are as in [streamState.follows].
func (l *Log) readPage(ctx context.Context, partition int, at domain.Position, seen bool, incarnation string) (page, error) {
	for range 3 {
		p, present, err := l.readFrom(ctx, partition, at)
		switch {
		case errors.Is(err, ErrRewound): // the origin is missing, which inspect repairs
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
	return page{}, errors.New("streams: the stream was created again while it was read")
}

// readFrom reads entries and the origin, and whether the entry at a position exists,
// atomically.
func (l *Log) readFrom(ctx context.Context, partition int, at domain.Position) (p page, present bool, err error) {
	k := &l.keys[partition]
	tx := l.general.TxPipeline()
	begins := tx.Get(ctx, k.origin)
	count := l.sizers[partition].next(maxBatch)
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
	l.sizers[partition].learn(count, got)
	l.entriesRead.Add(uint64(len(events)))
	return page{events: events, incarnation: o.incarnation}, present || at == o.at, err
}
