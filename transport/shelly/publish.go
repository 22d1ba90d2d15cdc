package shelly

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/plugcast/plugcast/domain"
)

// How long Publish waits before it tries again: from the first to the most, each
// between half and all of it so that many holders do not come at once.
const (
	firstPause = 100 * time.Millisecond
	mostPause  = 2 * time.Second
)

// Publish appends updates of a connection's devices, in order, and returns when
// they are safe. While the log cannot take them it tries again until ctx ends. An
// append whose outcome is not known is repeated: each update is a whole state, so
// a second one says nothing new, while a lost one would leave a wrong state.
//
// An error of another kind is returned at once. When ctx ends, the error is
// ctx's and the log's last.
func Publish(ctx context.Context, log Events, c Connection, updates []Update) error {
	if len(updates) == 0 {
		return nil
	}
	events := make([]domain.Event, len(updates))
	for i, u := range updates {
		var err error
		events[i], err = domain.NewEvent(c.System, u.DeviceUpdate, domain.Cause{
			Actor: c.Actor(), CausationID: u.CausationID, CorrelationID: u.CorrelationID,
		})
		if err != nil {
			return fmt.Errorf("shelly: publish: %w", err)
		}
	}
	for pause := firstPause; ; pause = min(2*pause, mostPause) {
		_, err := log.Append(ctx, events, domain.AppendOptions{})
		if err == nil {
			return nil
		}
		switch domain.AsError(err).Kind {
		case domain.KindUnavailable, domain.KindUnknownOutcome:
		default:
			return fmt.Errorf("shelly: publish: %w", err)
		}
		select {
		case <-time.After(pause/2 + rand.N(pause/2)):
		case <-ctx.Done():
			return fmt.Errorf("shelly: publish: %w: %w", ctx.Err(), err)
		}
	}
}
