package streams

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/plugcast/plugcast/domain"
)

const (
	firstPause = 10 * time.Millisecond
	maxPause   = 2 * time.Second
)

// Follow gives fn every event of the partition after the given position, as
// [Log.Read] describes them, in order, without gap and in batches, from the
// calling goroutine. It waits for new ones and goes on over restarts of Redis.
//
// It returns the error of ctx within milliseconds of its end, ErrClosed when the
// log is closed, fn's error as it is, or [ErrTrimmed] or [ErrRewound] when it
// cannot go on without a gap. The position may be any, not only that of an
// event. Each Follow has a connection of its own.
func (l *Log) Follow(ctx context.Context, partition int, after domain.Position, fn func([]domain.Event) error) error {
	if !l.enter() {
		return ErrClosed
	}
	defer l.leave()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(l.closing, cancel)()
	f := follower{log: l, partition: partition, at: after, deliver: fn}
	err := f.run(ctx)
	var given *deliverError
	switch {
	case errors.As(err, &given):
		return given.error
	case l.closing.Err() != nil:
		return ErrClosed
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return fmt.Errorf("streams: follow partition %d after %s: %w", partition, f.at, err)
}

// deliverError is an error of the function that gets the events.
type deliverError struct{ error }

// follower is the state of one Follow.
type follower struct {
	log       *Log
	partition int
	deliver   func([]domain.Event) error

	at          domain.Position
	seen        bool   // at is an entry that was read from this stream
	incarnation string // of the stream, once known
	dials       atomic.Int64
	checked     int64 // dials when the place was checked last
}

// run reads over one connection after the other.
func (f *follower) run(ctx context.Context) error {
	pause := firstPause
	away := false
	working := func() {
		if away {
			f.log.outage.cameBack(f.partition)
		}
		away = false
	}
	defer func() {
		if away {
			f.log.outage.gaveUp()
		}
	}()
	for {
		before := f.at
		err := f.connect(ctx, working)
		var given *deliverError
		switch {
		case errors.Is(err, ErrTrimmed), errors.Is(err, ErrRewound):
			working() // Redis answers, though not what we want to hear
			return err
		case ctx.Err() != nil, errors.As(err, &given):
			return err
		}
		if !away {
			f.log.outage.brokeOff(f.partition, err)
			away = true
		}
		if f.at != before {
			pause = firstPause
		}
		select {
		case <-time.After(jitter(pause)):
			pause = min(2*pause, maxPause)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// connect reads until an error. It calls working when the connection does.
func (f *follower) connect(ctx context.Context, working func()) error {
	client, err := blockingClient(ctx, f.log.general, f.log.keys[f.partition].events, func() { f.dials.Add(1) })
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = client.Close() }) // interrupts a read that blocks
	defer func() {
		if stop() {
			_ = client.Close()
		}
	}()
	if err := f.check(ctx); err != nil {
		return err
	}
	working()
	for {
		events, err := f.next(ctx, client)
		if err != nil {
			return err
		}
		if len(events) == 0 {
			continue
		}
		if err := f.deliver(events); err != nil {
			return &deliverError{err}
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		f.at, f.seen = events[len(events)-1].Position, true
	}
}

// next waits for entries for a while, and makes sure that none is missing
// before the first.
func (f *follower) next(ctx context.Context, client *redis.Client) ([]domain.Event, error) {
	k := &f.log.keys[f.partition]
	pipe := client.Pipeline()
	appetite := &f.log.appetites[f.partition]
	count := appetite.next(maxBatch)
	raw := redis.NewRawCmd(ctx, "xread", "count", count, "block", blockFor.Milliseconds(), "streams", k.events, f.at.String())
	_ = pipe.Process(ctx, raw)
	begins := pipe.Get(ctx, k.origin) // after the entries: a trim in between must be seen
	if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return nil, err
	}
	events, got, err := decodeRead(raw.Val())
	if err != nil {
		return nil, err
	}
	appetite.note(count, got)
	o, err := parseOrigin(begins.Val())
	switch {
	case err != nil, o.incarnation != f.incarnation, len(events) == 0, f.dials.Load() != f.checked:
		// Something happened, or nothing did for a while: look closely.
		if err := f.check(ctx); err != nil {
			return nil, err
		}
	case f.at.Before(o.at):
		return nil, ErrTrimmed
	}
	f.log.entriesRead.Add(uint64(len(events)))
	return events, nil
}

// check fails when the log cannot be read on from f.at without a gap.
func (f *follower) check(ctx context.Context) error {
	dials := f.dials.Load()
	p, err := f.log.look(ctx, f.partition, f.at)
	switch {
	case err != nil:
		return err
	case f.at.Before(p.origin.at):
		return ErrTrimmed
	case f.at.After(p.last):
		return ErrRewound
	case f.at == p.origin.at:
		// All that the reader has is archived, whatever happened.
	case f.incarnation != "" && f.incarnation != p.origin.incarnation, f.seen && !p.present:
		return ErrRewound
	}
	f.incarnation, f.checked = p.origin.incarnation, dials
	return nil
}

// decodeRead reads the reply of an XREAD on one stream.
func decodeRead(raw []byte) (events []domain.Event, got reading, err error) {
	r := &reply{buf: raw}
	n, err := r.array()
	if err != nil || n < 1 {
		return nil, got, err
	}
	if _, err := r.array(); err != nil {
		return nil, got, err
	}
	if _, err := r.bulk(); err != nil {
		return nil, got, err
	}
	return decodeEntries(r)
}
