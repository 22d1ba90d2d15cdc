package shelly

import "context"

// Publish appends updates of a connection's devices, in order, and returns when
// they are safe. While the log cannot take them it tries again until ctx ends. An
// append whose outcome is not known is repeated: each update is a whole state, so
// a second one says nothing new, while a lost one would leave a wrong state.
func Publish(ctx context.Context, log Events, c Connection, updates []Update) error {
	panic("not yet")
}
