package main

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/streams/timeline"
)

// sequence is one numbered sequence per system: a [timeline.Timeline].
type sequence interface {
	Locate(ctx context.Context, system domain.SystemID, after domain.Position) (domain.Cursor, error)
	Page(ctx context.Context, system domain.SystemID, after domain.Cursor, max int) ([]domain.Event, error)
	Subscribe(ctx context.Context, system domain.SystemID, fn func([]domain.Event, error)) (start domain.Cursor, cancel func(), err error)
}

var _ sequence = (*timeline.Timeline)(nil)

// outcomes is [rest.Outcomes] on the timeline.
type outcomes struct {
	sequence sequence
	waiting  chan struct{} // one for each that follows
}

func newOutcomes(s sequence) outcomes { return outcomes{s, make(chan struct{}, outcomesAtOnce)} }

const (
	outcomesAtOnce = 1000                   // commands that wait in this process
	outcomePage    = 512                    // events read at a time
	outcomeBuffer  = 256                    // events that wait for the reader; beyond that they are read again
	outcomePause   = 100 * time.Millisecond // before a subscription that broke is made anew
)

// Follow implements rest.Outcomes. It costs a subscription, and the reading of
// what was appended since the position. It fails when too many do.
func (o outcomes) Follow(ctx context.Context, system domain.SystemID, after domain.Position, fn func(*domain.Event) bool) error {
	select {
	case o.waiting <- struct{}{}:
		defer func() { <-o.waiting }()
	default:
		return errors.New("too many commands wait for their outcome")
	}
	for {
		f := outcomeReader{sequence: o.sequence, system: system, fn: fn}
		done, err := f.run(ctx, after)
		if done || err != nil {
			return err
		}
		// The sequence was counted anew, or could not be followed: begin again behind
		// the last event that fn got.
		after = f.at.Position
		select {
		case <-time.After(outcomePause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// outcomeReader is one subscription to a system, and the place of its reader.
type outcomeReader struct {
	sequence sequence
	system   domain.SystemID
	fn       func(*domain.Event) bool
	at       domain.Cursor // of the last event that fn got
}

// run returns with an error when it cannot begin, and with neither that nor done
// when the subscription breaks.
func (f *outcomeReader) run(ctx context.Context, after domain.Position) (done bool, err error) {
	f.at.Position = after // to go on from, if this fails
	in := newInbox()
	start, cancel, err := f.sequence.Subscribe(ctx, f.system, in.put)
	if err != nil {
		return false, err
	}
	defer cancel()
	if f.at, err = f.sequence.Locate(ctx, f.system, after); err != nil {
		return false, err
	}
	if done, err := f.page(ctx, start); done || err != nil {
		return done, err
	}
	for {
		select {
		case <-in.news:
		case <-ctx.Done():
			return false, ctx.Err()
		}
		events, head, broken := in.take()
		if done, err := f.page(ctx, head); done || err != nil {
			return done, err
		}
		if f.give(events) {
			return true, nil
		}
		if broken != nil {
			return false, ctx.Err()
		}
	}
}

// page reads up to a place at least.
func (f *outcomeReader) page(ctx context.Context, upTo domain.Cursor) (done bool, err error) {
	for f.at.Seq < upTo.Seq {
		events, err := f.sequence.Page(ctx, f.system, f.at, outcomePage)
		if err != nil {
			return false, err
		}
		if len(events) == 0 {
			return false, errors.New("the log has lost what it gave to subscribers")
		}
		if f.give(events) {
			return true, nil
		}
	}
	return false, nil
}

// give hands on what is new.
func (f *outcomeReader) give(events []domain.Event) (done bool) {
	for i := range events {
		if events[i].Seq <= f.at.Seq {
			continue
		}
		f.at = events[i].Cursor()
		if f.fn(&events[i]) {
			return true
		}
	}
	return false
}

// inbox takes events from a subscription, which must not be blocked, to a reader.
type inbox struct {
	news chan struct{}

	mu     sync.Mutex
	events []domain.Event
	missed domain.Cursor // the last event that found no room: up to it the reader reads for itself
	broken error
}

func newInbox() *inbox { return &inbox{news: make(chan struct{}, 1)} }

func (in *inbox) put(events []domain.Event, err error) {
	in.mu.Lock()
	switch {
	case err != nil:
		in.broken = err
	case len(in.events)+len(events) <= outcomeBuffer:
		in.events = append(in.events, events...)
	default:
		in.missed = events[len(events)-1].Cursor()
		in.events = nil
	}
	in.mu.Unlock()
	select {
	case in.news <- struct{}{}:
	default:
	}
}

// take returns what came since, behind the place up to which it has to be read.
func (in *inbox) take() (events []domain.Event, missed domain.Cursor, broken error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	events, missed, broken = in.events, in.missed, in.broken
	in.events = nil
	return events, missed, broken
}
