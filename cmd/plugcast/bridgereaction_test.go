package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"testing"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/shelly/simulator"
	"github.com/plugcast/plugcast/transport/testpeer"
)

// Commands of another deployment on a connection whose devices dial in here are
// carried out here: the stop, the start, and a relay command that is not too old.
func TestBridgedCommandsOnOurConnection(t *testing.T) {
	t.Parallel()
	const system domain.SystemID = "centro-luna"
	d := newDeployment(t)
	n := d.start(t, "")
	plug := dialledIn(t, createConnection(t, n, system, "plugs"), simulator.FleetConfig{Devices: 1, Seed: 3}).Plugs()[0]
	testpeer.Eventually(t, "the plug to be known", func() bool { return relayIs(devices(t, n.base, system), plug.ID(), true) })
	taken := 0
	bridged := func(event string, given time.Time, data map[string]any) {
		line, err := json.Marshal(map[string]any{
			"event": event, "position": fmt.Sprint(taken+1, "-0"), "id": fmt.Sprint("far-", taken), "systemId": system,
			"time": domain.FormatTime(given), "actor": "x", "version": 1, "data": data,
		})
		if err != nil {
			t.Fatal(err)
		}
		url := fmt.Sprintf("%s/api/v1/systems/%s/bridge/events?source=far&after=%d-0&through=%d-0", n.base, system, taken, taken+1)
		mustCall(t, http.StatusOK, "POST", url, testToken(t, domain.RoleBridge, system), string(line)+"\n", nil)
		taken++
	}
	relay := func(commandID string, given time.Time, on bool) {
		bridged("relay-switch-requested", given, map[string]any{"commandId": commandID, "deviceId": plug.ID(), "on": on})
	}
	relay("old", time.Now().Add(-time.Minute), false)
	relay("fresh", time.Now(), false)
	testpeer.Eventually(t, "the relay to be switched", func() bool { on, _, _ := plug.State(0); return !on })
	relay("later", time.Now(), true)
	testpeer.Eventually(t, "the relay to be switched back", func() bool { on, _, _ := plug.State(0); return on })
	outcomes := map[string]domain.Outcome{}
	testpeer.Eventually(t, "both outcomes", func() bool {
		for _, e := range history(t, n.base, system) {
			if data, _ := e.Decode(); e.Type == domain.TypeRelaySwitchCompleted {
				outcomes[e.CausationID] = data.(domain.RelaySwitchCompleted).Outcome
			}
		}
		return len(outcomes) >= 2
	})
	if want := map[string]domain.Outcome{"fresh": domain.OutcomeCompleted, "later": domain.OutcomeCompleted}; !maps.Equal(outcomes, want) {
		t.Errorf("the outcomes are %v, want %v", outcomes, want)
	}

	bridged("connection-stopped", time.Now(), map[string]any{"connectionId": "plugs", "commandId": "s1"})
	bridged("disconnect-requested", time.Now(),
		map[string]any{"connectionId": "plugs", "commandId": "s1", "closeSockets": true, "reconnect": false})
	testpeer.Eventually(t, "the plug to be refused", func() bool { return !plug.Connected() && plug.Refused() == http.StatusForbidden })
	bridged("connection-started", time.Now(), map[string]any{"connectionId": "plugs", "commandId": "s2"})
	testpeer.Eventually(t, "the plug to be let in", plug.Connected)
}

// A bridged event may name any connection. It neither stops nor starts the connection
// of the same id in another system.
func TestBridgedStopOfANamesake(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	n := d.start(t, "")
	plugs := simulate(t, createConnection(t, n, "centro-luna", "plugs"), "--devices", "1")
	defer plugs.powerCut()
	var id domain.DeviceID
	testpeer.Eventually(t, "the plug", func() bool {
		for device := range devices(t, n.base, "centro-luna") {
			id = device
		}
		return id != ""
	})
	events := `{"event":"connection-stopped","position":"1-0","id":"a","systemId":"clinica-sol",` +
		`"time":"2026-11-23T18:00:00Z","actor":"x","version":1,` +
		`"data":{"connectionId":"plugs","commandId":"c1"}}
{"event":"disconnect-requested","position":"2-0","id":"b","systemId":"clinica-sol","time":"2090-11-23T18:00:00Z","actor":"x","version":1,` +
		`"data":{"connectionId":"plugs","commandId":"c1","closeSockets":true,"reconnect":false}}
`
	mustCall(t, http.StatusOK, "POST", n.base+"/api/v1/systems/clinica-sol/bridge/events?source=far&after=0-0&through=2-0",
		testToken(t, domain.RoleBridge, "clinica-sol"), events, nil)
	// A disconnect of the neighbour's own reports when the process has heard of all that.
	mustCall(t, http.StatusOK, "POST", n.base+"/api/v1/disconnects?wait=20s",
		testToken(t, domain.RoleAdmin, "clinica-sol"), `{"systemId":"clinica-sol"}`, nil)
	if _, outcome := switched(t, n.base, "centro-luna", id, true); outcome != domain.OutcomeCompleted {
		t.Errorf("the plug is switched with %s", outcome)
	}
}
