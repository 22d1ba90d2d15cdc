package domain

import (
	"encoding/json"
	"time"
)

// Data is the typed content of an event. The types below implement it.
type Data interface {
	EventType() EventType
}

// DeviceUpdate reports the state of a device. The HTTP API appends updates as given; a Shelly source always sends the
// full merged state. An absent field is unchanged and a null field is not known; neither ever means off.
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
	// EnergySince is set if EnergyWh grew by everything that was used since that time at once, because the counter
	// stood still or plugcast could not hear the device.
	EnergySince Optional[time.Time] `json:"energySince,omitzero"`
	// EnergyOffsetWh is the part of EnergyWh that operators' corrections added. The sender of an update without it
	// knows of no correction, so the fold adds it.
	EnergyOffsetWh Optional[float64] `json:"energyOffsetWh,omitzero"`
	// CounterFalls lists the falls of the counter that may not have been resets: the counter may return to its old
	// value.
	CounterFalls Optional[[]CounterFall] `json:"counterFalls,omitzero"`
	TemperatureC Optional[float64]       `json:"temperatureC,omitzero"` //
	Source       Optional[string]        `json:"source,omitzero"`       // what switched it, in the device's words
	Errors       Optional[[]string]      `json:"errors,omitzero"`       // overtemp, overpower, overvoltage, undervoltage, …
	Changed      StringList              `json:"changed,omitempty"`     // names of the fields that this event changed
	DeviceTime   Optional[time.Time]     `json:"deviceTime,omitzero"`   // on the device's clock
	ConnectionID Optional[ConnectionID]  `json:"connectionId,omitzero"` // through which it came
	Name         Optional[string]        `json:"name,omitzero"`         //
	Attributes   json.RawMessage         `json:"attributes,omitempty"`  // a free JSON object of the publisher, at most 4 KiB
}

// OfflineReason is the reason for a device-offline-status.
type OfflineReason string

// The reasons for a device-offline-status.
const (
	ReasonHeartbeatMissed OfflineReason = "heartbeat-missed"
	ReasonSocketClosed    OfflineReason = "socket-closed"
	ReasonReported        OfflineReason = "reported"
	ReasonBack            OfflineReason = "back"
)

// DeviceOfflineStatus is appended once when a device falls silent and once when it returns. RelayOn repeats the last
// known state of the relay for readers that keep no state. It is not new information, and the fold ignores it.
type DeviceOfflineStatus struct {
	DeviceID   DeviceID            `json:"deviceId"`
	Online     bool                `json:"online"`
	RelayOn    Optional[bool]      `json:"relayOn,omitzero"`
	LastSeenAt Optional[time.Time] `json:"lastSeenAt,omitzero"`
	Reason     OfflineReason       `json:"reason"`
}

// EnergyCorrected reports that an operator set a device's lifetime energy. The total continues from there, even if
// the process that holds the device learns of the correction later.
type EnergyCorrected struct {
	CommandID string   `json:"commandId"`
	DeviceID  DeviceID `json:"deviceId"`
	EnergyWh  float64  `json:"energyWh"`
	Reason    string   `json:"reason,omitempty"`
}

// AssignmentUpdated reports that a plug was assigned to equipment, moved, or released (a nil EquipmentID).
type AssignmentUpdated struct {
	DeviceID            DeviceID     `json:"deviceId"`
	EquipmentID         *EquipmentID `json:"equipmentId"`
	PreviousEquipmentID *EquipmentID `json:"previousEquipmentId"` // the equipment that the plug fed before
	PreviousDeviceID    *DeviceID    `json:"previousDeviceId"`    // the plug that fed the equipment before
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

// EquipmentRetired takes a piece of equipment out of use. A separate AssignmentUpdated before it releases the plug.
type EquipmentRetired struct {
	EquipmentID EquipmentID `json:"equipmentId"`
	Reason      string      `json:"reason,omitempty"`
}

// ConnectionKind is the way in which devices reach plugcast through a connection.
type ConnectionKind string

// The kinds of connection.
const (
	ConnectionShellyCloud    ConnectionKind = "shelly-cloud"
	ConnectionShellyOutbound ConnectionKind = "shelly-outbound"
)

// ConnectionCreated adds a Shelly credential. No event contains the secret itself.
type ConnectionCreated struct {
	ConnectionID ConnectionID   `json:"connectionId"`
	Kind         ConnectionKind `json:"kind"`
	Name         string         `json:"name,omitempty"`
}

// ConnectionUpdated changes the fields that are present. If the credential was replaced, the event says so and does
// not contain it.
type ConnectionUpdated struct {
	ConnectionID ConnectionID     `json:"connectionId"`
	CommandID    string           `json:"commandId"`
	Name         Optional[string] `json:"name,omitzero"`
	Credential   bool             `json:"credential,omitempty"` // it was replaced: processes close the sockets that used the old one
}

// ConnectionCommand is the shared content of the events that a command on a connection causes.
type ConnectionCommand struct {
	ConnectionID ConnectionID `json:"connectionId"`
	CommandID    string       `json:"commandId"`
	Reason       string       `json:"reason,omitempty"`
}

// ConnectionStarted allows the connection's sockets.
type ConnectionStarted struct{ ConnectionCommand }

// ConnectionStopped forbids the connection's sockets until it is started.
type ConnectionStopped struct{ ConnectionCommand }

// ConnectionRestarted allows the connection's sockets and asks for new ones.
type ConnectionRestarted struct{ ConnectionCommand }

// ConnectionDeleted removes the credential. Its devices stay.
type ConnectionDeleted struct{ ConnectionCommand }

// ConnectionStateChanged reports the state of the connection's own sockets. It says nothing about the devices behind
// them.
type ConnectionStateChanged struct {
	ConnectionID ConnectionID    `json:"connectionId"`
	State        ConnectionState `json:"state"`
	Reason       string          `json:"reason,omitempty"`
}

// ConnectionState is the state of a connection's own socket.
type ConnectionState string

// The states of a connection.
const (
	StateConnected    ConnectionState = "connected"
	StateDisconnected ConnectionState = "disconnected" // plugcast keeps trying
	StateRefused      ConnectionState = "refused"      // by the far end, until somebody repairs the credential
)

// RelaySwitchRequested asks the holder of the device to switch its relay.
type RelaySwitchRequested struct {
	CommandID    string   `json:"commandId"`
	DeviceID     DeviceID `json:"deviceId"`
	On           bool     `json:"on"`
	ToggleAfterS float64  `json:"toggleAfterS,omitempty"` // seconds after which the device switches back; 0 is never
}

// Outcome is the way in which a command ended.
type Outcome string

// The outcomes. The outcome of a command that timed out is unknown: the device may have carried it out.
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

// DisconnectRequested asks every process to disconnect sockets. ConnectionID names the connection whose device sockets to
// close. If CloseSockets is set, the clients that match all of SocketID, TargetSystem, Subject and Role are disconnected as
// well; a field that is empty matches every client.
type DisconnectRequested struct {
	CommandID    string       `json:"commandId"`
	SocketID     string       `json:"socketId,omitempty"`
	ConnectionID ConnectionID `json:"connectionId,omitempty"`
	TargetSystem SystemID     `json:"targetSystemId,omitempty"`
	Subject      string       `json:"subject,omitempty"`
	Role         Role         `json:"role,omitempty"`
	Reason       string       `json:"reason,omitempty"`
	CloseSockets bool         `json:"closeSockets"` // whether to disconnect clients
	// EveryRoom closes a socket even if it is also in the rooms of other systems, or belongs to staff. Otherwise such
	// a socket leaves the room of TargetSystem and stays open.
	EveryRoom bool       `json:"everyRoom,omitempty"`
	Reconnect bool       `json:"reconnect"`          // whether clients may return at once
	BanUntil  *time.Time `json:"banUntil,omitempty"` // processes refuse the clients until then
}

// RecordedIn returns the system whose log holds the request and the processes' answers: the target or, for a request
// that names no system, [PlatformSystem], where only staff may write.
func (d *DisconnectRequested) RecordedIn() SystemID {
	if d.TargetSystem == "" {
		return PlatformSystem
	}
	return d.TargetSystem
}

// DisconnectCompleted reports how many sockets one process disconnected for a DisconnectRequested.
type DisconnectCompleted struct {
	CommandID      string `json:"commandId"`
	Node           string `json:"node"`
	ShellySockets  int    `json:"shellySockets"`  // closed sockets of devices and cloud accounts
	BrowserSockets int    `json:"browserSockets"` // sockets of clients that were closed, or only left the room of the system
}

// HistoryExported records that the events after After, up to Until, left the platform.
type HistoryExported struct {
	After  Position `json:"after"`
	Until  Position `json:"until"`
	Events uint64   `json:"events"`
}

// Undecodable preserves an entry that could not be read. See [NewUndecodable].
type Undecodable struct {
	Reason string            `json:"reason"`
	Fields map[string]string `json:"fields"` // of the log entry or the event; long texts are truncated
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
