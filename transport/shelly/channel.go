package shelly

import (
	"math"
	"slices"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/shelly/status"
)

// channelState is the state of one channel: as the device shows it now, and as the log
// has it.
type channelState struct {
	number int
	id     domain.DeviceID

	shown     bool // by the current status
	everShown bool
	reading   status.Reading // valid while shown
	energy    energy

	mode     string              // of the reading in the log; see [status.Reading]
	logged   domain.DeviceUpdate // the state in the log; absent fields are not known
	inLog    bool                // the log has the channel
	emitted  time.Time           // when the channel was last appended
	expected []expectation       // of commands that were sent, in order
}

// seed sets the state in the log from the channel's row.
func (c *channelState) seed(row *domain.Device) {
	c.inLog = true
	c.emitted = row.UpdatedAt
	c.logged = domain.UpdateFromDevice(row)
	heard := row.UpdatedAt
	if row.LastSeenAt != nil { // an event of silence and a correction are not from the device
		heard = *row.LastSeenAt
	}
	c.energy = energyOf(&c.logged, heard)
}

// setReading applies a reading of the channel.
func (c *channelState) setReading(r status.Reading, now time.Time) {
	if !c.everShown {
		c.mode = r.Mode // a new holder does not know the mode in the log
	}
	c.shown, c.everShown, c.reading = true, true, r
	if counter, ok := r.CounterWh.Get(); ok {
		c.energy.count(counter, r.PowerW, now)
	}
}

// correct applies operators' corrections from a newer row.
func (c *channelState) correct(row *domain.Device) {
	newer := domain.UpdateFromDevice(row).EnergyOffsetWh
	by := valueOf(newer) - valueOf(c.energy.offset)
	c.energy.offset, c.logged.EnergyOffsetWh = newer, newer
	c.logged.EnergyWh = shifted(c.logged.EnergyWh, by) // as the fold does
	if _, known := c.energy.total.Get(); !known && row.EnergyWh != nil {
		// Nothing was counted yet: the operator's total is the base, and the first counter
		// is the reference, as for a later holder.
		total := domain.RoundEnergy(*row.EnergyWh - valueOf(newer))
		c.energy.total, c.logged.EnergyWh = domain.Some(total), domain.Some(*row.EnergyWh)
	}
}

// isOurs reports whether to append updates of the channel: the device shows it or has
// shown it, on this or an earlier socket of this connection. Rows that others published
// under such an id are left alone.
func (c *channelState) isOurs(d *Device) bool {
	if c.shown || c.everShown {
		return true
	}
	via, ok := c.logged.ConnectionID.Get()
	return ok && via == d.connection.ID
}

// now returns the channel's current state, without unknown fields.
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
	c.energy.fill(&u)
	if d.name != "" {
		u.Name = domain.Some(d.name)
	}
	return u
}

// due returns when to append the channel's state, or false if it equals the log's. The
// zero time means at once.
func (c *channelState) due(d *Device) (at time.Time, waits bool) {
	if !c.isOurs(d) {
		return time.Time{}, false
	}
	now := c.now(d)
	switch {
	case !c.inLog || c.differs(&now, domain.FieldState):
		return time.Time{}, true
	case c.shown && c.mode != c.reading.Mode, d.policy.isStep(c.logged.PowerW, now.PowerW):
		return c.emitted.Add(d.policy.AtMostEvery), true
	case c.differs(&now, domain.FieldReading):
		return c.emitted.Add(d.policy.AtLeastEvery), true
	}
	return time.Time{}, false
}

// differs reports whether a field with that role differs from the log.
func (c *channelState) differs(now *domain.DeviceUpdate, role domain.FieldCategory) bool {
	for i := range domain.DeviceFields {
		if f := &domain.DeviceFields[i]; f.Category == role && !f.Equal(now, &c.logged) {
			return true
		}
	}
	return false
}

// isStep reports whether power changed enough for an event soon. Becoming known or
// unknown is enough.
func (p Policy) isStep(from, to domain.Optional[float64]) bool {
	a, knew := from.Get()
	b, knows := to.Get()
	if !knew || !knows {
		return knew != knows
	}
	step := math.Abs(b - a)
	return step >= p.MinPowerW && step >= p.MinPowerShare*math.Abs(a)
}

// maxOrderAhead is how far ahead a device's clock may be for its time to count as the newest in
// the log: more than [domain.MaxClockAhead], because an append can be late. A clock that is
// further ahead is wrong, and its time must not block the right times that follow.
const maxOrderAhead = time.Hour

// take returns the update that brings the log up to date, and counts it as appended.
func (c *channelState) take(d *Device, now time.Time) Update {
	u, log := c.now(d), &c.logged
	if d.online.IsZero() {
		u.Online = log.Online // still valid
	}
	u.Changed = settle(&u, log)
	if u.RelayOn.IsZero() {
		u.RelayOn = domain.Null[bool]() // present in every update: a client that joins now must not take it for unchanged
	}
	newest := log.DeviceTime
	if at, known := newest.Get(); !d.at.IsZero() && (!known || d.at.After(at)) {
		u.DeviceTime = domain.Some(d.at.UTC().Truncate(time.Microsecond))
		if !d.at.After(now.Add(maxOrderAhead)) {
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

// expectation is a sent command whose effect on the relay has not shown yet.
type expectation struct {
	SwitchCommand
	until time.Time
}

// maxExpected bounds the expectations of one channel.
const maxExpected = 8

// expect remembers a command that was sent. It skips a command for the state that the
// log or the command before already has: such a command would claim the later action of
// somebody else.
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

func (c *channelState) cancelExpect(commandID string) {
	c.expected = slices.DeleteFunc(c.expected, func(e expectation) bool { return e.CommandID == commandID })
}

// fulfil returns the command whose effect the update shows, if any. It drops that command
// and those before it, which were overtaken.
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

// settle prepares each field of an update for the log: its value, null for a field that
// the log has and that is no longer known, or absent. It returns the names of the fields
// that differ from the log.
func settle(u, log *domain.DeviceUpdate) (changed []string) {
	changed = make([]string, 0, len(domain.DeviceFields))
	for i := range domain.DeviceFields {
		f := &domain.DeviceFields[i]
		if f.Category == domain.FieldClock {
			continue
		}
		if !f.Equal(u, log) {
			changed = append(changed, f.Name)
		}
		switch {
		case f.HasValue(u):
		case f.HasValue(log):
			f.SetNull(u)
		default:
			f.Copy(u, &nothing)
		}
	}
	return changed
}

// nothing is an update without fields. It is never written to.
var nothing domain.DeviceUpdate

// same reports whether both are equal; null and absent are equal.
func same[T comparable](a, b domain.Optional[T]) bool {
	x, knowsX := a.Get()
	y, knowsY := b.Get()
	return knowsX == knowsY && x == y
}
