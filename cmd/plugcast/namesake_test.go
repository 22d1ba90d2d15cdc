package main

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/testpeer"
)

// Two systems use the same connection id, and their plugs have the same names: all
// of them are in, and what is done to one system's is not done to the other's.
func TestSameNames(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	n := d.start(t, "")
	names := map[domain.SystemID][]domain.DeviceID{}
	systems := []domain.SystemID{"clinica-sol", "centro-luna"}
	for _, system := range systems {
		simulate(t, createConnection(t, n, system, "plugs"), "--devices", "2", "--seed", "7")
	}
	for _, system := range systems {
		testpeer.Eventually(t, "the plugs of "+string(system), func() bool {
			var online []domain.DeviceID
			for id, device := range devices(t, n.base, system) {
				if device.Online != nil && *device.Online {
					online = append(online, id)
				}
			}
			slices.Sort(online)
			names[system] = online
			return len(online) == 2
		})
	}
	if !slices.Equal(names[systems[0]], names[systems[1]]) {
		t.Fatalf("the plugs are not namesakes: %v", names)
	}
	staff := testToken(t, domain.RoleStaff)
	_, _, answer, err := call(t.Context(), "POST", n.base+"/api/websocket/plugs/stop", staff, nil)
	if err != nil || !strings.Contains(string(answer), string(domain.CodeAmbiguousConnection)) ||
		!strings.Contains(string(answer), "?systemId=") {
		t.Errorf("a command that could mean either: %s, %v", answer, err)
	}
	var stopped struct {
		Outcome domain.Outcome
		Nodes   []struct{ ShellySockets int }
	}
	mustCall(t, http.StatusOK, "POST", n.base+"/api/websocket/plugs/stop?systemId=clinica-sol&wait=20s", staff, nil, &stopped)
	if stopped.Outcome != domain.OutcomeCompleted || len(stopped.Nodes) != 1 || stopped.Nodes[0].ShellySockets != 2 {
		t.Errorf("%+v", stopped)
	}
	for _, id := range names["centro-luna"] {
		if _, outcome := switched(t, n.base, "centro-luna", id, true); outcome != domain.OutcomeCompleted {
			t.Errorf("%s of the other system is switched with %s", id, outcome)
		}
	}
	// A token that names one of them means that one.
	own := testToken(t, domain.RoleStaff, "centro-luna")
	mustCall(t, http.StatusOK, "POST", n.base+"/api/websocket/plugs/restart?wait=20s", own, nil, &stopped)
	if stopped.Nodes[0].ShellySockets != 2 {
		t.Errorf("a restart of one's own: %+v", stopped)
	}
	mustCall(t, http.StatusAccepted, "DELETE", n.base+"/api/v1/systems/clinica-sol/connections/plugs", staff, nil, nil)
	testpeer.Eventually(t, "the other's to be back", func() bool {
		_, _, answer, err := call(t.Context(), "POST",
			n.base+"/api/v1/systems/centro-luna/devices/"+string(names["centro-luna"][0])+"/relay?wait=2s",
			testToken(t, domain.RoleOperator, "centro-luna"), map[string]any{"on": false})
		return err == nil && strings.Contains(string(answer), string(domain.OutcomeCompleted))
	})
}
