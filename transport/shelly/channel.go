package shelly

import (
	"math"
	"slices"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/shelly/status"
)

// channelState is one channel of a device: what it shows now, beside what the log
// has of it.
type channelState struct {
	number int
	id     domain.DeviceID

	shown     bool // by the status as it is now
	everShown bool
	reading   status.Reading // while shown
	energy    energy

	logged   domain.DeviceUpdate // what the log has; a field that it has not is not known
	inLog    bool                // it has the channel at all
	emitted  time.Time           // when the log last heard of it
	expected []expectation       // of commands that were sent, in order
}

// seed takes what the log has from its row.
func (c *channelState) seed(row *domain.Device) {
	c.inLog = true
	c.emitted = row.UpdatedAt
	c.logged = domain.DeviceUpdate{
		Online:       optional(row.Online),
		RelayOn:      optional(row.RelayOn),
		Channel:      optional(row.Channel),
		PowerW:       optional(row.PowerW),
		VoltageV:     optional(row.VoltageV),
		CurrentA:     optional(row.CurrentA),
		FrequencyHz:  optional(row.FrequencyHz),
		PowerFactor:  optional(row.PowerFactor),
		EnergyWh:     optional(row.EnergyWh),
		CounterWh:    optional(row.CounterWh),
		TemperatureC: optional(row.TemperatureC),
		Source:       optional(row.Source),
		Errors:       optional(row.Errors),
		DeviceTime:   optional(row.DeviceTime),
		ConnectionID: optional(row.ConnectionID),
		Name:         optional(row.Name),
	}
	c.energy = energyOf(c.logged.EnergyWh, c.logged.CounterWh)
}

func optional[T any](p *T) domain.Optional[T] {
	if p == nil {
		return domain.Optional[T]{}
	}
	return domain.Some(*p)
}

// show takes what the status says of the channel.
func (c *channelState) show(r status.Reading) {
	c.shown, c.everShown, c.reading = true, true, r
	if counter, ok := r.CounterWh.Get(); ok {
		c.energy.count(counter)
	}
}

// ours reports whether there is anything to say of the channel: the device shows
// it, or has shown it, now or through this connection before. Rows that others
// published under such an id are left alone.
func (c *channelState) ours(d *Device) bool {
	if c.shown || c.everShown {
		return true
	}
	via, ok := c.logged.ConnectionID.Get()
	return ok && via == d.connection.ID
}

// now is the channel's state as it is now, without what is not known.
func (c *channelState) now(d *Device) domain.DeviceUpdate {
	u := domain.DeviceUpdate{
		DeviceID:     c.id,
		Online:       d.online,
		Channel:      domain.Some(c.number),
		EnergyWh:     c.energy.total,
		CounterWh:    c.energy.counter,
		ConnectionID: domain.Some(d.connection.ID),
		Name:         c.logged.Name,
	}
	if d.name != "" {
		u.Name = domain.Some(d.name)
	}
	if c.shown {
		r := &c.reading
		u.RelayOn, u.PowerW, u.VoltageV, u.CurrentA = r.RelayOn, r.PowerW, r.VoltageV, r.CurrentA
		u.FrequencyHz, u.PowerFactor, u.TemperatureC = r.FrequencyHz, r.PowerFactor, r.TemperatureC
		u.Source, u.Errors = r.Source, r.Errors
	}
	return u
}

// due is when the channel's state is to be appended, if it is another than the
// log's; the zero time is at once.
func (c *channelState) due(d *Device) (at time.Time, waits bool) {
	if !c.ours(d) {
		return time.Time{}, false
	}
	now, log := c.now(d), &c.logged
	switch {
	case !c.inLog,
		!same(now.RelayOn, log.RelayOn), !sameTexts(now.Errors, log.Errors), !same(now.Name, log.Name),
		!same(now.Channel, log.Channel), !same(now.ConnectionID, log.ConnectionID):
		return time.Time{}, true
	case d.policy.isStep(log.PowerW, now.PowerW):
		return c.emitted.Add(d.policy.AtMostEvery), true
	case !same(now.PowerW, log.PowerW), !same(now.VoltageV, log.VoltageV), !same(now.CurrentA, log.CurrentA),
		!same(now.FrequencyHz, log.FrequencyHz), !same(now.PowerFactor, log.PowerFactor),
		!same(now.EnergyWh, log.EnergyWh), !same(now.CounterWh, log.CounterWh),
		!same(now.TemperatureC, log.TemperatureC), !same(now.Source, log.Source):
		return c.emitted.Add(d.policy.AtLeastEvery), true
	}
	return time.Time{}, false
}

// isStep reports whether power changed enough to be worth an event soon. To
// become known, or unknown, is enough.
func (p Policy) isStep(from, to domain.Optional[float64]) bool {
	a, knew := from.Get()
	b, knows := to.Get()
	if !knew || !knows {
		return knew != knows
	}
	step := math.Abs(b - a)
	return step >= p.MinPowerW && step >= p.MinPowerShare*math.Abs(a)
}

// take makes the update that brings the log up to date, and counts it as done.
func (c *channelState) take(d *Device, now time.Time) Update {
	u, log := c.now(d), &c.logged
	x := difference{changed: make([]string, 0, 16)}
	if d.online.IsZero() {
		u.Online = log.Online // nobody said otherwise
	}
	u.Online = differ(&x, "online", log.Online, u.Online)
	u.RelayOn = differ(&x, "relayOn", log.RelayOn, u.RelayOn)
	u.Channel = differ(&x, "channel", log.Channel, u.Channel)
	u.PowerW = differ(&x, "powerW", log.PowerW, u.PowerW)
	u.VoltageV = differ(&x, "voltageV", log.VoltageV, u.VoltageV)
	u.CurrentA = differ(&x, "currentA", log.CurrentA, u.CurrentA)
	u.FrequencyHz = differ(&x, "frequencyHz", log.FrequencyHz, u.FrequencyHz)
	u.PowerFactor = differ(&x, "powerFactor", log.PowerFactor, u.PowerFactor)
	u.EnergyWh = differ(&x, "energyWh", log.EnergyWh, u.EnergyWh)
	u.CounterWh = differ(&x, "counterWh", log.CounterWh, u.CounterWh)
	u.TemperatureC = differ(&x, "temperatureC", log.TemperatureC, u.TemperatureC)
	u.Source = differ(&x, "source", log.Source, u.Source)
	if !sameTexts(u.Errors, log.Errors) {
		x.changed = append(x.changed, "errors")
	}
	if _, known := u.Errors.Get(); !known {
		u.Errors = nullIfKnown(log.Errors)
	}
	u.ConnectionID = differ(&x, "connectionId", log.ConnectionID, u.ConnectionID)
	u.Name = differ(&x, "name", log.Name, u.Name)
	if u.RelayOn.IsZero() {
		u.RelayOn = domain.Null[bool]() // in every update: who joins now must not take it for unchanged
	}
	newest := log.DeviceTime
	if at, known := newest.Get(); !d.at.IsZero() && (!known || d.at.After(at)) {
		newest = domain.Some(d.at.UTC().Truncate(time.Microsecond))
		u.DeviceTime = newest
	}

	c.logged, c.inLog, c.emitted = u, true, now
	c.logged.DeviceTime = newest
	u.Changed = x.changed
	update := Update{DeviceUpdate: u}
	if cause := c.fulfil(u, x, now); cause != nil {
		update.CausationID, update.CorrelationID = cause.CommandID, cause.CorrelationID
	}
	return update
}

// expectation is a command that the relay has not been seen to follow yet.
type expectation struct {
	SwitchCommand
	until time.Time
}

// maxExpected bounds what is expected of one channel at a time.
const maxExpected = 8

// expect remembers a command that was sent. One that asks for what will be anyway,
// as the log or the command before it has it, is not expected to show: it would
// claim what somebody else does later.
func (c *channelState) expect(cmd SwitchCommand, until time.Time) {
	will, known := c.reading.RelayOn.Get()
	known = known && c.shown && same(c.reading.RelayOn, c.logged.RelayOn)
	if n := len(c.expected); n > 0 {
		will, known = c.expected[n-1].On, true
	}
	if known && will == cmd.On {
		return
	}
	if len(c.expected) == maxExpected {
		c.expected = slices.Delete(c.expected, 0, 1)
	}
	c.expected = append(c.expected, expectation{cmd, until})
}

func (c *channelState) forgo(commandID string) {
	c.expected = slices.DeleteFunc(c.expected, func(e expectation) bool { return e.CommandID == commandID })
}

// fulfil returns the command that the update says was done, if any. Those before
// it have been overtaken.
func (c *channelState) fulfil(u domain.DeviceUpdate, x difference, now time.Time) *SwitchCommand {
	c.expected = slices.DeleteFunc(c.expected, func(e expectation) bool { return !now.Before(e.until) })
	on, known := u.RelayOn.Get()
	if !known || !slices.Contains(x.changed, "relayOn") {
		return nil
	}
	i := slices.IndexFunc(c.expected, func(e expectation) bool { return e.On == on })
	if i < 0 {
		return nil
	}
	done := c.expected[i].SwitchCommand
	c.expected = slices.Delete(c.expected, 0, i+1)
	return &done
}

// difference collects the names of fields that differ.
type difference struct{ changed []string }

// differ is what an update says of a field: its value, null for one that the log
// has and that is not known any more, or nothing.
func differ[T comparable](x *difference, name string, log, now domain.Optional[T]) domain.Optional[T] {
	if !same(log, now) {
		x.changed = append(x.changed, name)
	}
	if _, known := now.Get(); known {
		return now
	}
	return nullIfKnown(log)
}

func nullIfKnown[T any](log domain.Optional[T]) domain.Optional[T] {
	if _, known := log.Get(); known {
		return domain.Null[T]()
	}
	return domain.Optional[T]{}
}

// same compares what is known: null and absent are the same.
func same[T comparable](a, b domain.Optional[T]) bool {
	x, knowsX := a.Get()
	y, knowsY := b.Get()
	return knowsX == knowsY && x == y
}

func sameTexts(a, b domain.Optional[[]string]) bool {
	x, knowsX := a.Get()
	y, knowsY := b.Get()
	return knowsX == knowsY && slices.Equal(x, y)
}
