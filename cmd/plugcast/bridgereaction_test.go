package main

import (
	"log/slog"
	"net/http"
	"testing"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/rooms"
	"github.com/plugcast/plugcast/transport/shelly"
)

// A disconnect of another deployment drops the device sockets of its connection
// that were open when it was given, and nothing else; a connection of the same id in
// another system is another one.
func TestDisconnectOfAnotherDeployment(t *testing.T) {
	t.Parallel()
	now, acc1 := time.Now(), shelly.Connection{System: "clinica-sol", ID: "acc1"}
	for name, c := range map[string]struct {
		system domain.SystemID
		origin string
		want   int // device sockets that go
		report bool
	}{
		"given elsewhere":                 {system: "clinica-sol", origin: "far", want: 1, report: true},
		"elsewhere, of another system's":  {system: "centro-luna", origin: "far"},
		"given here, of another system's": {system: "centro-luna", report: true},
		"given here":                      {system: "clinica-sol", want: 2, report: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			until := now.Add(time.Hour)
			held := &heldSockets{
				browsers: map[string]rooms.Socket{"b": {SocketID: "b", Systems: []domain.SystemID{"clinica-sol"}, ConnectedAt: now.Add(-time.Hour)}},
				shelly:   map[shelly.Connection][]time.Time{acc1: {now.Add(-time.Hour), now.Add(-time.Minute)}},
			}
			raised := &raisedBans{held: held}
			log := &reportLog{}
			d := newDisconnects("here", log, raised, slog.New(slog.DiscardHandler))
			d.browsers, d.shelly = held, []shellyDropper{held}
			request := domain.DisconnectRequested{
				CommandID: "c1", ConnectionID: "acc1", TargetSystem: c.system, CloseSockets: c.origin != "", BanUntil: &until,
			}
			e, err := domain.NewEvent(c.system, request, domain.Cause{})
			if err != nil {
				t.Fatal(err)
			}
			e.Position, e.Origin, e.Time = domain.Position{Ms: uint64(now.UnixMilli())}, c.origin, now.Add(-30*time.Minute)
			if err := d.react(t.Context(), e); err != nil {
				t.Fatal(err)
			}
			if gone := 2 - len(held.shelly[acc1]); gone != c.want || len(held.browsers) != 1 || len(raised.bans) != 0 {
				t.Errorf("%d device sockets went, %d clients are left, %d bans are raised", gone, len(held.browsers), len(raised.bans))
			}
			if reports := len(log.appended); (reports == 1) != c.report {
				t.Errorf("%d reports", reports)
			}
		})
	}
}

// What comes over a bridge may name any connection. That of the same id in another
// system is neither stopped nor let go.
func TestBridgedStopOfANamesake(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	n := d.start(t, "")
	plugs := simulate(t, createConnection(t, n, "centro-luna", "plugs"), "--devices", "1")
	defer plugs.powerCut()
	var id domain.DeviceID
	waitFor(t, "the plug", func() bool {
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
