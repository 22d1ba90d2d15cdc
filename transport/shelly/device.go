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

// Policy says which changes are worth an event. A log is not a waveform recorder:
// a change of relay, errors or name goes out at once; a meter reading when power
// changed by MinPowerW and by MinPowerShare at least, at most once in AtMostEvery,
// and whatever changed otherwise at the latest after AtLeastEvery.
//
// A field that is zero or less has its default.
type Policy struct {
	MinPowerW     float64       // default 1
	MinPowerShare float64       // default 0.05, of what the log has
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

// Device is one physical device as its holder keeps it: the merged status, and
// for each channel what the log has. It is not safe for concurrent use: it
// belongs to its holder's goroutine. It has no clock: times are given to it.
//
// What it keeps is bounded, whatever the device sends: see [status.Document.Merge].
type Device struct {
	connection Connection
	base       domain.DeviceID
	policy     Policy

	status  status.Document // nil before the first Full
	waiting []status.Document
	at      time.Time // the device's clock at the last document, or zero
	online  domain.Optional[bool]
	name    string

	channels []*channelState // by number
}

// NewDevice makes a device that begins with what the platform knows of its
// channels. base is its id; channels beyond the first are base:1, base:2, ….
func NewDevice(c Connection, base domain.DeviceID, known []*domain.Device, p Policy) *Device {
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

// Full takes a whole status: what is not in it is not there any more. A channel
// that it does not have is known no more: each of its fields turns null.
//
// Deltas that waited are merged into the first Full, unless their time says that
// they are older.
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

// olderThan reports whether the delta is known to be from before the full status.
// A full status without ts has a clock of whole seconds, and may be from the end
// of its second.
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

// maxWaiting bounds what waits for a Full. A full status that is asked for after
// that many deltas has the first of them in it.
const maxWaiting = 64

// Delta merges a change into the status. Before the first Full it waits, because
// a delta alone says nothing of what it leaves out: see [Device.Ready].
//
// Deltas count in the order in which they come. Their times do not order them:
// device clocks are set back, and some documents have none.
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

// SetOnline says whether the device can be reached, as its holder knows. That
// alone is no update: whoever watches over silence announces it. Every update
// says it too.
func (d *Device) SetOnline(online bool) { d.online = domain.Some(online) }

// SetName gives the device a name, as its owner chose it. An empty name changes
// nothing. A name of over 256 bytes is cut.
func (d *Device) SetName(name string) {
	const most = 256 // bytes that an event may carry
	d.name = domain.CutText(name, most)
}

// Correct takes over operators' corrections of the energy from rows of the device
// that are newer than those. The fold adds a correction to updates that lack it.
func (d *Device) Correct(rows []*domain.Device) {
	for _, row := range rows {
		if n, ok := d.ChannelOf(row.DeviceID); ok {
			if i, known := d.find(n); known {
				d.channels[i].correct(row)
			}
		}
	}
}

// Relay is the state of a channel's relay, as far as it is known.
func (d *Device) Relay(channel int) (on, known bool) {
	if i, ok := d.find(channel); ok && d.channels[i].shown {
		return d.channels[i].reading.RelayOn.Get()
	}
	return false, false
}

// CanSwitch reports whether a channel has a relay, as far as the device has said
// what it has.
func (d *Device) CanSwitch(channel int) bool {
	i, ok := d.find(channel)
	return ok && d.channels[i].shown && d.channels[i].reading.Switch
}

// NoRelay is why a command to switch fails for a channel that has no relay.
const NoRelay = "the device has no relay there: plugcast switches relays, and neither dimmers, covers nor meters"

// Channels are the ids of the channels that the device has shown, in order.
func (d *Device) Channels() []domain.DeviceID {
	var ids []domain.DeviceID
	for _, c := range d.channels {
		if c.everShown {
			ids = append(ids, c.id)
		}
	}
	return ids
}

// ChannelOf is the channel of an id of this device, or false for another's. It
// need not have been shown.
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

// Expect says that a command has been sent to the device: if the channel's relay
// takes that state before the given time, the event that says so was caused by
// the command. Commands are expected in the order in which they were sent. When the
// relay is known to be in that state, and the log has it, or the command before
// asked for the same, there is nothing to expect.
func (d *Device) Expect(channel int, c SwitchCommand, until time.Time) {
	if i, ok := d.find(channel); ok {
		d.channels[i].expect(c, until)
	}
}

// Forgo says that the device refused a command: what its relay does from here on
// is not the command's doing.
func (d *Device) Forgo(channel int, commandID string) {
	if i, ok := d.find(channel); ok {
		d.channels[i].forgo(commandID)
	}
}

// Take returns what is to be appended now, in the order of channels, and counts
// it as appended. Each update is the merged state of its channel.
//
// Changed has the names of the fields whose value is another than the log's;
// deviceTime is not among them. A field that was known and is not there any more
// is null; what is known of the energy stays. DeviceTime is there only when it is
// later than the log's, because older updates are not folded: what comes on one
// socket is in order, whatever the device's clock says. See [domain.Orders] for a
// clock that is ahead.
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

// Due is when Take will have something that waits now, or false when nothing
// waits. A time in the past, such as the zero time, means at once.
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

// WakeupPeriod is how often a sleeping device wakes; 0 for others.
func (d *Device) WakeupPeriod() time.Duration { return d.status.WakeupPeriod() }

// Update is a device update on its way to the log.
type Update struct {
	domain.DeviceUpdate
	CausationID   string // the command behind it, or ""
	CorrelationID string
}

// read looks at the status anew.
func (d *Device) read(now time.Time) {
	for _, c := range d.channels {
		c.shown = false
	}
	for _, r := range d.status.Readings() {
		if c := d.channel(r.Channel); c != nil {
			c.show(r, now)
		}
	}
}

func (d *Device) find(channel int) (i int, ok bool) {
	return slices.BinarySearchFunc(d.channels, channel, func(c *channelState, n int) int { return cmp.Compare(c.number, n) })
}

// MaxChannels is how many channels a device may show, those that it showed first. The
// largest that is sold has 4; each is a device of its own, with rows and entries for good.
const MaxChannels = 16

// channel is the channel of that number, made if need be, or nil when its id is
// none, because a long id may leave no room for a number, or when there are too many.
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
