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

	mode     string              // of the reading that the log has; see [status.Reading]
	logged   domain.DeviceUpdate // what the log has; a field that it has not is not known
	inLog    bool                // it has the channel at all
	emitted  time.Time           // when the log last heard of it
	expected []expectation       // of commands that were sent, in order
}

// seed takes what the log has from its row.
func (c *channelState) seed(row *domain.Device) {
	c.inLog = true
	c.emitted = row.UpdatedAt
	c.logged = domain.UpdateOf(row)
	heard := row.UpdatedAt
	if row.LastSeenAt != nil { // a notice that it is silent, or a correction, is not the device's
		heard = *row.LastSeenAt
	}
	c.energy = energyOf(&c.logged, heard)
}

// show takes what the status says of the channel.
func (c *channelState) show(r status.Reading, now time.Time) {
	if !c.everShown {
		c.mode = r.Mode // a new holder does not know the log's
	}
	c.shown, c.everShown, c.reading = true, true, r
	if counter, ok := r.CounterWh.Get(); ok {
		c.energy.count(counter, r.PowerW, now)
	}
}

// correct takes over what operators have corrected, as a row has it that is newer.
func (c *channelState) correct(row *domain.Device) {
	newer := domain.UpdateOf(row).EnergyOffsetWh
	by := valueOf(newer) - valueOf(c.energy.offset)
	c.energy.offset, c.logged.EnergyOffsetWh = newer, newer
	c.logged.EnergyWh = shifted(c.logged.EnergyWh, by) // as the fold has it
	if total, known := c.energy.total.Get(); !known && row.EnergyWh != nil {
		// Nothing was counted yet: the total that the operator set is the base to which
		// the first counter is the reference, as for a holder who comes later.
		total = domain.RoundEnergy(*row.EnergyWh - valueOf(newer))
		c.energy.total, c.logged.EnergyWh = domain.Some(total), domain.Some(*row.EnergyWh)
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
	var u domain.DeviceUpdate
	if c.shown {
		u = c.reading.DeviceUpdate
	}
	u.DeviceID, u.Channel, u.ConnectionID = c.id, domain.Some(c.number), domain.Some(d.connection.ID)
	u.Online, u.Name = d.online, c.logged.Name
	if u.Attributes == nil {
		u.Attributes = c.logged.Attributes // others may have published them
	}
	c.energy.says(&u)
	if d.name != "" {
		u.Name = domain.Some(d.name)
	}
	return u
}

// due is when the channel's state is to be appended, if it is another than the
// log's; the zero time is at once.
func (c *channelState) due(d *Device) (at time.Time, waits bool) {
	if !c.ours(d) {
		return time.Time{}, false
	}
	now := c.now(d)
	switch {
	case !c.inLog || c.differs(&now, domain.RoleState):
		return time.Time{}, true
	case c.shown && c.mode != c.reading.Mode, d.policy.isStep(c.logged.PowerW, now.PowerW):
		return c.emitted.Add(d.policy.AtMostEvery), true
	case c.differs(&now, domain.RoleReading):
		return c.emitted.Add(d.policy.AtLeastEvery), true
	}
	return time.Time{}, false
}

// differs reports whether a field of that role is another than the log's.
func (c *channelState) differs(now *domain.DeviceUpdate, role domain.FieldRole) bool {
	for i := range domain.DeviceFields {
		if f := &domain.DeviceFields[i]; f.Role == role && !f.Same(now, &c.logged) {
			return true
		}
	}
	return false
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

// mayOrder is how far a device's clock may be ahead for us to reckon with the log
// taking its time for the newest: longer than [domain.MaxClockAhead], because an
// append can be late. A clock that is ahead of that is wrong, and what it said must
// not keep the times of the right one out afterwards.
const mayOrder = time.Hour

// take makes the update that brings the log up to date, and counts it as done.
func (c *channelState) take(d *Device, now time.Time) Update {
	u, log := c.now(d), &c.logged
	if d.online.IsZero() {
		u.Online = log.Online // nobody said otherwise
	}
	u.Changed = settle(&u, log)
	if u.RelayOn.IsZero() {
		u.RelayOn = domain.Null[bool]() // in every update: who joins now must not take it for unchanged
	}
	newest := log.DeviceTime
	if at, known := newest.Get(); !d.at.IsZero() && (!known || d.at.After(at)) {
		u.DeviceTime = domain.Some(d.at.UTC().Truncate(time.Microsecond))
		if !d.at.After(now.Add(mayOrder)) {
			newest = u.DeviceTime
		}
	}

	c.logged, c.inLog, c.emitted = u, true, now
	c.energy.logged, c.mode = true, c.reading.Mode
	c.logged.DeviceTime, c.logged.Changed = newest, nil
	update := Update{DeviceUpdate: u}
	if cause := c.fulfil(u, now); cause != nil {
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
func (c *channelState) fulfil(u domain.DeviceUpdate, now time.Time) *SwitchCommand {
	c.expected = slices.DeleteFunc(c.expected, func(e expectation) bool { return !now.Before(e.until) })
	on, known := u.RelayOn.Get()
	if !known || !slices.Contains(u.Changed, "relayOn") {
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

// settle makes each field of an update what the log is to be told: its value, null
// for one that the log has and that is not known any more, or nothing. It returns
// the names of those that differ from the log's.
func settle(u, log *domain.DeviceUpdate) (changed []string) {
	changed = make([]string, 0, len(domain.DeviceFields))
	for i := range domain.DeviceFields {
		f := &domain.DeviceFields[i]
		if f.Role == domain.RoleClock {
			continue
		}
		if !f.Same(u, log) {
			changed = append(changed, f.Name)
		}
		switch {
		case f.IsKnown(u):
		case f.IsKnown(log):
			f.Forget(u)
		default:
			f.Copy(u, &nothing)
		}
	}
	return changed
}

// nothing is an update that speaks of no field. Nobody writes it.
var nothing domain.DeviceUpdate

// same compares what is known: null and absent are the same.
func same[T comparable](a, b domain.Optional[T]) bool {
	x, knowsX := a.Get()
	y, knowsY := b.Get()
	return knowsX == knowsY && x == y
}
