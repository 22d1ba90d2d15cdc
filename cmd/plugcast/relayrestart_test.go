package main

import (
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/shelly/simulator"
	"github.com/plugcast/plugcast/transport/testpeer"
)

// A relay command that is given while its connection is stopped or restarts ends once, and
// before the time at which a holder must have answered: the plug that is back soon
// was not there to be told, and says nothing.
func TestRelayCommandWhileAConnectionRestarts(t *testing.T) {
	t.Parallel()
	const system domain.SystemID = "clinica-sol"
	d := newDeployment(t)
	here, there := d.start(t, ""), d.start(t, "", "--roles", "gateway")
	url := createConnection(t, here, system, "acc1")
	plug := dialledIn(t, dialIn(url, there), simulator.FleetConfig{Devices: 1, Seed: 5}).Plugs()[0]
	testpeer.Eventually(t, "the plug to be known", func() bool { return relayIs(devices(t, here.base, system), plug.ID(), true) })

	operator, commands := testToken(t, domain.RoleOperator, system), map[string]domain.Outcome{}
	relay := here.base + "/api/v1/systems/" + string(system) + "/devices/" + string(plug.ID()) + "/relay"
	connection := here.base + "/api/websocket/acc1/"
	ended := func(what, commandID string) {
		testpeer.Within(t, 15*time.Second, what, func() bool {
			return slices.ContainsFunc(history(t, here.base, system), func(e domain.Event) bool {
				if e.Type != domain.TypeRelaySwitchCompleted || e.CausationID != commandID {
					return false
				}
				data, err := e.Decode()
				commands[commandID] = data.(domain.RelaySwitchCompleted).Outcome
				return err == nil
			})
		})
	}
	var given struct{ CommandID string }

	mustCall(t, http.StatusOK, "POST", connection+"stop?wait=20s", operator, map[string]string{"reason": "holiday"}, nil)
	mustCall(t, http.StatusAccepted, "POST", relay, operator, map[string]any{"on": false}, &given)
	mustCall(t, http.StatusOK, "POST", connection+"start?wait=20s", operator, nil, nil)
	testpeer.Eventually(t, "the plug to be back", plug.Connected)
	ended("the outcome of a command that was given to nobody", given.CommandID)
	if on, _, _ := plug.State(0); !on || commands[given.CommandID] != domain.OutcomeFailed {
		t.Errorf("a plug that was away is on: %t, and the command: %s", on, commands[given.CommandID])
	}

	for range 6 {
		mustCall(t, http.StatusAccepted, "POST", connection+"restart", operator, map[string]string{"reason": "test"}, nil)
		for _, on := range []bool{true, false} {
			mustCall(t, http.StatusAccepted, "POST", relay, operator, map[string]any{"on": on}, &given)
			ended("the outcome of a command during a restart", given.CommandID)
		}
	}
	outcomes := map[string]int{}
	for _, e := range history(t, here.base, system) {
		if e.Type == domain.TypeRelaySwitchCompleted {
			outcomes[e.CausationID]++
		}
	}
	for id := range commands {
		if outcomes[id] != 1 {
			t.Errorf("command %s has %d outcomes", id, outcomes[id])
		}
	}
}
