package domain

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"
)

// Data is the typed content of an event.
type Data interface {
	EventType() EventType
}

// DeviceUpdate says what is known of a device's state. Over HTTP it is appended
// as given; a Shelly source always sends the merged full state. An absent field
// is unchanged and a null one not known; neither ever means off.
type DeviceUpdate struct {
	DeviceID    DeviceID          `json:"deviceId"`
	Online      Optional[bool]    `json:"online,omitzero"`
	RelayOn     Optional[bool]    `json:"relayOn,omitzero"`
	Channel     Optional[int]     `json:"channel,omitzero"`     // the switch of a multi-switch device; 0 is the first
	PowerW      Optional[float64] `json:"powerW,omitzero"`      // active power
	VoltageV    Optional[float64] `json:"voltageV,omitzero"`    //
	CurrentA    Optional[float64] `json:"currentA,omitzero"`    //
	FrequencyHz Optional[float64] `json:"frequencyHz,omitzero"` //
	PowerFactor Optional[float64] `json:"powerFactor,omitzero"` //
	EnergyWh    Optional[float64] `json:"energyWh,omitzero"`    // lifetime total, corrected for counter resets
	CounterWh   Optional[float64] `json:"counterWh,omitzero"`   // the device's own counter behind EnergyWh; it can fall
	// EnergySince says that EnergyWh rose by what was used since that time, all at
	// once: the counter stood still, or nobody heard it.
	EnergySince Optional[time.Time] `json:"energySince,omitzero"`
	// EnergyOffsetWh is the part of EnergyWh that operators' corrections added. An
	// update that lacks it knows of no correction, and the fold adds it.
	EnergyOffsetWh Optional[float64] `json:"energyOffsetWh,omitzero"`
	// CounterFalls are the falls of the counter that may not have been resets: it
	// may come back to where it was.
	CounterFalls Optional[[]CounterFall] `json:"counterFalls,omitzero"`
	TemperatureC Optional[float64]       `json:"temperatureC,omitzero"` //
	Source       Optional[string]        `json:"source,omitzero"`       // who switched it, in the device's words
	Errors       Optional[[]string]      `json:"errors,omitzero"`       // overtemp, overpower, overvoltage, undervoltage, …
	Changed      Texts                   `json:"changed,omitempty"`     // names of the fields that this event changed
	DeviceTime   Optional[time.Time]     `json:"deviceTime,omitzero"`   // on the device's clock
	ConnectionID Optional[ConnectionID]  `json:"connectionId,omitzero"` // through which it came
	Name         Optional[string]        `json:"name,omitzero"`         //
	Attributes   json.RawMessage         `json:"attributes,omitempty"`  // a free object of the publisher's, at most 4 KiB
}

// OfflineReason says why a device-offline-status was written.
type OfflineReason string

// The reasons of a device-offline-status.
const (
	ReasonHeartbeatMissed OfflineReason = "heartbeat-missed"
	ReasonSocketClosed    OfflineReason = "socket-closed"
	ReasonReported        OfflineReason = "reported"
	ReasonBack            OfflineReason = "back"
)

// DeviceOfflineStatus is written once when a device goes silent and once when
// it comes back. RelayOn is what was known of the relay, for readers that have no
// state; it says nothing new, and the fold does not take it.
type DeviceOfflineStatus struct {
	DeviceID   DeviceID            `json:"deviceId"`
	Online     bool                `json:"online"`
	RelayOn    Optional[bool]      `json:"relayOn,omitzero"`
	LastSeenAt Optional[time.Time] `json:"lastSeenAt,omitzero"`
	Reason     OfflineReason       `json:"reason"`
}

// EnergyCorrected says that an operator set a device's lifetime energy. It goes on
// from there, whatever the device's holder knew of it when.
type EnergyCorrected struct {
	CommandID string   `json:"commandId"`
	DeviceID  DeviceID `json:"deviceId"`
	EnergyWh  float64  `json:"energyWh"`
	Reason    string   `json:"reason,omitempty"`
}

// AssignmentUpdated says that a plug was assigned to equipment, moved, or
// released (a nil EquipmentID).
type AssignmentUpdated struct {
	DeviceID            DeviceID     `json:"deviceId"`
	EquipmentID         *EquipmentID `json:"equipmentId"`
	PreviousEquipmentID *EquipmentID `json:"previousEquipmentId"` // what the plug fed before
	PreviousDeviceID    *DeviceID    `json:"previousDeviceId"`    // which plug fed the equipment before
}

// EquipmentRegistered adds a piece of equipment.
type EquipmentRegistered struct {
	EquipmentID EquipmentID     `json:"equipmentId"`
	Name        string          `json:"name"`
	Kind        string          `json:"kind,omitempty"`     // laser, lamp, chair, …
	Location    string          `json:"location,omitempty"` // room or place
	Attributes  json.RawMessage `json:"attributes,omitempty"`
}

// EquipmentUpdated changes the fields that are present.
type EquipmentUpdated struct {
	EquipmentID EquipmentID      `json:"equipmentId"`
	Name        Optional[string] `json:"name,omitzero"`
	Kind        Optional[string] `json:"kind,omitzero"`
	Location    Optional[string] `json:"location,omitzero"`
	Attributes  json.RawMessage  `json:"attributes,omitempty"`
}

// EquipmentRetired takes a piece of equipment out of use. Its plug is released
// by an AssignmentUpdated of its own, before it.
type EquipmentRetired struct {
	EquipmentID EquipmentID `json:"equipmentId"`
	Reason      string      `json:"reason,omitempty"`
}

// ConnectionKind is how devices reach us through a connection.
type ConnectionKind string

// The kinds of connection.
const (
	ConnectionShellyCloud    ConnectionKind = "shelly-cloud"
	ConnectionShellyOutbound ConnectionKind = "shelly-outbound"
)

// ConnectionCreated adds a Shelly credential. The secret itself is never in an
// event.
type ConnectionCreated struct {
	ConnectionID ConnectionID   `json:"connectionId"`
	Kind         ConnectionKind `json:"kind"`
	Name         string         `json:"name,omitempty"`
}

// ConnectionUpdated changes the fields that are present. A credential that was
// replaced is never in an event: only that it was.
type ConnectionUpdated struct {
	ConnectionID ConnectionID     `json:"connectionId"`
	CommandID    string           `json:"commandId"`
	Name         Optional[string] `json:"name,omitzero"`
	Credential   bool             `json:"credential,omitempty"` // it was replaced: what was let in with the old one is to be dropped
}

// ConnectionCommand is the shared content of the commands on a connection.
type ConnectionCommand struct {
	ConnectionID ConnectionID `json:"connectionId"`
	CommandID    string       `json:"commandId"`
	Reason       string       `json:"reason,omitempty"`
}

// ConnectionStarted allows the connection's sockets.
type ConnectionStarted struct{ ConnectionCommand }

// ConnectionStopped forbids the connection's sockets until it is started.
type ConnectionStopped struct{ ConnectionCommand }

// ConnectionRestarted asks for the connection's sockets to be opened anew.
type ConnectionRestarted struct{ ConnectionCommand }

// ConnectionDeleted removes the credential. Its devices stay.
type ConnectionDeleted struct{ ConnectionCommand }

// ConnectionStateChanged reports what the connection's sockets do. It says
// nothing about the devices behind it.
type ConnectionStateChanged struct {
	ConnectionID ConnectionID    `json:"connectionId"`
	State        ConnectionState `json:"state"`
	Reason       string          `json:"reason,omitempty"`
}

// ConnectionState is what a connection's own socket does.
type ConnectionState string

// The states of a connection.
const (
	StateConnected    ConnectionState = "connected"
	StateDisconnected ConnectionState = "disconnected" // and being tried again
	StateRefused      ConnectionState = "refused"      // by the far end, until somebody mends the credential
)

// RelaySwitchRequested asks for a relay to be switched.
type RelaySwitchRequested struct {
	CommandID    string   `json:"commandId"`
	DeviceID     DeviceID `json:"deviceId"`
	On           bool     `json:"on"`
	ToggleAfterS float64  `json:"toggleAfterS,omitempty"` // seconds after which the device switches back; 0 is never
}

// Outcome is how a command ended.
type Outcome string

// The outcomes. A command that timed out is unknown: it may have been done.
const (
	OutcomeCompleted Outcome = "completed"
	OutcomeFailed    Outcome = "failed"
	OutcomeUnknown   Outcome = "unknown"
)

// RelaySwitchCompleted reports how a RelaySwitchRequested ended.
type RelaySwitchCompleted struct {
	CommandID string   `json:"commandId"`
	DeviceID  DeviceID `json:"deviceId"`
	Outcome   Outcome  `json:"outcome"`
	Error     string   `json:"error,omitempty"`
}

// DisconnectRequested asks every process to drop sockets: those that match all
// the fields that are set.
type DisconnectRequested struct {
	CommandID    string       `json:"commandId"`
	SocketID     string       `json:"socketId,omitempty"`
	ConnectionID ConnectionID `json:"connectionId,omitempty"`
	TargetSystem SystemID     `json:"targetSystemId,omitempty"`
	Subject      string       `json:"subject,omitempty"`
	Role         Role         `json:"role,omitempty"`
	Reason       string       `json:"reason,omitempty"`
	CloseSockets bool         `json:"closeSockets"`
	// EveryRoom closes a socket that is in the rooms of other systems as well, or is
	// staff's. Without it such a socket leaves the room of TargetSystem and lives on.
	EveryRoom bool       `json:"everyRoom,omitempty"`
	Reconnect bool       `json:"reconnect"`          // whether clients may come back at once
	BanUntil  *time.Time `json:"banUntil,omitempty"` // until when their return is refused
}

// DisconnectCompleted reports what one node did for a DisconnectRequested.
type DisconnectCompleted struct {
	CommandID      string `json:"commandId"`
	Node           string `json:"node"`
	ShellySockets  int    `json:"shellySockets"`
	BrowserSockets int    `json:"browserSockets"`
}

// HistoryExported records that history left the platform, and which part.
type HistoryExported struct {
	After  Position `json:"after"`
	Until  Position `json:"until"`
	Events uint64   `json:"events"`
}

// Undecodable is what is left of an entry that could not be read.
type Undecodable struct {
	Reason string            `json:"reason"`
	Fields map[string]string `json:"fields"` // the entry as it stands in the log
}

// EventType implements [Data].
func (DeviceUpdate) EventType() EventType { return TypeDeviceUpdate }

// EventType implements [Data].
func (DeviceOfflineStatus) EventType() EventType { return TypeDeviceOfflineStatus }

// EventType implements [Data].
func (EnergyCorrected) EventType() EventType { return TypeEnergyCorrected }

// EventType implements [Data].
func (AssignmentUpdated) EventType() EventType { return TypeAssignmentUpdated }

// EventType implements [Data].
func (EquipmentRegistered) EventType() EventType { return TypeEquipmentRegistered }

// EventType implements [Data].
func (EquipmentUpdated) EventType() EventType { return TypeEquipmentUpdated }

// EventType implements [Data].
func (EquipmentRetired) EventType() EventType { return TypeEquipmentRetired }

// EventType implements [Data].
func (ConnectionCreated) EventType() EventType { return TypeConnectionCreated }

// EventType implements [Data].
func (ConnectionUpdated) EventType() EventType { return TypeConnectionUpdated }

// EventType implements [Data].
func (ConnectionStarted) EventType() EventType { return TypeConnectionStarted }

// EventType implements [Data].
func (ConnectionStopped) EventType() EventType { return TypeConnectionStopped }

// EventType implements [Data].
func (ConnectionRestarted) EventType() EventType { return TypeConnectionRestarted }

// EventType implements [Data].
func (ConnectionDeleted) EventType() EventType { return TypeConnectionDeleted }

// EventType implements [Data].
func (ConnectionStateChanged) EventType() EventType { return TypeConnectionStateChanged }

// EventType implements [Data].
func (RelaySwitchRequested) EventType() EventType { return TypeRelaySwitchRequested }

// EventType implements [Data].
func (RelaySwitchCompleted) EventType() EventType { return TypeRelaySwitchCompleted }

// EventType implements [Data].
func (DisconnectRequested) EventType() EventType { return TypeDisconnectRequested }

// EventType implements [Data].
func (DisconnectCompleted) EventType() EventType { return TypeDisconnectCompleted }

// EventType implements [Data].
func (HistoryExported) EventType() EventType { return TypeHistoryExported }

// EventType implements [Data].
func (Undecodable) EventType() EventType { return TypeUndecodable }

// eventKind is what this build knows of one type of event.
type eventKind struct {
	decode func(json.RawMessage) (Data, error)
	fields map[string]form // of the data, at the current version
	// upcasts[i] turns data of version i+1 into version i+2. An event is never
	// rewritten: it is read through them.
	upcasts []func(json.RawMessage) (json.RawMessage, error)
	action  bool // see CallsForAction
}

// kinds is the table of the event types: decoding, the canonical form, filters by
// device and the list of the API all work from it. A new type is a line here, a
// constant, and its data; tests fail until it has a sample, bounds and a place in
// the docs.
var kinds = map[EventType]eventKind{
	TypeDeviceUpdate:           kindOf[DeviceUpdate](),
	TypeDeviceOfflineStatus:    kindOf[DeviceOfflineStatus](),
	TypeEnergyCorrected:        kindOf[EnergyCorrected]().callingForAction(),
	TypeAssignmentUpdated:      kindOf[AssignmentUpdated](),
	TypeEquipmentRegistered:    kindOf[EquipmentRegistered](),
	TypeEquipmentUpdated:       kindOf[EquipmentUpdated](),
	TypeEquipmentRetired:       kindOf[EquipmentRetired](),
	TypeConnectionCreated:      kindOf[ConnectionCreated]().callingForAction(),
	TypeConnectionUpdated:      kindOf[ConnectionUpdated]().callingForAction(),
	TypeConnectionStarted:      kindOf[ConnectionStarted]().callingForAction(),
	TypeConnectionStopped:      kindOf[ConnectionStopped]().callingForAction(),
	TypeConnectionRestarted:    kindOf[ConnectionRestarted]().callingForAction(),
	TypeConnectionStateChanged: kindOf[ConnectionStateChanged](),
	TypeConnectionDeleted:      kindOf[ConnectionDeleted]().callingForAction(),
	TypeRelaySwitchRequested:   kindOf[RelaySwitchRequested]().callingForAction(),
	TypeRelaySwitchCompleted:   kindOf[RelaySwitchCompleted]().callingForAction(),
	TypeDisconnectRequested:    kindOf[DisconnectRequested]().callingForAction(),
	TypeDisconnectCompleted:    kindOf[DisconnectCompleted](),
	TypeHistoryExported:        kindOf[HistoryExported](),
	TypeUndecodable:            kindOf[Undecodable](),
}

func kindOf[T Data]() eventKind {
	return eventKind{decode: decodeAs[T], fields: fieldsOf(reflect.TypeFor[T]())}
}

func (k eventKind) callingForAction() eventKind {
	k.action = true
	return k
}

func decodeAs[T Data](raw json.RawMessage) (Data, error) {
	var v T
	if err := json.Unmarshal(raw, &v); err != nil {
		return nil, err
	}
	return v, nil
}

// EventTypes returns the types that this build knows, sorted.
func EventTypes() []EventType { return slices.Sorted(maps.Keys(kinds)) }

// CallsForAction reports whether processes react to events of the type: they switch
// a relay, drop sockets, or connect to a cloud. Such an event costs many times what
// one costs that is only kept and delivered.
func (t EventType) CallsForAction() bool { return kinds[t].action }

func currentVersion(t EventType) int { return len(kinds[t].upcasts) + 1 }

// Known reports whether this build knows the type and the version of the event.
// An event of an unknown type, or of a version from a later build, is kept and
// shown, and skipped by the fold.
func (e *Event) Known() bool {
	_, ok := kinds[e.Type]
	return ok && e.Version >= 1 && e.Version <= currentVersion(e.Type)
}

// Decode reads the event's data, upcast to the current version. It returns nil
// and no error for an event that is not [Event.Known], and an error for data
// that is not of its type's shape.
func (e *Event) Decode() (Data, error) {
	if !e.Known() {
		return nil, nil
	}
	k, raw := kinds[e.Type], e.Data
	for _, upcast := range k.upcasts[e.Version-1:] {
		var err error
		if raw, err = upcast(raw); err != nil {
			return nil, fmt.Errorf("domain: upcast %s of version %d: %w", e.Type, e.Version, err)
		}
	}
	data, err := k.decode(raw)
	if err == nil {
		err = checkIDs(data)
	}
	if err != nil {
		return nil, fmt.Errorf("domain: decode %s: %w", e.Type, err)
	}
	return data, nil
}

// checkIDs refuses data about something that has no well-formed id: there can be
// no row of it.
func checkIDs(data Data) (err error) {
	switch d := data.(type) {
	case DeviceUpdate:
		_, err = ParseDeviceID(string(d.DeviceID))
	case DeviceOfflineStatus:
		_, err = ParseDeviceID(string(d.DeviceID))
	case EnergyCorrected:
		_, err = ParseDeviceID(string(d.DeviceID))
	case AssignmentUpdated:
		if _, err = ParseDeviceID(string(d.DeviceID)); err == nil && d.EquipmentID != nil {
			_, err = ParseEquipmentID(string(*d.EquipmentID))
		}
	case EquipmentRegistered:
		_, err = ParseEquipmentID(string(d.EquipmentID))
	case ConnectionCreated:
		_, err = ParseConnectionID(string(d.ConnectionID))
	}
	return err
}

// Device returns the device that the event is about, for filters and indexes,
// or "" when there is none or its id is not well-formed. It looks at known types
// only.
func (e *Event) Device() DeviceID {
	if _, has := kinds[e.Type].fields["deviceId"]; !has {
		return ""
	}
	var subject struct {
		DeviceID DeviceID `json:"deviceId"`
	}
	if json.Unmarshal(e.Data, &subject) != nil || !isID(string(subject.DeviceID), maxDeviceID, true) {
		return ""
	}
	return subject.DeviceID
}
