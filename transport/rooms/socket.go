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

// Registry is told of the sockets of a face. Its methods must not block. Calls
// for one socket come in order, the last is Remove.
type Registry interface {
	Put(Socket) // a new socket, or a change of one
	Remove(socketID string)
}
