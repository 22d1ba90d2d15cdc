package domain

import (
	"fmt"
	"time"
)

// ChangedRows names the rows that one event changed. A zero field names no row. If a named assignment or connection
// is missing from the state, the event removed it.
type ChangedRows struct {
	Device     DeviceID
	Equipment  EquipmentID
	Assigned   DeviceID
	Released   DeviceID // the plug from which Assigned took the equipment
	Connection ConnectionID
}

// Apply folds one event into the state and returns the rows that changed. No other code on the server turns events into
// state; the Fold of the JavaScript client does the same in the browser.
//
// Events must arrive in the order of their positions. Apply ignores an event at or before the state's own position,
// because that event is already folded. An event with a seq must be the very next one; otherwise Apply returns
// [ErrGap] and leaves the state as it was.
//
// An event of unknown type or version moves the cursor and changes nothing else. So does an event with unreadable
// data, for which Apply also returns an error so that the caller can report it.
func (s *State) Apply(e *Event) (ChangedRows, error) {
	if !e.Position.After(s.Cursor.Position) {
		return ChangedRows{}, nil
	}
	next := s.Cursor.Seq + 1
	if e.Seq != 0 && e.Seq != next {
		return ChangedRows{}, fmt.Errorf("%w: %s follows %s", ErrGap, e.Cursor(), s.Cursor)
	}
	s.Cursor = Cursor{Position: e.Position, Seq: next}
	data, err := e.Decode()
	if err != nil {
		return ChangedRows{}, err
	}
	return s.fold(e, data), nil
}

func (s *State) fold(e *Event, data Data) ChangedRows {
	switch d := data.(type) {
	case DeviceUpdate:
		return s.foldDeviceUpdate(e, d)
	case DeviceOfflineStatus:
		return s.foldOfflineStatus(e, d)
	case EnergyCorrected:
		return s.foldEnergyCorrected(e, d)
	case AssignmentUpdated:
		return s.foldAssignment(e, d)
	case EquipmentRegistered:
		return s.putEquipment(e, &Equipment{
			EquipmentID: d.EquipmentID, Name: d.Name, Kind: d.Kind, Location: d.Location, Attributes: d.Attributes,
		})
	case EquipmentUpdated:
		return s.foldEquipmentUpdate(e, d)
	case EquipmentRetired:
		if known := s.Equipment[d.EquipmentID]; known != nil {
			retired := *known
			retired.Retired = true
			return s.putEquipment(e, &retired)
		}
	case ConnectionCreated:
		s.Connections[d.ConnectionID] = &Connection{ConnectionID: d.ConnectionID, Kind: d.Kind, Name: d.Name, Origin: e.Origin}
		return s.stampConnection(e, d.ConnectionID)
	case ConnectionUpdated:
		return s.foldConnectionCommand(e, d.ConnectionID, func(c *Connection) {
			if !d.Name.IsZero() {
				c.Name, _ = d.Name.Get()
			}
		})
	case ConnectionStarted:
		return s.foldConnectionCommand(e, d.ConnectionID, func(c *Connection) { c.Stopped = false })
	case ConnectionStopped:
		return s.foldConnectionCommand(e, d.ConnectionID, func(c *Connection) { c.Stopped = true })
	case ConnectionRestarted:
		return s.foldConnectionCommand(e, d.ConnectionID, func(c *Connection) { c.Stopped = false })
	case ConnectionDeleted:
		delete(s.Connections, d.ConnectionID)
		return ChangedRows{Connection: d.ConnectionID}
	case ConnectionStateChanged:
		if c := s.Connections[d.ConnectionID]; c != nil {
			c.State, c.StateReason = d.State, d.Reason
			return s.stampConnection(e, d.ConnectionID)
		}
	}
	return ChangedRows{}
}

// MaxClockAhead limits how far a device's clock may be ahead of an update's arrival. Beyond it, the fold does not use
// the device's time to order updates. See [PlausibleDeviceTime].
const MaxClockAhead = 5 * time.Minute

// clockSet is earlier than every time on a clock that was ever set: an unset clock counts from 1970 or 2000.
var clockSet = time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC)

// PlausibleDeviceTime reports whether a time on a device's clock may order the device's updates. A clock that is too
// far ahead of the arrival, or was never set, is wrong: the event keeps its time, and the fold uses the order of the
// log. Otherwise one update from the future would make all later ones look old.
func PlausibleDeviceTime(deviceTime, arrival time.Time) bool {
	return !deviceTime.After(arrival.Add(MaxClockAhead)) && !deviceTime.Before(clockSet)
}

func (s *State) foldDeviceUpdate(e *Event, d DeviceUpdate) ChangedRows {
	dev := s.device(d.DeviceID)
	if at, ok := d.DeviceTime.Get(); ok {
		switch {
		case !PlausibleDeviceTime(at, e.Arrival()):
			d.DeviceTime = Optional[time.Time]{}
		case dev.DeviceTime != nil && at.Before(*dev.DeviceTime):
			return ChangedRows{} // older than the known state: recorded, not folded
		}
	}
	if total, ok := d.EnergyWh.Get(); ok && dev.EnergyOffsetWh != nil {
		included, _ := d.EnergyOffsetWh.Get()
		d.EnergyWh = Some(RoundEnergy(total + *dev.EnergyOffsetWh - included))
	}
	d.fold(dev)
	if online, ok := d.Online.Get(); !ok || online {
		seen := e.Time
		dev.LastSeenAt = &seen
	}
	if dev.Online == nil || *dev.Online {
		dev.OfflineReason = ""
	}
	dev.Origin = e.Origin
	return s.putDevice(e, dev)
}

func (s *State) foldOfflineStatus(e *Event, d DeviceOfflineStatus) ChangedRows {
	dev := s.device(d.DeviceID)
	online := d.Online
	dev.Online = &online
	d.LastSeenAt.apply(&dev.LastSeenAt)
	dev.OfflineReason = d.Reason
	if online {
		dev.OfflineReason = ""
	}
	return s.putDevice(e, dev)
}

// foldEnergyCorrected keeps the difference that the correction makes, because the senders of updates that are already
// on their way do not know of the correction.
func (s *State) foldEnergyCorrected(e *Event, d EnergyCorrected) ChangedRows {
	dev := s.Devices[d.DeviceID]
	if dev == nil {
		return ChangedRows{}
	}
	offset := d.EnergyWh
	if dev.EnergyOffsetWh != nil {
		offset += *dev.EnergyOffsetWh
	}
	if dev.EnergyWh != nil {
		offset -= *dev.EnergyWh
	}
	offset = RoundEnergy(offset)
	dev.EnergyOffsetWh, dev.EnergyWh = &offset, &d.EnergyWh
	return s.putDevice(e, dev)
}

// device returns the known device or a new one, which putDevice adds to the state.
func (s *State) device(id DeviceID) *Device {
	if dev := s.Devices[id]; dev != nil {
		return dev
	}
	return &Device{DeviceID: id}
}

func (s *State) putDevice(e *Event, dev *Device) ChangedRows {
	dev.UpdatedAt, dev.Position = e.Time, e.Position
	s.Devices[dev.DeviceID] = dev
	return ChangedRows{Device: dev.DeviceID}
}

func (s *State) foldAssignment(e *Event, d AssignmentUpdated) ChangedRows {
	changed := ChangedRows{Assigned: d.DeviceID}
	holders := s.holderIndex()
	if old := s.Assignments[d.DeviceID]; old != nil {
		delete(holders, old.EquipmentID)
		delete(s.Assignments, d.DeviceID)
	}
	if d.EquipmentID == nil {
		return changed
	}
	if holder, held := holders[*d.EquipmentID]; held {
		delete(s.Assignments, holder)
		changed.Released = holder
	}
	holders[*d.EquipmentID] = d.DeviceID
	s.Assignments[d.DeviceID] = &Assignment{
		DeviceID: d.DeviceID, EquipmentID: *d.EquipmentID, AssignedBy: e.Actor, AssignedAt: e.Time, Position: e.Position,
	}
	return changed
}

func (s *State) foldEquipmentUpdate(e *Event, d EquipmentUpdated) ChangedRows {
	known := s.Equipment[d.EquipmentID]
	if known == nil {
		return ChangedRows{}
	}
	eq := *known
	for _, f := range []struct {
		from Optional[string]
		to   *string
	}{{d.Name, &eq.Name}, {d.Kind, &eq.Kind}, {d.Location, &eq.Location}} {
		if !f.from.IsZero() {
			*f.to, _ = f.from.Get()
		}
	}
	if d.Attributes != nil {
		eq.Attributes = d.Attributes
	}
	return s.putEquipment(e, &eq)
}

func (s *State) putEquipment(e *Event, eq *Equipment) ChangedRows {
	eq.UpdatedAt, eq.Position = e.Time, e.Position
	s.Equipment[eq.EquipmentID] = eq
	return ChangedRows{Equipment: eq.EquipmentID}
}

func (s *State) foldConnectionCommand(e *Event, id ConnectionID, change func(*Connection)) ChangedRows {
	c := s.Connections[id]
	if c == nil {
		return ChangedRows{}
	}
	change(c)
	return s.stampConnection(e, id)
}

func (s *State) stampConnection(e *Event, id ConnectionID) ChangedRows {
	c := s.Connections[id]
	c.UpdatedAt, c.Position = e.Time, e.Position
	return ChangedRows{Connection: id}
}
