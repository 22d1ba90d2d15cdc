package domain

import (
	"bytes"
	"encoding/json"
	"time"
)

// The decisions: each looks at the state of one system and answers with the
// events that should follow, or with an [Error] that says why not. No events and
// no error means that things are already as asked. They do not change the state.

// AssignPlug ties a plug to a piece of equipment, replacing what the plug fed
// before.
type AssignPlug struct {
	DeviceID    DeviceID
	EquipmentID EquipmentID
	Move        bool      // take the equipment from the plug that feeds it now
	IfMatch     *Position // only if this is the position of the plug's present assignment
}

// Decide fails with [CodeUnknownDevice], [CodeUnknownEquipment], [CodeStale] or,
// when another plug feeds the equipment and Move is not set,
// [CodeEquipmentOccupied] with the holder.
func (c AssignPlug) Decide(s *State) ([]Data, error) {
	if err := s.requireDevice(c.DeviceID); err != nil {
		return nil, err
	}
	if err := s.requireEquipment(c.EquipmentID); err != nil {
		return nil, err
	}
	now := s.Assignments[c.DeviceID]
	if err := requireMatch(now, c.IfMatch); err != nil {
		return nil, err
	}
	if now != nil && now.EquipmentID == c.EquipmentID {
		return nil, nil
	}
	event := AssignmentUpdated{DeviceID: c.DeviceID, EquipmentID: &c.EquipmentID}
	if now != nil {
		event.PreviousEquipmentID = &now.EquipmentID
	}
	if holder, held := s.Holder(c.EquipmentID); held {
		if !c.Move {
			return nil, Fail(KindConflict, CodeEquipmentOccupied,
				"equipment "+quote(string(c.EquipmentID))+" is fed by "+quote(string(holder))+"; repeat with move=true to take it over").
				With("deviceId", holder).With("equipmentId", c.EquipmentID)
		}
		event.PreviousDeviceID = &holder
	}
	return []Data{event}, nil
}

// ReleasePlug ends a plug's assignment.
type ReleasePlug struct {
	DeviceID DeviceID
	IfMatch  *Position // only if this is the position of the plug's present assignment
}

// Decide fails with [CodeUnknownDevice], [CodeStale] or [CodeNotAssigned].
func (c ReleasePlug) Decide(s *State) ([]Data, error) {
	if err := s.requireDevice(c.DeviceID); err != nil {
		return nil, err
	}
	now := s.Assignments[c.DeviceID]
	if err := requireMatch(now, c.IfMatch); err != nil {
		return nil, err
	}
	if now == nil {
		return nil, Fail(KindNotFound, CodeNotAssigned, "device "+quote(string(c.DeviceID))+" is not assigned to any equipment")
	}
	return []Data{AssignmentUpdated{DeviceID: c.DeviceID, PreviousEquipmentID: &now.EquipmentID}}, nil
}

// RegisterEquipment adds a piece of equipment.
type RegisterEquipment struct{ EquipmentRegistered }

// Decide fails with [CodeEquipmentExists]. The id of retired equipment is not
// used again.
func (c RegisterEquipment) Decide(s *State) ([]Data, error) {
	if s.Equipment[c.EquipmentID] != nil {
		return nil, Fail(KindConflict, CodeEquipmentExists, "there is equipment "+quote(string(c.EquipmentID))+" already")
	}
	return []Data{c.EquipmentRegistered}, nil
}

// UpdateEquipment changes the fields that are present.
type UpdateEquipment struct {
	EquipmentUpdated
	IfMatch *Position // only if this is the equipment's present position
}

// Decide fails with [CodeUnknownEquipment] or [CodeStale].
func (c UpdateEquipment) Decide(s *State) ([]Data, error) {
	if err := s.requireEquipment(c.EquipmentID); err != nil {
		return nil, err
	}
	now := s.Equipment[c.EquipmentID]
	if err := requirePosition(now.Position, c.IfMatch); err != nil {
		return nil, err
	}
	same := (c.Attributes == nil || bytes.Equal(c.Attributes, now.Attributes)) &&
		isSame(c.Name, now.Name) && isSame(c.Kind, now.Kind) && isSame(c.Location, now.Location)
	if same {
		return nil, nil
	}
	return []Data{c.EquipmentUpdated}, nil
}

func isSame(change Optional[string], now string) bool {
	v, _ := change.Get()
	return change.IsZero() || v == now
}

// RetireEquipment takes a piece of equipment out of use and releases its plug.
type RetireEquipment struct {
	EquipmentRetired
	IfMatch *Position // only if this is the equipment's present position
}

// Decide fails with [CodeUnknownEquipment] or [CodeStale].
func (c RetireEquipment) Decide(s *State) ([]Data, error) {
	if err := s.requireEquipment(c.EquipmentID); err != nil {
		return nil, err
	}
	if err := requirePosition(s.Equipment[c.EquipmentID].Position, c.IfMatch); err != nil {
		return nil, err
	}
	var events []Data
	if holder, held := s.Holder(c.EquipmentID); held {
		events = append(events, AssignmentUpdated{DeviceID: holder, PreviousEquipmentID: &c.EquipmentID})
	}
	return append(events, c.EquipmentRetired), nil
}

// CreateConnection adds a Shelly credential.
type CreateConnection struct{ ConnectionCreated }

// Decide fails with [CodeConnectionExists].
func (c CreateConnection) Decide(s *State) ([]Data, error) {
	if s.Connections[c.ConnectionID] != nil {
		return nil, Fail(KindConflict, CodeConnectionExists, "there is connection "+quote(string(c.ConnectionID))+" already")
	}
	return []Data{c.ConnectionCreated}, nil
}

// UpdateConnection changes the fields that are present.
type UpdateConnection struct {
	ConnectionUpdated
	// CredentialKind is what kind of connection a new credential is for, when
	// Credential says that there is one.
	CredentialKind ConnectionKind
	IfMatch        *Position // only if this is the connection's present position
}

// Decide fails with [CodeUnknownConnection], [CodeStale] or, when the credential
// is not one for a connection of this kind, [CodeInvalidCommand]. With a new
// credential it also asks every process to drop what the old one let in.
func (c UpdateConnection) Decide(s *State) ([]Data, error) {
	now, err := s.requireConnection(c.ConnectionID, c.IfMatch)
	switch {
	case err != nil:
		return nil, err
	case c.Credential && c.CredentialKind != now.Kind:
		return nil, Invalid(CodeInvalidCommand, "connection "+quote(string(c.ConnectionID))+" is of kind "+string(now.Kind)+
			" and takes no credential of kind "+string(c.CredentialKind))
	case !c.Credential && isSame(c.Name, now.Name):
		return nil, nil
	case !c.Credential:
		return []Data{c.ConnectionUpdated}, nil
	}
	return []Data{c.ConnectionUpdated, DisconnectRequested{
		CommandID: c.CommandID, ConnectionID: c.ConnectionID, TargetSystem: s.SystemID, Reason: "credential replaced", Reconnect: true,
	}}, nil
}

// ConnectionVerb is a command on a connection.
type ConnectionVerb string

// The commands on a connection.
const (
	VerbStart   ConnectionVerb = "start"
	VerbStop    ConnectionVerb = "stop"
	VerbRestart ConnectionVerb = "restart"
	VerbDelete  ConnectionVerb = "delete"
)

// CommandConnection starts, stops, restarts or deletes a connection.
type CommandConnection struct {
	ConnectionCommand
	Verb         ConnectionVerb
	CloseSockets bool      // also close the browser sockets of the system
	IfMatch      *Position // only if this is the connection's present position
}

// Decide fails with [CodeUnknownConnection] or [CodeStale]. All but start also ask every
// process to drop the connection's sockets.
func (c CommandConnection) Decide(s *State) ([]Data, error) {
	now, err := s.requireConnection(c.ConnectionID, c.IfMatch)
	if err != nil {
		return nil, err
	}
	drop := DisconnectRequested{
		CommandID: c.CommandID, ConnectionID: c.ConnectionID, TargetSystem: s.SystemID, Reason: c.Reason,
		CloseSockets: c.CloseSockets, Reconnect: c.Verb == VerbRestart,
	}
	switch c.Verb {
	case VerbStart:
		if !now.Stopped {
			return nil, nil
		}
		return []Data{ConnectionStarted{c.ConnectionCommand}}, nil
	case VerbStop:
		return []Data{ConnectionStopped{c.ConnectionCommand}, drop}, nil
	case VerbRestart:
		return []Data{ConnectionRestarted{c.ConnectionCommand}, drop}, nil
	case VerbDelete:
		return []Data{ConnectionDeleted{c.ConnectionCommand}, drop}, nil
	default:
		return nil, Invalid(CodeInvalidCommand, "a connection can be told to start, stop, restart or delete, not "+quote(string(c.Verb)))
	}
}

// SwitchRelay asks for a relay to be switched.
type SwitchRelay struct {
	DeviceID    DeviceID
	On          bool
	ToggleAfter time.Duration // after which the device switches back; 0 is never
	CommandID   string
}

// Decide fails with [CodeUnknownDevice]. It asks even when the relay is already
// as wanted, because what is known may be old.
func (c SwitchRelay) Decide(s *State) ([]Data, error) {
	if err := s.requireDevice(c.DeviceID); err != nil {
		return nil, err
	}
	return []Data{RelaySwitchRequested{
		CommandID: c.CommandID, DeviceID: c.DeviceID, On: c.On, ToggleAfterS: c.ToggleAfter.Seconds(),
	}}, nil
}

func (s *State) requireDevice(id DeviceID) error {
	if s.Devices[id] == nil {
		return Fail(KindNotFound, CodeUnknownDevice, "there is no device "+quote(string(id)))
	}
	return nil
}

func (s *State) requireEquipment(id EquipmentID) error {
	if eq := s.Equipment[id]; eq == nil || eq.Retired {
		return Fail(KindNotFound, CodeUnknownEquipment, "there is no equipment "+quote(string(id)))
	}
	return nil
}

func (s *State) requireConnection(id ConnectionID, match *Position) (*Connection, error) {
	now := s.Connections[id]
	if now == nil {
		return nil, Fail(KindNotFound, CodeUnknownConnection, "there is no connection "+quote(string(id)))
	}
	return now, requirePosition(now.Position, match)
}

func requireMatch(now *Assignment, want *Position) error {
	if now == nil {
		return requirePosition(Position{}, want)
	}
	err := requirePosition(now.Position, want)
	if err != nil {
		err.(*Error).With("equipmentId", now.EquipmentID)
	}
	return err
}

func requirePosition(now Position, want *Position) error {
	if want == nil || *want == now {
		return nil
	}
	return Fail(KindPrecondition, CodeStale, "it has changed since: look again and decide").With("position", now)
}

// requireObject checks a free object of a caller's.
func requireObject(raw json.RawMessage, code Code, limit int) error {
	if raw == nil || string(raw) == "null" {
		return nil
	}
	if len(raw) > limit {
		return Invalid(code, "attributes are limited to 4 KiB")
	}
	if bytes.TrimLeft(raw, " \t\r\n")[0] != '{' {
		return Invalid(code, "attributes must be a JSON object")
	}
	return nil
}
