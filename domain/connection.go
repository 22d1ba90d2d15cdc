package domain

import (
	"fmt"
	"time"
)

// The commands on connections, relays and sockets. For what a Decide does, see
// decision.go.

// CreateConnection adds a Shelly credential.
type CreateConnection struct{ ConnectionCreated }

// Validate fails with [CodeInvalidConnectionID] or [CodeInvalidCommand].
func (c CreateConnection) Validate() error {
	if err := checkConnection(c.ConnectionID, short("name", c.Name)); err != nil {
		return err
	}
	if c.Kind != ConnectionShellyCloud && c.Kind != ConnectionShellyOutbound {
		return Invalid(CodeInvalidCommand, "a connection is of kind "+string(ConnectionShellyCloud)+" or "+
			string(ConnectionShellyOutbound)+", not "+quote(string(c.Kind)))
	}
	return nil
}

// Requires implements [Command].
func (c CreateConnection) Requires() Requirements {
	return Requirements{
		Action: ActionAdminister, Aggregate: AggregateConnection(c.ConnectionID),
		State: Needs{Connections: []ConnectionID{c.ConnectionID}},
	}
}

// Decide fails with [CodeConnectionExists].
func (c CreateConnection) Decide(s *State, _ string) ([]Data, error) {
	if s.Connections[c.ConnectionID] != nil {
		return nil, Fail(KindConflict, CodeConnectionExists, "connection "+quote(string(c.ConnectionID))+" already exists")
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

// Validate fails with [CodeInvalidConnectionID] or [CodeInvalidCommand].
func (c UpdateConnection) Validate() error {
	return checkConnection(c.ConnectionID, optionalShort("name", c.Name))
}

// Requires implements [Command].
func (c UpdateConnection) Requires() Requirements {
	return Requirements{
		Action: ActionAdminister, Aggregate: AggregateConnection(c.ConnectionID),
		State: Needs{Connections: []ConnectionID{c.ConnectionID}},
	}
}

// Decide fails with [CodeUnknownConnection], [CodeStale] or, when the credential
// is not one for a connection of this kind, [CodeInvalidCommand]. With a new
// credential it also asks every process to drop what the old one let in.
func (c UpdateConnection) Decide(s *State, commandID string) ([]Data, error) {
	c.CommandID = commandID
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

// Validate fails with [CodeInvalidConnectionID] or [CodeInvalidCommand].
func (c CommandConnection) Validate() error {
	switch c.Verb {
	case VerbStart, VerbStop, VerbRestart, VerbDelete:
		return checkConnection(c.ConnectionID, long("reason", c.Reason))
	default:
		return Invalid(CodeInvalidCommand, "a connection can be told to start, stop, restart or delete, not "+quote(string(c.Verb)))
	}
}

// Requires implements [Command]. To delete a connection takes more than to stop
// it.
func (c CommandConnection) Requires() Requirements {
	action := ActionCommand
	if c.Verb == VerbDelete {
		action = ActionAdminister
	}
	return Requirements{
		Action: action, Aggregate: AggregateConnection(c.ConnectionID),
		State: Needs{Connections: []ConnectionID{c.ConnectionID}},
	}
}

// Decide fails with [CodeUnknownConnection] or [CodeStale]. All but start also ask every
// process to drop the connection's sockets.
func (c CommandConnection) Decide(s *State, commandID string) ([]Data, error) {
	c.CommandID = commandID
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
	default: // VerbDelete
		return []Data{ConnectionDeleted{c.ConnectionCommand}, drop}, nil
	}
}

// MaxToggleAfter bounds how long a relay may wait to switch back.
const MaxToggleAfter = 24 * time.Hour

// SwitchRelay asks for a relay to be switched.
type SwitchRelay struct {
	DeviceID    DeviceID
	On          bool
	ToggleAfter time.Duration // after which the device switches back; 0 is never
}

// Validate fails with [CodeInvalidDeviceID] or [CodeInvalidCommand].
func (c SwitchRelay) Validate() error {
	if c.ToggleAfter < 0 || c.ToggleAfter > MaxToggleAfter {
		return Invalid(CodeInvalidCommand, fmt.Sprintf("toggleAfter must be 0 to %v", MaxToggleAfter))
	}
	_, err := ParseDeviceID(string(c.DeviceID))
	return err
}

// Requires implements [Command]. Nothing conflicts with it: two of them are done
// one after the other.
func (c SwitchRelay) Requires() Requirements {
	return Requirements{Action: ActionCommand, State: Needs{Devices: []DeviceID{c.DeviceID}}}
}

// Decide fails with [CodeUnknownDevice]. It asks even when the relay is already
// as wanted, because what is known may be old.
func (c SwitchRelay) Decide(s *State, commandID string) ([]Data, error) {
	if err := s.requireDevice(c.DeviceID); err != nil {
		return nil, err
	}
	return []Data{RelaySwitchRequested{
		CommandID: commandID, DeviceID: c.DeviceID, On: c.On, ToggleAfterS: c.ToggleAfter.Seconds(),
	}}, nil
}

// MaxBan is the longest time a disconnected client can be kept from
// reconnecting.
const MaxBan = 24 * time.Hour

// Disconnect asks every process to close the sockets that match. It belongs into
// the log of the system that [DisconnectRequested.RecordedIn] names.
type Disconnect struct{ DisconnectRequested }

// RecordedIn is the system whose log has the request, and the answers of the
// processes: the target or, for a request that names no system,
// [PlatformSystem], where only staff may write.
func (d *DisconnectRequested) RecordedIn() SystemID {
	if d.TargetSystem == "" {
		return PlatformSystem
	}
	return d.TargetSystem
}

// Validate fails with [CodeInvalidCommand] for a request that matches everybody.
func (c Disconnect) Validate() error {
	if c.TargetSystem == "" && c.SocketID == "" && c.Subject == "" && c.Role == "" {
		return Invalid(CodeInvalidCommand, "name a system, a socket, a subject or a role, or everybody would be disconnected")
	}
	return c.validate(CodeInvalidCommand)
}

// Requires implements [Command].
func (c Disconnect) Requires() Requirements { return Requirements{Action: ActionAdminister} }

// Decide fails with [CodeForbidden] in any system but the one of
// [DisconnectRequested.RecordedIn]: an actor who administers one system must not
// close the sockets of another.
func (c Disconnect) Decide(s *State, commandID string) ([]Data, error) {
	if s.SystemID != c.RecordedIn() {
		return nil, Fail(KindForbidden, CodeForbidden, "a disconnect of system "+quote(string(c.TargetSystem))+
			" cannot be asked for in system "+quote(string(s.SystemID)))
	}
	c.CommandID = commandID
	return []Data{c.DisconnectRequested}, nil
}

func (s *State) requireConnection(id ConnectionID, match *Position) (*Connection, error) {
	now := s.Connections[id]
	if now == nil {
		return nil, Fail(KindNotFound, CodeUnknownConnection, "there is no connection "+quote(string(id)))
	}
	return now, requirePosition(now.Position, match)
}

func checkConnection(id ConnectionID, texts ...boundedText) error {
	if _, err := ParseConnectionID(string(id)); err != nil {
		return err
	}
	return requireTexts(CodeInvalidCommand, texts...)
}
