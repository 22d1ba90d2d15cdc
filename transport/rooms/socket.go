package rooms

import (
	"time"

	"github.com/plugcast/plugcast/domain"
)

// Socket describes one live client of any face, for the list of all sockets of
// the deployment and for throwing some of them out.
type Socket struct {
	SocketID    string            `json:"socketId"`
	Face        string            `json:"face"` // ws, sse, …
	Subject     string            `json:"subject"`
	Role        domain.Role       `json:"role"`
	Systems     []domain.SystemID `json:"systems"` // that it has joined, ordered
	Remote      string            `json:"remote"`  // network address of the peer
	ConnectedAt time.Time         `json:"connectedAt"`
}

// LivesWithout reports whether a socket stays open when a command removes it from a
// system's room: it does if it is also in rooms of other systems, over which the sender
// of the command may have no authority, or if it belongs to staff, because no system
// may cut staff off from the others. It is false for no system.
func (s *Socket) LivesWithout(room domain.SystemID) bool {
	return room != "" && (s.Role == domain.RoleStaff || len(s.Systems) > 1)
}

// Dismissed is the reason that a socket is told that leaves a room by command.
func Dismissed(reason string) string {
	if reason == "" {
		return "taken out of the room by command"
	}
	return reason
}

// Registry is told of the sockets of a face. Its methods must not block. Calls
// for one socket come in order, the last is Remove.
type Registry interface {
	Put(Socket) // a new socket, or a change of one
	Remove(socketID string)
}
