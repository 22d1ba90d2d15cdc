package shelly

import (
	"context"
	"time"

	"github.com/plugcast/plugcast/domain"
)

// Known has the stored rows of devices, with which a holder begins.
type Known interface {
	// Channels returns the rows of a device's channels: of base itself and of
	// base:1, base:2, …. They include everything that was appended before the call:
	// with older rows a holder would append wrong changes.
	Channels(ctx context.Context, system domain.SystemID, base domain.DeviceID) ([]*domain.Device, error)
}

// Heartbeats takes the holders' reports that their devices live. Its methods neither
// block nor fail: it writes the reports in batches, and again later when that fails. A
// session is a unique name for the time in which one holder holds a device.
type Heartbeats interface {
	// Open makes the session the holder of the device, in place of any other. The
	// device counts as silent when the time within passes without Alive. A device that
	// counted as silent is back.
	Open(d domain.DeviceRef, session string, within time.Duration)
	// Alive reports that the device lives. It changes nothing when another session
	// holds the device.
	Alive(d domain.DeviceRef, session string, within time.Duration)
	// Close ends the session's hold. The device counts as silent after the grace, for
	// that reason, unless it is opened again.
	Close(d domain.DeviceRef, session string, grace time.Duration, reason domain.OfflineReason)
	// Forget ends the watch over a device that this session holds, so that it never
	// counts as silent. It is for sockets that we close ourselves.
	Forget(d domain.DeviceRef, session string)
	// Report reports that the Shelly Cloud found the device silent, or back. Repeating it
	// changes nothing.
	Report(d domain.DeviceRef, online bool)
}

// SwitchCommand asks the holder of a device to switch its relay.
type SwitchCommand struct {
	domain.DeviceRef
	CommandID     string
	CorrelationID string
	On            bool
	ToggleAfter   time.Duration // after which the device switches back; 0 is never
	Expires       time.Time     // from then on it must not be sent to the device
}

// SwitchResult is the result of a SwitchCommand. A command that was sent and not answered
// is [domain.OutcomeUnknown]: the device may have executed it, so nobody repeats it.
type SwitchResult struct {
	Outcome domain.Outcome
	Error   string // why it failed, or is unknown: a text for people
}

// Holder holds devices. Packages outbound and cloud have one each.
type Holder interface {
	// Holds reports whether the device is held here. That may change at any time.
	Holds(d domain.DeviceRef) bool
	// Switch passes the command to the device and returns true if the device is held
	// here; otherwise it does nothing. It does not block. It calls report once, from any
	// goroutine, before or after it returns true.
	Switch(c SwitchCommand, report func(SwitchResult)) bool
	// Correct passes on rows of a device that include an operator's correction of its
	// energy. It does nothing when the device is not held here, and does not block. When
	// the holder is too busy to take them, the state is right all the same: see
	// [Device.Correct].
	Correct(base domain.DeviceRef, rows []*domain.Device)
}
