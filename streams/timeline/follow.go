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
	// FollowBatch is how many events [Follow] gives at a time, at most.
	FollowBatch = 512
	// followBuffer is how many events wait for a slow reader. Beyond that they are
	// read again.
	followBuffer = 256
	// followPause is how long a follow waits before it subscribes again after its
	// subscription broke.
	followPause = 100 * time.Millisecond
)

// Sequence is one numbered sequence per system: a [Timeline], or what a test has in
// its place. Timeline documents the methods.
type Sequence interface {
	Locate(ctx context.Context, system domain.SystemID, after domain.Position) (domain.Cursor, error)
	Page(ctx context.Context, system domain.SystemID, after domain.Cursor, max int) ([]domain.Event, error)
	Subscribe(ctx context.Context, system domain.SystemID, fn func([]domain.Event, error)) (start domain.Cursor, cancel func(), err error)
}

var _ Sequence = (*Timeline)(nil)

// Follow is the function Follow on this timeline.
func (t *Timeline) Follow(
	ctx context.Context, system domain.SystemID, after domain.Position, fn func(events []domain.Event, behind uint64) error,
) error {
	return Follow(ctx, t, system, after, fn)
}

// End returns the last position that the system's partition ever gave, whether or
// not that entry is still there. What is appended from now on comes after it.
func (t *Timeline) End(ctx context.Context, system domain.SystemID) (domain.Position, error) {
	end, err := t.log.Tail(ctx, t.log.Partition(system))
	return end, wrap("end of", system, err)
}

// Follow calls fn with every event of the system after a position, in order, with
// Seq, none twice and none left out: first those that are there, and then those that
// come. The position need not be that of an event, and may be trimmed from the log.
//
// fn gets batches of 1 to [FollowBatch] events, and how many more are known to come
// behind them. It is called in the caller's goroutine and may take its time: what
// waits for it is bounded, and the rest is read again. It may keep the events, and
// must not change them.
//
// A subscription that breaks is made again, behind the last event that fn got.
// Follow ends with an error: fn's, as it is; the cause of ctx's end;
// [domain.ErrAhead] when the log never came to the position, or was set back
// behind it, even if it has grown beyond it since; [domain.ErrGap] when an event is
// missing, or the events that fn took have other numbers now; [ErrClosed]; or why the
// archive or the log cannot be read. The caller may go on from the last event that
// fn took.
//
// Rooms do not follow. A room has one subscription for many readers at different
// places, and may not wait for any of them: see package rooms.
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
	after    domain.Position // of the last event that fn took, or where to begin
	at       domain.Cursor   // the newest event at or before it, once that is located
	located  bool
}

// run follows over one subscription, and returns nil when that breaks.
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
	in.saw(start)
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

// locate finds the cursor to read from. A subscription that broke may have given wrong
// numbers, and the log may have been set back and may have grown beyond f.after again:
// then the answer is not the one from before, and what fn took is not what is there now.
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
		return fmt.Errorf("timeline: follow %s: %w: the reader is at %s, where the log has %s", f.system, reason, f.at, at)
	}
	f.at, f.located = at, true
	return nil
}

// read gives pages up to a seq at least.
func (f *follow) read(ctx context.Context, upTo, head uint64) error {
	for f.at.Seq < upTo {
		events, err := f.sequence.Page(ctx, f.system, f.at, FollowBatch)
		if err != nil {
			return err
		}
		if len(events) == 0 {
			return errors.New("timeline: the log has lost what it gave to subscribers")
		}
		before := f.at
		if err := f.give(events, head); err != nil {
			return err
		}
		if f.at == before { // none of them was new: without an error this would go on for ever
			return fmt.Errorf("timeline: follow %s: %w: %s is not the newest event at %s", f.system, domain.ErrGap, f.at, f.after)
		}
	}
	return ctx.Err()
}

// give passes on those of the events that are new.
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

// inbox takes events from a subscription, which must not be blocked, to a reader.
type inbox struct {
	news chan struct{}

	mu     sync.Mutex
	events []domain.Event
	missed domain.Cursor // the last event that found no room: up to it the reader reads for itself
	head   uint64        // seq of the newest event that was heard of
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

// saw makes the reader read for itself up to where the subscription starts.
func (in *inbox) saw(start domain.Cursor) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.missed.Seq < start.Seq {
		in.missed = start
	}
	in.head = max(in.head, start.Seq)
}

// take returns what came since, behind the place up to which it has to be read.
func (in *inbox) take() (events []domain.Event, missed domain.Cursor, head uint64, broken bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	events, in.events = in.events, nil
	return events, in.missed, in.head, in.broken
}
