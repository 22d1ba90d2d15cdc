package domain

import "time"

// MaxBan is the longest time for which a disconnected client can be kept from reconnecting.
const MaxBan = 24 * time.Hour

// Disconnect asks every process to disconnect the clients that match all the given fields. Execute it in the system that
// [DisconnectRequested.RecordedIn] returns.
type Disconnect struct{ DisconnectRequested }

// Validate fails with [CodeInvalidCommand] for a request that matches every socket.
func (c Disconnect) Validate() error {
	if c.TargetSystem == "" && c.SocketID == "" && c.Subject == "" && c.Role == "" {
		return Invalid(CodeInvalidCommand,
			"name a system, a socket, a subject or a role; a request without any of them would disconnect everybody")
	}
	return c.validate(CodeInvalidCommand)
}

// Requires implements [Command].
func (c Disconnect) Requires() Requirements { return Requirements{Action: ActionAdminister} }

// Decide fails with [CodeForbidden] in every system but the one that [DisconnectRequested.RecordedIn] returns: the
// administrator of one system must not close the sockets of another.
func (c Disconnect) Decide(s *State, commandID string) ([]Data, error) {
	if s.SystemID != c.RecordedIn() {
		return nil, Fail(KindForbidden, CodeForbidden, "a request in system "+quote(string(s.SystemID))+
			" cannot disconnect the sockets of system "+quote(string(c.TargetSystem)))
	}
	c.CommandID = commandID
	return []Data{c.DisconnectRequested}, nil
}
