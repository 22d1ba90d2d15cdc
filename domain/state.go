package domain

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"
)

// State is everything that is true of one system at one place in its history.
// It is made by folding events with [State.Apply] and by nothing else. A State
// is not safe for concurrent use.
type State struct {
	SystemID SystemID
	Cursor   Cursor // the last event folded in

	Devices     map[DeviceID]*Device
	Equipment   map[EquipmentID]*Equipment
	Assignments map[DeviceID]*Assignment
	Connections map[ConnectionID]*Connection

	holders map[EquipmentID]DeviceID // Assignments by equipment; derived
}

// Device is the current state of one plug. A nil pointer means not known.
type Device struct {
	DeviceID       DeviceID        `json:"deviceId"`
	Online         *bool           `json:"online"`
	RelayOn        *bool           `json:"relayOn"`
	Channel        *int            `json:"channel,omitempty"`
	PowerW         *float64        `json:"powerW,omitempty"`
	VoltageV       *float64        `json:"voltageV,omitempty"`
	CurrentA       *float64        `json:"currentA,omitempty"`
	FrequencyHz    *float64        `json:"frequencyHz,omitempty"`
	PowerFactor    *float64        `json:"powerFactor,omitempty"`
	EnergyWh       *float64        `json:"energyWh,omitempty"`
	CounterWh      *float64        `json:"counterWh,omitempty"`
	EnergySince    *time.Time      `json:"energySince,omitempty"`
	EnergyOffsetWh *float64        `json:"energyOffsetWh,omitempty"`
	CounterFalls   *[]CounterFall  `json:"counterFalls,omitempty"`
	TemperatureC   *float64        `json:"temperatureC,omitempty"`
	Source         *string         `json:"source,omitempty"`
	Errors         *[]string       `json:"errors,omitempty"`
	DeviceTime     *time.Time      `json:"deviceTime,omitempty"`
	ConnectionID   *ConnectionID   `json:"connectionId,omitempty"`
	Name           *string         `json:"name,omitempty"`
	Attributes     json.RawMessage `json:"attributes,omitempty"`
	LastSeenAt     *time.Time      `json:"lastSeenAt,omitempty"`
	OfflineReason  OfflineReason   `json:"offlineReason,omitempty"` // why, while Online is false
	UpdatedAt      time.Time       `json:"updatedAt"`
	Position       Position        `json:"position"` // of the last event that changed it
	// Origin is the deployment that the last update came from, and so where the
	// device is held; "" for this one.
	Origin string `json:"origin,omitempty"`
}

// Equipment is what a plug feeds.
type Equipment struct {
	EquipmentID EquipmentID     `json:"equipmentId"`
	Name        string          `json:"name"`
	Kind        string          `json:"kind,omitempty"`
	Location    string          `json:"location,omitempty"`
	Attributes  json.RawMessage `json:"attributes,omitempty"`
	Retired     bool            `json:"retired"`
	UpdatedAt   time.Time       `json:"updatedAt"`
	Position    Position        `json:"position"`
}

// Assignment ties a plug to the equipment that it feeds. Released plugs have
// none.
type Assignment struct {
	DeviceID    DeviceID    `json:"deviceId"`
	EquipmentID EquipmentID `json:"equipmentId"`
	AssignedBy  string      `json:"assignedBy"`
	AssignedAt  time.Time   `json:"assignedAt"`
	Position    Position    `json:"position"`
}

// Connection is one Shelly credential.
type Connection struct {
	ConnectionID ConnectionID    `json:"connectionId"`
	Kind         ConnectionKind  `json:"kind"`
	Name         string          `json:"name,omitempty"`
	Stopped      bool            `json:"stopped"`         // by command
	State        ConnectionState `json:"state,omitempty"` // as last reported by whoever holds its socket
	StateReason  string          `json:"stateReason,omitempty"`
	UpdatedAt    time.Time       `json:"updatedAt"`
	Position     Position        `json:"position"`
	Origin       string          `json:"origin,omitempty"` // the deployment that it was created in, which has its secret; "" for this one
}

// IsStale reports whether nothing new can be known of the device, because the
// connection that it is behind is stopped or down. That says nothing about the
// device: it is neither offline nor switched off for it.
func (s *State) IsStale(d *Device) bool {
	if d.ConnectionID == nil {
		return false
	}
	c := s.Connections[*d.ConnectionID]
	return c != nil && (c.Stopped || c.State == StateDisconnected || c.State == StateRefused)
}

// NewState is the state of a system before its first event.
func NewState(system SystemID) *State {
	return &State{
		SystemID:    system,
		Devices:     map[DeviceID]*Device{},
		Equipment:   map[EquipmentID]*Equipment{},
		Assignments: map[DeviceID]*Assignment{},
		Connections: map[ConnectionID]*Connection{},
	}
}

// Touched names the rows that one event changed. Zero fields are untouched. A
// named assignment or connection that the state no longer has was removed.
type Touched struct {
	Device     DeviceID
	Equipment  EquipmentID
	Assigned   DeviceID
	Released   DeviceID // the plug that lost the equipment to Assigned
	Connection ConnectionID
}

// Apply folds one event into the state. It is the only code that does.
//
// Events must come in the order of their positions; one at or before the
// state's own position was folded already and changes nothing. An event that
// carries a seq must be the very next, or Apply fails with [ErrGap] and leaves
// the state as it was.
//
// An event that this build does not know, or whose data cannot be read, moves
// the cursor and changes nothing else; unreadable data is returned as an error
// so that it can be reported, with the cursor moved all the same.
func (s *State) Apply(e *Event) (Touched, error) {
	if !e.Position.After(s.Cursor.Position) {
		return Touched{}, nil
	}
	next := s.Cursor.Seq + 1
	if e.Seq != 0 && e.Seq != next {
		return Touched{}, fmt.Errorf("%w: %s follows %s", ErrGap, e.Cursor(), s.Cursor)
	}
	s.Cursor = Cursor{Position: e.Position, Seq: next}
	data, err := e.Decode()
	if err != nil {
		return Touched{}, err
	}
	return s.fold(e, data), nil
}

func (s *State) fold(e *Event, data Data) Touched {
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
		return s.touchEquipment(e, &Equipment{
			EquipmentID: d.EquipmentID, Name: d.Name, Kind: d.Kind, Location: d.Location, Attributes: d.Attributes,
		})
	case EquipmentUpdated:
		return s.foldEquipmentUpdate(e, d)
	case EquipmentRetired:
		if known := s.Equipment[d.EquipmentID]; known != nil {
			retired := *known
			retired.Retired = true
			return s.touchEquipment(e, &retired)
		}
	case ConnectionCreated:
		s.Connections[d.ConnectionID] = &Connection{ConnectionID: d.ConnectionID, Kind: d.Kind, Name: d.Name, Origin: e.Origin}
		return s.touchConnection(e, d.ConnectionID)
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
		return Touched{Connection: d.ConnectionID}
	case ConnectionStateChanged:
		if c := s.Connections[d.ConnectionID]; c != nil {
			c.State, c.StateReason = d.State, d.Reason
			return s.touchConnection(e, d.ConnectionID)
		}
	}
	return Touched{}
}

// MaxClockAhead is how far a device's clock may be ahead of the arrival of what it
// says, for its times to order its updates.
const MaxClockAhead = 5 * time.Minute

// clockSet is before every time that a clock shows that was ever set: those that
// were not count from 1970 or 2000.
var clockSet = time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC)

// Orders reports whether a time on a device's clock orders the device's updates.
// One that is too far ahead of its arrival, or that no clock shows that was set, is
// the device's opinion: the event keeps it, and the fold goes by the log's order.
// Otherwise one update from the future would make all that follow look old.
func Orders(deviceTime, arrival time.Time) bool {
	return !deviceTime.After(arrival.Add(MaxClockAhead)) && !deviceTime.Before(clockSet)
}

func (s *State) foldDeviceUpdate(e *Event, d DeviceUpdate) Touched {
	dev := s.device(d.DeviceID)
	if at, ok := d.DeviceTime.Get(); ok {
		switch {
		case !Orders(at, e.Arrival()):
			d.DeviceTime = Optional[time.Time]{}
		case dev.DeviceTime != nil && at.Before(*dev.DeviceTime):
			return Touched{} // older than what is known: recorded, not folded
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
	return s.touchDevice(e, dev)
}

func (s *State) foldOfflineStatus(e *Event, d DeviceOfflineStatus) Touched {
	dev := s.device(d.DeviceID)
	online := d.Online
	dev.Online = &online
	d.LastSeenAt.apply(&dev.LastSeenAt)
	dev.OfflineReason = d.Reason
	if online {
		dev.OfflineReason = ""
	}
	return s.touchDevice(e, dev)
}

// foldEnergyCorrected keeps what the correction adds, because updates that were on
// their way know nothing of it.
func (s *State) foldEnergyCorrected(e *Event, d EnergyCorrected) Touched {
	dev := s.Devices[d.DeviceID]
	if dev == nil {
		return Touched{}
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
	return s.touchDevice(e, dev)
}

// device returns the known device or a new one that touchDevice adds.
func (s *State) device(id DeviceID) *Device {
	if dev := s.Devices[id]; dev != nil {
		return dev
	}
	return &Device{DeviceID: id}
}

func (s *State) touchDevice(e *Event, dev *Device) Touched {
	dev.UpdatedAt, dev.Position = e.Time, e.Position
	s.Devices[dev.DeviceID] = dev
	return Touched{Device: dev.DeviceID}
}

func (s *State) foldAssignment(e *Event, d AssignmentUpdated) Touched {
	touched := Touched{Assigned: d.DeviceID}
	holders := s.holderIndex()
	if old := s.Assignments[d.DeviceID]; old != nil {
		delete(holders, old.EquipmentID)
		delete(s.Assignments, d.DeviceID)
	}
	if d.EquipmentID == nil {
		return touched
	}
	if holder, held := holders[*d.EquipmentID]; held {
		delete(s.Assignments, holder)
		touched.Released = holder
	}
	holders[*d.EquipmentID] = d.DeviceID
	s.Assignments[d.DeviceID] = &Assignment{
		DeviceID: d.DeviceID, EquipmentID: *d.EquipmentID, AssignedBy: e.Actor, AssignedAt: e.Time, Position: e.Position,
	}
	return touched
}

// Holder returns the plug that feeds the equipment, if any.
func (s *State) Holder(equipment EquipmentID) (DeviceID, bool) {
	d, ok := s.holderIndex()[equipment]
	return d, ok
}

// holderIndex builds the derived index once, also for a state that was loaded
// rather than folded.
func (s *State) holderIndex() map[EquipmentID]DeviceID {
	if s.holders == nil {
		s.holders = make(map[EquipmentID]DeviceID, len(s.Assignments))
		for device, a := range s.Assignments {
			s.holders[a.EquipmentID] = device
		}
	}
	return s.holders
}

func (s *State) foldEquipmentUpdate(e *Event, d EquipmentUpdated) Touched {
	known := s.Equipment[d.EquipmentID]
	if known == nil {
		return Touched{}
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
	return s.touchEquipment(e, &eq)
}

func (s *State) touchEquipment(e *Event, eq *Equipment) Touched {
	eq.UpdatedAt, eq.Position = e.Time, e.Position
	s.Equipment[eq.EquipmentID] = eq
	return Touched{Equipment: eq.EquipmentID}
}

func (s *State) foldConnectionCommand(e *Event, id ConnectionID, change func(*Connection)) Touched {
	c := s.Connections[id]
	if c == nil {
		return Touched{}
	}
	change(c)
	return s.touchConnection(e, id)
}

func (s *State) touchConnection(e *Event, id ConnectionID) Touched {
	c := s.Connections[id]
	c.UpdatedAt, c.Position = e.Time, e.Position
	return Touched{Connection: id}
}

// Snapshot is a State in the form that faces send: lists ordered by id.
type Snapshot struct {
	SystemID    SystemID      `json:"systemId"`
	Position    Position      `json:"position"`
	Seq         uint64        `json:"seq"`
	Devices     []*Device     `json:"devices"`
	Equipment   []*Equipment  `json:"equipment"`
	Assignments []*Assignment `json:"assignments"`
	Connections []*Connection `json:"connections"`
}

// Snapshot lists what s holds. It shares the rows with s.
func (s *State) Snapshot() *Snapshot {
	return &Snapshot{
		SystemID:    s.SystemID,
		Position:    s.Cursor.Position,
		Seq:         s.Cursor.Seq,
		Devices:     ordered(s.Devices),
		Equipment:   ordered(s.Equipment),
		Assignments: ordered(s.Assignments),
		Connections: ordered(s.Connections),
	}
}

func ordered[K cmp.Ordered, V any](m map[K]V) []V {
	out := make([]V, 0, len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, m[k])
	}
	return out
}
