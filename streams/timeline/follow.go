package timeline

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/domain/backoff"
)

const (
	// FollowBatch is the most events that [Follow] passes on at a time.
	FollowBatch = 512
	// followBuffer is how many events wait in memory for a slow reader. Beyond that they
	// are read again with Page.
	followBuffer = 256
	// followPause is the pause between the end of a subscription and the next one.
	followPause = 100 * time.Millisecond
)

// Sequence is one numbered sequence of events per system: a [Timeline], or a test's substitute.
// The methods of Timeline document the contract.
type Sequence interface {
	Locate(ctx context.Context, system domain.SystemID, after domain.Position) (domain.Cursor, error)
	Page(ctx context.Context, system domain.SystemID, after domain.Cursor, max int) ([]domain.Event, error)
	Subscribe(ctx context.Context, system domain.SystemID, fn func([]domain.Event, error)) (start domain.Cursor, cancel func(), err error)
}

var _ Sequence = (*Timeline)(nil)

// Follow calls the function [Follow] for this timeline.
func (t *Timeline) Follow(
	ctx context.Context, system domain.SystemID, after domain.Position, fn func(events []domain.Event, behind uint64) error,
) error {
	return Follow(ctx, t, system, after, fn)
}

// End returns the last position that the system's partition ever assigned, even if that entry
// is gone. Every later append gets a position after it.
func (t *Timeline) End(ctx context.Context, system domain.SystemID) (domain.Position, error) {
	end, err := t.log.Tail(ctx, t.log.Partition(system))
	return end, wrap("end of", system, err)
}

// Follow calls fn with every event of the system after a position, in order, with Seq, each
// exactly once: first the existing events, and then new events as they are appended. The
// position need not be that of an event, and may be trimmed from the log.
//
// fn gets batches of 1 to [FollowBatch] events, and the number of events that are known to
// follow them. It runs in the caller's goroutine and may block: a bounded number of events
// waits in memory, and the rest is read again. fn may keep the events, and must not change
// them.
//
// If a subscription ends, Follow subscribes again and continues behind the last event that fn
// took. Follow returns an error: fn's error, as it is; the cause of ctx's end;
// [domain.ErrAhead] if the log never reached the position, or was set back behind it, even if
// it has grown beyond it since; [domain.ErrGap] if an event is missing, or if the events that
// fn took now have other numbers; [ErrClosed]; or the error of the archive or the log. The
// caller may continue from the last event that fn took.
//
// Rooms do not use Follow: a room has one subscription for many readers at different positions,
// and must not wait for any of them. See package rooms.
func Follow(
	ctx context.Context, s Sequence, system domain.SystemID, after domain.Position, fn func(events []domain.Event, behind uint64) error,
) error {
	f := follow{sequence: s, system: system, fn: fn, after: after}
	for {
		err := f.run(ctx)
		if err == nil {
			err = backoff.Sleep(ctx, followPause)
		}
		if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
			return context.Cause(ctx)
		}
		if err != nil {
			return err
		}
	}
}

// follow is the state of one Follow.
type follow struct {
	sequence Sequence
	system   domain.SystemID
	fn       func([]domain.Event, uint64) error
	after    domain.Position // position of the last event that fn took; at first, the start
	at       domain.Cursor   // the newest event at or before after, once located
	located  bool
}

// run follows over one subscription, and returns nil if that ends.
func (f *follow) run(ctx context.Context) error {
	in := &inbox{news: make(chan struct{}, 1)}
	start, cancel, err := f.sequence.Subscribe(ctx, f.system, in.put)
	if err != nil {
		return err
	}
	defer cancel()
	if err := f.locate(ctx); err != nil {
		return err
	}
	in.startAt(start)
	for {
		events, upTo, head, broken := in.take()
		if err := f.read(ctx, upTo.Seq, head); err != nil {
			return err
		}
		if err := f.give(events, head); err != nil {
			return err
		}
		if broken {
			return nil
		}
		select {
		case <-in.news:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// locate finds the cursor to read from. After the end of a subscription it also checks that the
// cursor is the same as before. It differs if the subscription numbered its events wrongly, or
// if the log was set back and has grown beyond f.after since: then the events that fn took are
// not those of the sequence any more.
func (f *follow) locate(ctx context.Context) error {
	at, err := f.sequence.Locate(ctx, f.system, f.after)
	if err != nil {
		return err
	}
	if f.located && at != f.at {
		reason := domain.ErrGap
		if at.Position.Before(f.at.Position) {
			reason = domain.ErrAhead
		}
		return fmt.Errorf("timeline: follow %s: %w: the reader is at %s, but the log has %s there", f.system, reason, f.at, at)
	}
	f.at, f.located = at, true
	return nil
}

// read reads pages and passes them on until fn has had all events up to the seq upTo.
func (f *follow) read(ctx context.Context, upTo, head uint64) error {
	for f.at.Seq < upTo {
		events, err := f.sequence.Page(ctx, f.system, f.at, FollowBatch)
		if err != nil {
			return err
		}
		if len(events) == 0 {
			return errors.New("timeline: the log has lost events that subscribers have had")
		}
		before := f.at
		if err := f.give(events, head); err != nil {
			return err
		}
		if f.at == before { // no new event: without an error this loop would not end
			return fmt.Errorf("timeline: follow %s: %w: %s is not the newest event at %s", f.system, domain.ErrGap, f.at, f.after)
		}
	}
	return ctx.Err()
}

// give passes the new ones of the events to fn.
func (f *follow) give(events []domain.Event, head uint64) error {
	for len(events) > 0 && !events[0].Position.After(f.after) {
		events = events[1:]
	}
	if len(events) == 0 {
		return nil
	}
	last := events[len(events)-1].Cursor()
	if last.Seq != f.at.Seq+uint64(len(events)) {
		return fmt.Errorf("timeline: follow %s: %w between %s and %s", f.system, domain.ErrGap, f.at, last)
	}
	if err := f.fn(events, max(head, last.Seq)-last.Seq); err != nil {
		return err
	}
	f.at, f.after = last, last.Position
	return nil
}

// inbox takes events from a subscription, which must not block, to a reader.
type inbox struct {
	news chan struct{}

	mu     sync.Mutex
	events []domain.Event
	missed domain.Cursor // the reader reads the events up to here with Page, because there was no room for them
	head   uint64        // seq of the newest event that is known
	broken bool
}

func (in *inbox) put(events []domain.Event, err error) {
	in.mu.Lock()
	switch {
	case err != nil:
		in.broken = true
	case len(in.events)+len(events) <= followBuffer:
		in.events = append(in.events, events...)
	default:
		in.missed = events[len(events)-1].Cursor()
		in.events = nil
	}
	if len(events) > 0 {
		in.head = events[len(events)-1].Seq
	}
	in.mu.Unlock()
	select {
	case in.news <- struct{}{}:
	default:
	}
}

// startAt makes the reader read up to the start of the subscription with Page.
func (in *inbox) startAt(start domain.Cursor) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.missed.Seq < start.Seq {
		in.missed = start
	}
	in.head = max(in.head, start.Seq)
}

// take returns the events that came since the last take, and the cursor up to which the reader
// has to read with Page first.
func (in *inbox) take() (events []domain.Event, missed domain.Cursor, head uint64, broken bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	events, in.events = in.events, nil
	return events, in.missed, in.head, in.broken
}
