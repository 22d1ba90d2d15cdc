package shelly

import (
	"context"
	"fmt"

	"github.com/plugcast/plugcast/domain"
)

// Publish appends updates of a connection's devices, in order, and returns when the log
// has them. While the log is unavailable, it tries again until ctx ends. It repeats an
// append with an unknown outcome: each update is a whole state, so a second one changes
// nothing, while a lost one would leave a wrong state.
//
// Publish returns any other error at once. When ctx ends, the error wraps both ctx's
// error and the log's last.
func Publish(ctx context.Context, log domain.Appender, c domain.ConnectionRef, updates []Update) error {
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
	if _, err := domain.AppendUntilDone(ctx, log, events, domain.AppendOptions{}, nil); err != nil {
		return fmt.Errorf("shelly: publish: %w", err)
	}
	return nil
}
