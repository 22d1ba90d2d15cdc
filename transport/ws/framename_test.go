package ws

import (
	"testing"

	"github.com/plugcast/plugcast/domain"
)

// A client tells the frames of the server from events by their names alone.
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
