package main

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"testing"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/shelly/simulator"
	"github.com/plugcast/plugcast/transport/testpeer"
)

// A disconnect of another deployment drops the device sockets of its connection
// that were open when it was given, and nothing else: no clients, no bans, and no
// report where nothing was dropped. A connection of the same id in another system is
// another one.
func TestDisconnectOfAnotherDeployment(t *testing.T) {
	t.Parallel()
	now, acc1 := time.Now(), domain.ConnectionRef{System: "clinica-sol", ID: "acc1"}
	const sol, luna domain.SystemID = "clinica-sol", "centro-luna"
	ofConnection := domain.DisconnectRequested{ConnectionID: "acc1"}
	ofSubject := domain.DisconnectRequested{Subject: "maria"}
	for name, c := range map[string]struct {
		system  domain.SystemID
		origin  string
		request domain.DisconnectRequested
		devices int // whose sockets go
		clients int // whose sockets go
		bans    int
		report  bool
	}{
		"elsewhere, on a connection":            {sol, "far", ofConnection, 1, 0, 0, true},
		"elsewhere, on another's of this id":    {luna, "far", ofConnection, 0, 0, 0, false},
		"elsewhere, on a subject":               {sol, "far", ofSubject, 0, 0, 0, false},
		"here, on a connection and its clients": {sol, "", ofConnection, 2, 1, 0, true},
		"here, on another's of this id":         {luna, "", ofConnection, 0, 0, 0, true},
		"here, on a subject":                    {sol, "", ofSubject, 0, 1, 1, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			until := now.Add(time.Hour)
			held := &heldSockets{
				browsers: map[string]domain.Socket{
					"b": {SocketID: "b", Subject: "maria", Systems: []domain.SystemID{sol}, ConnectedAt: now.Add(-time.Hour)},
				},
				shelly: map[domain.ConnectionRef][]time.Time{acc1: {now.Add(-time.Hour), now.Add(-time.Minute)}},
			}
			raised := &raisedBans{held: held}
			log := &reportLog{}
			d := newDisconnects("here", log, raised, slog.New(slog.DiscardHandler))
			d.browsers, d.shelly = held, []shellyDropper{held}
			request := c.request
			request.CommandID, request.TargetSystem, request.CloseSockets, request.BanUntil = "c1", c.system, true, &until
			e, err := domain.NewEvent(c.system, request, domain.Cause{})
			if err != nil {
				t.Fatal(err)
			}
			e.Position, e.Origin, e.Time = domain.Position{Ms: uint64(now.UnixMilli())}, c.origin, now.Add(-30*time.Minute)
			if err := d.react(t.Context(), e); err != nil {
				t.Fatal(err)
			}
			if gone := 2 - len(held.shelly[acc1]); gone != c.devices {
				t.Errorf("%d device sockets went", gone)
			}
			if gone := 1 - len(held.browsers); gone != c.clients || len(raised.bans) != c.bans {
				t.Errorf("%d clients went, %d bans are raised", gone, len(raised.bans))
			}
			if reports := len(log.appended); (reports == 1) != c.report {
				t.Errorf("%d reports", reports)
			}
		})
	}
}

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
	bridged("disconnect-requested", time.Now(), map[string]any{"connectionId": "plugs", "commandId": "s1", "closeSockets": true, "reconnect": false})
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
	events := `{"event":"connection-stopped","position":"1-0","id":"a","systemId":"clinica-sol","time":"2026-11-23T18:00:00Z","actor":"x","version":1,` +
		`"data":{"connectionId":"plugs","commandId":"c1"}}
{"event":"disconnect-requested","position":"2-0","id":"b","systemId":"clinica-sol","time":"2090-11-23T18:00:00Z","actor":"x","version":1,` +
		`"data":{"connectionId":"plugs","commandId":"c1","closeSockets":true,"reconnect":false}}
`
	mustCall(t, http.StatusOK, "POST", n.base+"/api/v1/systems/clinica-sol/bridge/events?source=far&after=0-0&through=2-0",
		testToken(t, domain.RoleBridge, "clinica-sol"), events, nil)
	// A disconnect of the neighbour's own reports when the process has heard of all that.
	mustCall(t, http.StatusOK, "POST", n.base+"/api/v1/disconnects?wait=20s", testToken(t, domain.RoleAdmin, "clinica-sol"), `{"systemId":"clinica-sol"}`, nil)
	if _, outcome := switched(t, n.base, "centro-luna", id, true); outcome != domain.OutcomeCompleted {
		t.Errorf("the plug is switched with %s", outcome)
	}
}
