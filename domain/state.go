package domain

import (
	"encoding/json"
	"time"
)

// State is everything that is true of one system at one place in its history. Only [State.Apply] produces states, by
// folding events. A State is not safe for concurrent use.
type State struct {
	SystemID SystemID
	Cursor   Cursor // of the last event folded

	Devices     map[DeviceID]*Device
	Equipment   map[EquipmentID]*Equipment
	Assignments map[DeviceID]*Assignment
	Connections map[ConnectionID]*Connection

	holders map[EquipmentID]DeviceID // index of Assignments by equipment; see holderIndex
}

// Device is the current state of one plug. A nil pointer means that the value is not known.
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
	OfflineReason  OfflineReason   `json:"offlineReason,omitempty"` // empty unless Online is false
	UpdatedAt      time.Time       `json:"updatedAt"`
	Position       Position        `json:"position"` // of the last event that changed the row
	// Origin is the deployment that published the last update, and that therefore holds the device; "" for this one.
	Origin string `json:"origin,omitempty"`
}

// Equipment is a machine that a plug feeds, such as a laser.
type Equipment struct {
	EquipmentID EquipmentID     `json:"equipmentId"`
	Name        string          `json:"name"`
	Kind        string          `json:"kind,omitempty"`
	Location    string          `json:"location,omitempty"`
	Attributes  json.RawMessage `json:"attributes,omitempty"`
	Retired     bool            `json:"retired"`
	UpdatedAt   time.Time       `json:"updatedAt"`
	Position    Position        `json:"position"` // of the last event that changed the row
}

// Assignment links a plug to the equipment that it feeds. A released plug has none. A plug feeds at most one piece of
// equipment, and at most one plug feeds a piece of equipment.
type Assignment struct {
	DeviceID    DeviceID    `json:"deviceId"`
	EquipmentID EquipmentID `json:"equipmentId"`
	AssignedBy  string      `json:"assignedBy"`
	AssignedAt  time.Time   `json:"assignedAt"`
	Position    Position    `json:"position"` // of the assignment
}

// Connection is one Shelly credential.
type Connection struct {
	ConnectionID ConnectionID    `json:"connectionId"`
	Kind         ConnectionKind  `json:"kind"`
	Name         string          `json:"name,omitempty"`
	Stopped      bool            `json:"stopped"`         // by command
	State        ConnectionState `json:"state,omitempty"` // the last report of the process that holds its socket
	StateReason  string          `json:"stateReason,omitempty"`
	UpdatedAt    time.Time       `json:"updatedAt"`
	Position     Position        `json:"position"`         // of the last event that changed the row
	Origin       string          `json:"origin,omitempty"` // the deployment that created it and has its secret; "" for this one
}

// NewState returns the state of a system before its first event.
func NewState(system SystemID) *State {
	return &State{
		SystemID:    system,
		Devices:     map[DeviceID]*Device{},
		Equipment:   map[EquipmentID]*Equipment{},
		Assignments: map[DeviceID]*Assignment{},
		Connections: map[ConnectionID]*Connection{},
	}
}

// IsStale reports whether no news can come from the device because its connection is stopped or down. That says
// nothing about the device itself: it is neither offline nor switched off for that reason.
func (s *State) IsStale(d *Device) bool {
	if d.ConnectionID == nil {
		return false
	}
	c := s.Connections[*d.ConnectionID]
	return c != nil && (c.Stopped || c.State == StateDisconnected || c.State == StateRefused)
}

// Holder returns the plug that feeds the equipment, if any.
func (s *State) Holder(equipment EquipmentID) (DeviceID, bool) {
	d, ok := s.holderIndex()[equipment]
	return d, ok
}

// holderIndex builds the index on first use, because a state may have been loaded instead of folded.
func (s *State) holderIndex() map[EquipmentID]DeviceID {
	if s.holders == nil {
		s.holders = make(map[EquipmentID]DeviceID, len(s.Assignments))
		for device, a := range s.Assignments {
			s.holders[a.EquipmentID] = device
		}
	}
	return s.holders
}
