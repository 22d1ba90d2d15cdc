package rest

import (
	"context"
	"errors"

	"github.com/plugcast/plugcast/domain"
)

// Timeline returns the events of each system in order.
type Timeline interface {
	// Follow calls fn with the events after a position, in order, until fn returns an
	// error or ctx ends, and returns that error. This package does not use behind.
	Follow(ctx context.Context, system domain.SystemID, after domain.Position, fn func(events []domain.Event, behind uint64) error) error
}

// timelineOutcomes implements [Outcomes] on a timeline.
type timelineOutcomes struct {
	timeline Timeline
	slots    chan struct{} // has one entry per waiting command
}

// NewOutcomes returns the [Outcomes] of a timeline. At most maxWaiting commands wait at a
// time.
func NewOutcomes(t Timeline) Outcomes { return newOutcomes(t) }

func newOutcomes(t Timeline) timelineOutcomes {
	return timelineOutcomes{t, make(chan struct{}, maxWaiting)}
}

// maxWaiting is the maximum number of commands that wait in this process.
const maxWaiting = 1000

var errFound = errors.New("the outcome was found")

// Follow implements [Outcomes]. Each call costs a subscription, and a read of the events
// since the position. Follow fails if maxWaiting other calls are in progress.
func (o timelineOutcomes) Follow(ctx context.Context, system domain.SystemID, after domain.Position, fn func(*domain.Event) bool) error {
	select {
	case o.slots <- struct{}{}:
		defer func() { <-o.slots }()
	default:
		return errors.New("too many commands wait for their outcome")
	}
	err := o.timeline.Follow(ctx, system, after, func(events []domain.Event, _ uint64) error {
		for i := range events {
			if fn(&events[i]) {
				return errFound
			}
		}
		return nil
	})
	if err == errFound {
		return nil
	}
	return err
}
