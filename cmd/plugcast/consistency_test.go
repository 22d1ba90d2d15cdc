package main

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/plugcast/plugcast/domain"
)

// What one node has acknowledged, another answers for at once: a read that names
// the position sees it, and a command decides on it without being told.
func TestReadYourOwnWritesAtAnotherNode(t *testing.T) {
	t.Parallel()
	const system domain.SystemID = "clinica-sol"
	d := newDeployment(t)
	nodes := []*node{d.start(t, ""), d.start(t, "", "--roles", "gateway")}
	service, operator := testToken(t, domain.RoleService, system), testToken(t, domain.RoleOperator, system)
	for i := range 25 {
		here, there := nodes[i%2].base, nodes[(i+1)%2].base+"/api/v1/systems/"+string(system)
		device, thing := fmt.Sprintf("plug-%d", i), fmt.Sprintf("laser-%d", i)
		mustCall(t, http.StatusAccepted, "POST", here+"/api/v1/systems/"+string(system)+"/equipment", operator,
			map[string]string{"equipmentId": thing, "name": "Laser"}, nil)
		publish := func(update map[string]any) domain.Position {
			update["systemId"] = system
			var published struct {
				Positions map[domain.SystemID]domain.PositionRange
			}
			mustCall(t, http.StatusOK, "POST", here+"/api/v1/device-updates", service, []any{update}, &published)
			return published.Positions[system].Last
		}
		publish(map[string]any{"deviceId": device})
		mustCall(t, http.StatusAccepted, "PUT", there+"/devices/"+device+"/assignment", operator, map[string]string{"equipmentId": thing}, nil)

		at := publish(map[string]any{"deviceId": "counter", "powerW": i})
		var list struct{ Devices []domain.Device }
		mustCall(t, http.StatusOK, "GET", fmt.Sprintf("%s/devices?after-position=%s&limit=1000", there, at), operator, nil, &list)
		if len(list.Devices) != i+2 {
			t.Fatalf("round %d: %d devices", i, len(list.Devices))
		}
		var counter struct{ PowerW *float64 }
		mustCall(t, http.StatusOK, "GET", fmt.Sprintf("%s/devices/counter?after-position=%s", there, at), operator, nil, &counter)
		if counter.PowerW == nil || *counter.PowerW != float64(i) {
			t.Fatalf("round %d: the device is %+v", i, counter)
		}
	}
}
