package domain

import "time"

// Socket describes one live client of any face, as every process of the deployment sees it.
type Socket struct {
	SocketID    string     `json:"socketId"`
	Node        string     `json:"node" doc:"The process that holds it"`
	Face        string     `json:"face" doc:"ws, sse, …"`
	Subject     string     `json:"subject" doc:"Of its token"`
	Role        Role       `json:"role"`
	Systems     []SystemID `json:"systems" doc:"The rooms that it is in, as far as the token may see them"`
	Remote      string     `json:"remote" doc:"Network address of the peer"`
	ConnectedAt time.Time  `json:"connectedAt"`
}

// LivesWithout reports whether a socket stays open when a command removes it from a system's room. It does if it is also
// in the rooms of other systems, over which the sender of the command may have no authority, or if it belongs to staff,
// because no system may cut staff off from the others. It is false if room is empty.
func (s *Socket) LivesWithout(room SystemID) bool {
	return room != "" && (s.Role == RoleStaff || len(s.Systems) > 1)
}
