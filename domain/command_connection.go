package domain

// CreateConnection adds a Shelly credential.
type CreateConnection struct{ ConnectionCreated }

// Validate fails with [CodeInvalidConnectionID] or [CodeInvalidCommand].
func (c CreateConnection) Validate() error {
	if err := checkConnection(c.ConnectionID, shortText("name", c.Name)); err != nil {
		return err
	}
	if c.Kind != ConnectionShellyCloud && c.Kind != ConnectionShellyOutbound {
		return Invalid(CodeInvalidCommand, "kind must be "+string(ConnectionShellyCloud)+" or "+
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
	CredentialKind ConnectionKind // the kind of connection that the new credential is for, if Credential is set
	IfMatch        *Position      // if set, the connection's current position must be equal
}

// Validate fails with [CodeInvalidConnectionID] or [CodeInvalidCommand].
func (c UpdateConnection) Validate() error {
	return checkConnection(c.ConnectionID, optionalText("name", c.Name))
}

// Requires implements [Command].
func (c UpdateConnection) Requires() Requirements {
	return Requirements{
		Action: ActionAdminister, Aggregate: AggregateConnection(c.ConnectionID),
		State: Needs{Connections: []ConnectionID{c.ConnectionID}},
	}
}

// Decide fails with [CodeUnknownConnection] or [CodeStale], and with [CodeInvalidCommand] if the credential is for a
// different kind of connection. If there is a new credential, it also asks every process to close the sockets that used
// the old one.
func (c UpdateConnection) Decide(s *State, commandID string) ([]Data, error) {
	c.CommandID = commandID
	now, err := s.requireConnection(c.ConnectionID, c.IfMatch)
	switch {
	case err != nil:
		return nil, err
	case c.Credential && c.CredentialKind != now.Kind:
		return nil, Invalid(CodeInvalidCommand, "connection "+quote(string(c.ConnectionID))+" is of kind "+string(now.Kind)+
			" and cannot have a credential of kind "+string(c.CredentialKind))
	case !c.Credential && leavesUnchanged(c.Name, now.Name):
		return nil, nil
	case !c.Credential:
		return []Data{c.ConnectionUpdated}, nil
	}
	return []Data{c.ConnectionUpdated, DisconnectRequested{
		CommandID: c.CommandID, ConnectionID: c.ConnectionID, TargetSystem: s.SystemID, Reason: "credential replaced", Reconnect: true,
	}}, nil
}

// ConnectionVerb is an operation of [ControlConnection].
type ConnectionVerb string

// The operations of [ControlConnection].
const (
	VerbStart   ConnectionVerb = "start"
	VerbStop    ConnectionVerb = "stop"
	VerbRestart ConnectionVerb = "restart"
	VerbDelete  ConnectionVerb = "delete"
)

// ControlConnection starts, stops, restarts or deletes a connection.
type ControlConnection struct {
	ConnectionCommand
	Verb         ConnectionVerb
	CloseSockets bool      // also close the browser sockets of the system
	IfMatch      *Position // if set, the connection's current position must be equal
}

// Validate fails with [CodeInvalidConnectionID] or [CodeInvalidCommand].
func (c ControlConnection) Validate() error {
	switch c.Verb {
	case VerbStart, VerbStop, VerbRestart, VerbDelete:
		return checkConnection(c.ConnectionID, longText("reason", c.Reason))
	default:
		return Invalid(CodeInvalidCommand, "the command must be start, stop, restart or delete, not "+quote(string(c.Verb)))
	}
}

// Requires implements [Command]. Deleting a connection takes a higher permission than stopping it.
func (c ControlConnection) Requires() Requirements {
	action := ActionCommand
	if c.Verb == VerbDelete {
		action = ActionAdminister
	}
	return Requirements{
		Action: action, Aggregate: AggregateConnection(c.ConnectionID),
		State: Needs{Connections: []ConnectionID{c.ConnectionID}},
	}
}

// Decide fails with [CodeUnknownConnection] or [CodeStale]. Every operation but start also asks every process to close
// the connection's sockets.
func (c ControlConnection) Decide(s *State, commandID string) ([]Data, error) {
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

func (s *State) requireConnection(id ConnectionID, match *Position) (*Connection, error) {
	now := s.Connections[id]
	if now == nil {
		return nil, Fail(KindNotFound, CodeUnknownConnection, "there is no connection "+quote(string(id)))
	}
	return now, requirePosition(now.Position, match)
}

func checkConnection(id ConnectionID, texts ...limitedText) error {
	if _, err := ParseConnectionID(string(id)); err != nil {
		return err
	}
	return requireTexts(CodeInvalidCommand, texts...)
}
