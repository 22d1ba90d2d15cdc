package main

import (
	"context"
	"errors"

	"github.com/plugcast/plugcast/domain"
)

// follower is a [timeline.Timeline].
type follower interface {
	Follow(ctx context.Context, system domain.SystemID, after domain.Position, fn func(events []domain.Event, behind uint64) error) error
}

// outcomes is [rest.Outcomes] on the timeline.
type outcomes struct {
	timeline follower
	waiting  chan struct{} // one for each that follows
}

func newOutcomes(f follower) outcomes { return outcomes{f, make(chan struct{}, outcomesAtOnce)} }

// outcomesAtOnce is how many commands wait in this process.
const outcomesAtOnce = 1000

var errFound = errors.New("the outcome was found")

// Follow implements rest.Outcomes. It costs a subscription, and the reading of
// what was appended since the position. It fails when too many do.
func (o outcomes) Follow(ctx context.Context, system domain.SystemID, after domain.Position, fn func(*domain.Event) bool) error {
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
