package shelly

import (
	"context"
	"fmt"

	"github.com/plugcast/plugcast/domain"
)

// Publish appends updates of a connection's devices, in order, and returns when
// they are safe. While the log cannot take them it tries again until ctx ends. An
// append whose outcome is not known is repeated: each update is a whole state, so
// a second one says nothing new, while a lost one would leave a wrong state.
//
// An error of another kind is returned at once. When ctx ends, the error is
// ctx's and the log's last.
func Publish(ctx context.Context, log domain.Appender, c Connection, updates []Update) error {
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
