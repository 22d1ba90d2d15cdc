package rest

import (
	"context"
	"errors"

	"github.com/plugcast/plugcast/domain"
)

// Timeline has the events of each system in order.
type Timeline interface {
	// Follow gives fn the events after a position, in order, until fn fails or ctx ends,
	// and returns that error. behind is not used here.
	Follow(ctx context.Context, system domain.SystemID, after domain.Position, fn func(events []domain.Event, behind uint64) error) error
}

// followed is [Outcomes] on the timeline.
type followed struct {
	timeline Timeline
	waiting  chan struct{} // one for each that follows
}

// NewOutcomes makes the [Outcomes] of a timeline. At most 1,000 commands wait at a time.
func NewOutcomes(t Timeline) Outcomes { return newOutcomes(t) }

func newOutcomes(t Timeline) followed { return followed{t, make(chan struct{}, outcomesAtOnce)} }

// outcomesAtOnce is how many commands wait in this process.
const outcomesAtOnce = 1000

var errFound = errors.New("the outcome was found")

// Follow implements [Outcomes]. It costs a subscription, and the reading of
// what was appended since the position. It fails when too many do.
func (o followed) Follow(ctx context.Context, system domain.SystemID, after domain.Position, fn func(*domain.Event) bool) error {
	select {
	case o.waiting <- struct{}{}:
		defer func() { <-o.waiting }()
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
