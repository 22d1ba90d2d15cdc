package rest

import (
	"context"
	"errors"
	"testing"

	"github.com/plugcast/plugcast/domain"
)

// endlessTimeline returns batches of three events until fn fails or ctx ends.
type endlessTimeline struct{}

func (endlessTimeline) Follow(
	ctx context.Context, _ domain.SystemID, after domain.Position, fn func([]domain.Event, uint64) error,
) error {
	for at := after.Ms; ctx.Err() == nil; {
		batch := make([]domain.Event, 3)
		for i := range batch {
			at++
			batch[i].Position.Ms = at
		}
		if err := fn(batch, 0); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func TestOutcomesAreFollowed(t *testing.T) {
	t.Parallel()
	o := newOutcomes(endlessTimeline{})
	got := uint64(4)
	err := o.Follow(t.Context(), "clinica-sol", domain.Position{Ms: got}, func(e *domain.Event) bool {
		if got++; e.Position.Ms != got {
			t.Errorf("got %d, want %d", e.Position.Ms, got)
		}
		return got == 9 // in the middle of a batch
	})
	if err != nil || got != 9 {
		t.Errorf("ended at %d with %v", got, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	err = o.Follow(ctx, "clinica-sol", domain.Position{}, func(*domain.Event) bool { cancel(); return false })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
	for range maxWaiting {
		o.slots <- struct{}{}
	}
	if err := o.Follow(t.Context(), "clinica-sol", domain.Position{}, nil); err == nil {
		t.Error("more than maxWaiting calls are in progress")
	}
}
