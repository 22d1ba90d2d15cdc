package projections

import (
	"context"

	"github.com/plugcast/plugcast/domain"
)

// WholeState returns the whole state of a system that the actor sees, at or after a position.
// It takes memory in proportion to the number of devices.
func (s *Store) WholeState(ctx context.Context, actor domain.Actor, system domain.SystemID, atLeast domain.Position,
) (*domain.State, error) {
	return s.whole(ctx, scopeOf(actor), system, atLeast)
}
