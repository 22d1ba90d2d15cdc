package shelly

import (
	"context"
	"time"

	"github.com/plugcast/plugcast/domain"
)

// Connection is one Shelly credential of a system.
type Connection struct {
	System domain.SystemID
	ID     domain.ConnectionID
}

// Actor is who the events of a connection are by.
func (c Connection) Actor() string { return "shelly:" + string(c.ID) }

// DeviceRef names a device, which is one switch channel, across systems.
type DeviceRef struct {
	System domain.SystemID
	Device domain.DeviceID
}

// Known tells what the platform knows of devices, to begin with.
type Known interface {
	// Channels returns the rows of a device's channels: of base itself and of
	// base:1, base:2, …. They have everything that was appended before the call:
	// a holder that began with less would take what it hears for known.
	Channels(ctx context.Context, system domain.SystemID, base domain.DeviceID) ([]*domain.Device, error)
}

// Heartbeats is where holders of devices say that those live. Nothing of it
// blocks or fails: it is written in batches, and what cannot be written in time
// is written later. A session names one holding of a device, and is unique.
type Heartbeats interface {
	// Open says that the session holds the device from now on, in place of
	// whoever did, and that the device counts as silent unless something is heard
	// of it for the time within. A device that had been found silent is back.
	Open(d DeviceRef, session string, within time.Duration)
	// Alive says that the device was heard. Another session that holds the device
	// is not disturbed.
	Alive(d DeviceRef, session string, within time.Duration)
	// Close says that the session holds the device no more, and that it counts as
	// silent after the grace, for the reason given, unless it is opened again.
	Close(d DeviceRef, session string, grace time.Duration, reason domain.OfflineReason)
	// Forget ends the watch over a device that this session holds: nobody finds
	// it silent. It is for sockets that we close ourselves.
	Forget(d DeviceRef, session string)
	// Report says that somebody who knows (the Shelly Cloud) found the device
	// silent, or back. Repeating it changes nothing.
	Report(d DeviceRef, online bool)
}

// SwitchCommand asks the holder of a device to switch its relay.
type SwitchCommand struct {
	DeviceRef
	CommandID     string
	CorrelationID string
	On            bool
	ToggleAfter   time.Duration // after which the device switches back; 0 is never
	Expires       time.Time     // when it must not be sent to the device any more
}

// SwitchResult is how a SwitchCommand ended. A command that was sent and not
// answered is [domain.OutcomeUnknown]: it may have been done, and is not repeated.
type SwitchResult struct {
	Outcome domain.Outcome
	Error   string // why it failed, or is unknown: words for people
}

// Holder is what holds devices: package outbound and package cloud have one each.
type Holder interface {
	// Holds reports whether the device is held here. That may change at any time.
	Holds(d DeviceRef) bool
	// Switch passes the command to the device and answers true when the device is
	// held here; otherwise it does nothing. It does not block. report is called
	// once, from any goroutine, after Switch answered true or while it does.
	Switch(c SwitchCommand, report func(SwitchResult)) bool
	// Correct passes rows of a device on that are newer than an operator's correction
	// of its energy. It does nothing when the device is not held here, and does not
	// block. When the holder is too busy to hear of it, the state is right all the
	// same: see [Device.Correct].
	Correct(base DeviceRef, rows []*domain.Device)
}
