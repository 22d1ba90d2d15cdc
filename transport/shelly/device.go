package shelly

import (
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/shelly/status"
)

// Policy says which changes are worth an event. A log is not a waveform recorder:
// a change of relay, errors or name goes out at once; a meter reading when power
// changed by MinPowerW and by MinPowerShare at least, at most once in AtMostEvery,
// and whatever changed otherwise at the latest after AtLeastEvery.
type Policy struct {
	MinPowerW     float64       // default 1
	MinPowerShare float64       // default 0.05
	AtMostEvery   time.Duration // default 1 s
	AtLeastEvery  time.Duration // default 1 min
}

// Device is one physical device as its holder keeps it: the merged status, and
// for each channel what the log has. It is not safe for concurrent use: it
// belongs to its holder's goroutine. It has no clock: times are given to it.
type Device struct{}

// NewDevice makes a device that begins with what the platform knows of its
// channels. base is its id; channels beyond the first are base:1, base:2, ….
func NewDevice(c Connection, base domain.DeviceID, known []*domain.Device, p Policy) *Device {
	panic("not yet")
}

// Full takes a whole status: what is not in it is not there any more.
func (d *Device) Full(doc status.Document) { panic("not yet") }

// Delta merges a change into the status. Before the first Full it waits, because
// a delta alone says nothing of what it leaves out: see [Device.Ready].
func (d *Device) Delta(doc status.Document) { panic("not yet") }

// Ready reports whether the device has had a Full.
func (d *Device) Ready() bool { panic("not yet") }

// SetOnline says whether the device can be reached, as its holder knows.
func (d *Device) SetOnline(online bool) { panic("not yet") }

// SetName gives the device a name, as its owner chose it.
func (d *Device) SetName(name string) { panic("not yet") }

// Relay is the state of a channel's relay, as far as it is known.
func (d *Device) Relay(channel int) (on, known bool) { panic("not yet") }

// Channels are the ids of the channels that the device has shown, in order.
func (d *Device) Channels() []domain.DeviceID { panic("not yet") }

// ChannelOf is the channel of an id of this device, or false for another's.
func (d *Device) ChannelOf(id domain.DeviceID) (channel int, ok bool) { panic("not yet") }

// Expect says that a command has been sent to the device: if the channel's relay
// takes that state before the given time, the event that says so was caused by
// the command.
func (d *Device) Expect(channel int, c SwitchCommand, until time.Time) { panic("not yet") }

// Take returns what is to be appended now, in the order of channels, and counts
// it as appended. Each update is the merged state of its channel.
func (d *Device) Take(now time.Time) []Update { panic("not yet") }

// Due is when Take will have something that waits now, or false when nothing
// waits.
func (d *Device) Due() (at time.Time, waits bool) { panic("not yet") }

// WakeupPeriod is how often a sleeping device wakes; 0 for others.
func (d *Device) WakeupPeriod() time.Duration { panic("not yet") }

// Update is a device update on its way to the log.
type Update struct {
	domain.DeviceUpdate
	CausationID   string // the command behind it, or ""
	CorrelationID string
}
