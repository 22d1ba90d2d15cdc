package ws

import (
	"testing"

	"github.com/plugcast/plugcast/domain"
)

// Clients distinguish frames of the server from events by name alone, so no event may
// have the name of a frame.
func TestNamesOfFramesAreNoNamesOfEvents(t *testing.T) {
	t.Parallel()
	for _, name := range []string{
		eventConnectionStatus, eventJoinSystem, eventJoined, eventSnapshot, eventLeaveSystem, eventLeft, eventJoinAdmin, eventLeaveAdmin,
		eventAuthenticate, eventAuthenticated, eventPing, eventPong, eventHeartbeat, eventForcedDisconnect, eventError,
	} {
		e := domain.Event{Type: domain.EventType(name), Version: 1, SystemID: "clinica-sol", Data: []byte(`{}`)}
		if e.Canonicalize() == nil {
			t.Errorf("the log takes an event with the name of the frame %s", name)
		}
	}
}
