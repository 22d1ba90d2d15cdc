package shelly

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/shelly/status"
)

// Policy decides which changes are worth an event, because a log is not a waveform
// recorder. A change of relay, errors or name is appended at once. A change of power by
// at least MinPowerW and MinPowerShare is appended at most once in AtMostEvery. Every
// other change is appended after AtLeastEvery at the latest.
//
// A field that is zero or negative takes its default.
type Policy struct {
	MinPowerW     float64       // default 1
	MinPowerShare float64       // default 0.05, of the power in the log
	AtMostEvery   time.Duration // default 1 s
	AtLeastEvery  time.Duration // default 1 min
}

func (p Policy) withDefaults() Policy {
	if p.MinPowerW <= 0 {
		p.MinPowerW = 1
	}
	if p.MinPowerShare <= 0 {
		p.MinPowerShare = 0.05
	}
	if p.AtMostEvery <= 0 {
		p.AtMostEvery = time.Second
	}
	if p.AtLeastEvery <= 0 {
		p.AtLeastEvery = time.Minute
	}
	return p
}

// Device is the state of one physical device: its merged status, and for each channel
// the state that the log has. It belongs to the goroutine of its holder and is not safe
// for concurrent use. It has no clock: callers pass the time.
//
// Its memory is bounded: see [status.Document.Merge].
type Device struct {
	connection domain.ConnectionRef
	base       domain.DeviceID
	policy     Policy

	status  status.Document // nil before the first Full
	waiting []status.Document
	at      time.Time // the device's clock in the last document, or zero
	online  domain.Optional[bool]
	name    string

	channels []*channelState // by number
}

// NewDevice returns a device that begins with the stored rows of its channels. base is
// its id; channels beyond the first are base:1, base:2, ….
func NewDevice(c domain.ConnectionRef, base domain.DeviceID, known []*domain.Device, p Policy) *Device {
	d := &Device{connection: c, base: base, policy: p.withDefaults()}
	for _, row := range known {
		if n, ok := d.ChannelOf(row.DeviceID); ok {
			if c := d.channel(n); c != nil {
				c.seed(row)
			}
		}
	}
	return d
}

// Full applies a whole status: members that it lacks no longer exist. If it lacks a
// channel, each field of that channel becomes null.
//
// The first Full merges the deltas that waited for it, except those with an older time.
func (d *Device) Full(doc status.Document, now time.Time) {
	d.status = doc.Trim()
	d.at, _ = doc.Time()
	for _, delta := range d.waiting {
		if !olderThan(delta, doc) {
			d.merge(delta)
		}
	}
	d.waiting = nil
	d.read(now)
}

// olderThan reports whether the delta is certainly older than the full status. A full
// status without ts has a time in whole seconds, and may be from the end of its second.
func olderThan(delta, full status.Document) bool {
	then, ok := delta.Time()
	at, known := full.Time()
	if !ok || !known {
		return false
	}
	if _, exact := full["ts"].(float64); !exact && then.Nanosecond() != 0 {
		at = at.Add(time.Second)
	}
	return then.Before(at)
}

// maxWaiting is how many deltas wait for a Full. A full status that is requested after
// that many deltas includes the first of them.
const maxWaiting = 64

// Delta merges a change into the status. Before the first Full the delta waits, because
// alone it says nothing about the members that it lacks: see [Device.Ready].
//
// Deltas are applied in the order of their arrival. Their times do not order them,
// because device clocks are set back and some documents have no time.
func (d *Device) Delta(doc status.Document, now time.Time) {
	if d.Ready() {
		d.merge(doc)
		d.read(now)
		return
	}
	if len(d.waiting) == maxWaiting {
		d.waiting = slices.Delete(d.waiting, 0, 1)
	}
	d.waiting = append(d.waiting, doc.Trim())
}

func (d *Device) merge(delta status.Document) {
	d.status.Merge(delta)
	d.at, _ = delta.Time()
}

// Ready reports whether the device has had a Full.
func (d *Device) Ready() bool { return d.status != nil }

// SetOnline sets whether the device can be reached. That alone causes no update, because
// the watch over silent devices appends it. Every update includes it.
func (d *Device) SetOnline(online bool) { d.online = domain.Some(online) }

// SetName sets the name that the device's owner chose, cut to 256 bytes. An empty name
// changes nothing.
func (d *Device) SetName(name string) {
	const most = 256 // bytes that an event may have
	d.name = domain.TruncateText(name, most)
}

// Correct applies operators' corrections of the energy, from rows of the device that
// include them. The fold adds a correction to updates that lack it.
func (d *Device) Correct(rows []*domain.Device) {
	for _, row := range rows {
		if n, ok := d.ChannelOf(row.DeviceID); ok {
			if i, known := d.find(n); known {
				d.channels[i].correct(row)
			}
		}
	}
}

// CanSwitch reports whether a channel has a relay, according to the device's status.
func (d *Device) CanSwitch(channel int) bool {
	i, ok := d.find(channel)
	return ok && d.channels[i].shown && d.channels[i].reading.Switch
}

// NoRelay is the error text of a switch command for a channel without a relay.
const NoRelay = "the device has no relay there: plugcast switches relays, and neither dimmers, covers nor meters"

// Channels returns the ids of the channels that the device has shown, in order.
func (d *Device) Channels() []domain.DeviceID {
	var ids []domain.DeviceID
	for _, c := range d.channels {
		if c.everShown {
			ids = append(ids, c.id)
		}
	}
	return ids
}

// ChannelOf returns the channel with this id, or false if the id is not of this device.
// The device need not have shown the channel.
func (d *Device) ChannelOf(id domain.DeviceID) (channel int, ok bool) {
	if id == d.base {
		return 0, true
	}
	suffix, ok := strings.CutPrefix(string(id), string(d.base)+":")
	if !ok {
		return 0, false
	}
	channel, ok = status.Channel(suffix)
	return channel, ok && channel > 0
}

// Expect notes that a command was sent to the device: if the channel's relay takes the
// commanded state before until, the resulting event names the command as its cause. Call
// it in the order in which the commands were sent. It does nothing when the relay is
// already in that state and the log has it, or when the command before asks for the same.
func (d *Device) Expect(channel int, c SwitchCommand, until time.Time) {
	if i, ok := d.find(channel); ok {
		d.channels[i].expect(c, until)
	}
}

// CancelExpect notes that the device refused a command, so that no later change of its relay
// names the command as its cause.
func (d *Device) CancelExpect(channel int, commandID string) {
	if i, ok := d.find(channel); ok {
		d.channels[i].cancelExpect(commandID)
	}
}

// Take returns the updates to append now, in the order of channels, and counts them as
// appended. Each update is the merged state of its channel.
//
// Changed has the names of the fields that differ from the log, without deviceTime. A
// known field that the status no longer has becomes null, except for the energy.
// DeviceTime is present only when it is later than the log's, because the fold ignores
// older updates, while messages of one socket are in order even if the device's clock is
// wrong. See [domain.PlausibleDeviceTime] for a clock that is ahead.
func (d *Device) Take(now time.Time) []Update {
	if !d.Ready() {
		return nil
	}
	var out []Update
	for _, c := range d.channels {
		if c.emitted.After(now) { // by another machine's clock, or one that was set back
			c.emitted = now
		}
		if at, waits := c.due(d); waits && !at.After(now) {
			out = append(out, c.take(d, now))
		}
	}
	return out
}

// Due returns when the next waiting update is due, or false when none waits. A time in
// the past, such as the zero time, means at once.
func (d *Device) Due() (at time.Time, waits bool) {
	if !d.Ready() {
		return time.Time{}, false
	}
	for _, c := range d.channels {
		if t, ok := c.due(d); ok && (!waits || t.Before(at)) {
			at, waits = t, true
		}
	}
	return at, waits
}

// WakeupPeriod returns how often a sleeping device wakes, or 0 for one that never sleeps.
func (d *Device) WakeupPeriod() time.Duration { return d.status.WakeupPeriod() }

// Update is a device update to append.
type Update struct {
	domain.DeviceUpdate
	CausationID   string // the command that caused it, or ""
	CorrelationID string
}

// read takes the readings of the channels from the status.
func (d *Device) read(now time.Time) {
	for _, c := range d.channels {
		c.shown = false
	}
	for _, r := range d.status.Readings() {
		if c := d.channel(r.Channel); c != nil {
			c.setReading(r, now)
		}
	}
}

func (d *Device) find(channel int) (i int, ok bool) {
	return slices.BinarySearchFunc(d.channels, channel, func(c *channelState, n int) int { return cmp.Compare(c.number, n) })
}

// MaxChannels is how many channels of a device count: the first ones that it showed. The
// largest device on sale has 4. Each channel is a device with permanent rows and entries.
const MaxChannels = 16

// channel returns channel n, and adds it if the device does not have it. It returns nil
// when there are too many channels, or when a long id leaves no room for the number.
func (d *Device) channel(n int) *channelState {
	i, ok := d.find(n)
	if ok {
		return d.channels[i]
	}
	id := d.base
	if n > 0 {
		id += domain.DeviceID(":" + strconv.Itoa(n))
	}
	if _, err := domain.ParseDeviceID(string(id)); err != nil {
		return nil
	}
	if len(d.channels) >= MaxChannels {
		return nil
	}
	c := &channelState{number: n, id: id}
	d.channels = slices.Insert(d.channels, i, c)
	return c
}
