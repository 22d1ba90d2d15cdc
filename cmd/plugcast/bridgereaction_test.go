package main

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/rooms"
)

// A disconnect of another deployment drops the device sockets of its connection
// that were open when it was given, and nothing else; a connection of another
// system is nobody's to speak of.
func TestDisconnectOfAnotherDeployment(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for name, c := range map[string]struct {
		may    bool
		origin string
		want   int // device sockets that go
		report bool
	}{
		"given elsewhere":                         {may: true, origin: "far", want: 1, report: true},
		"elsewhere, of another system's":          {origin: "far"},
		"given here, of another system's":         {report: true},
		"given here, as long as it may be spoken": {may: true, want: 2, report: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			until := now.Add(time.Hour)
			held := &heldSockets{
				browsers: map[string]rooms.Socket{"b": {SocketID: "b", Systems: []domain.SystemID{"clinica-sol"}, ConnectedAt: now.Add(-time.Hour)}},
				shelly:   map[domain.ConnectionID][]time.Time{"acc1": {now.Add(-time.Hour), now.Add(-time.Minute)}},
			}
			raised := &raisedBans{held: held}
			log := &reportLog{}
			d := newDisconnects("here", log, raised, slog.New(slog.DiscardHandler))
			d.browsers, d.shelly = held, []shellyDropper{held}
			d.speaksFor = func(context.Context, *domain.Event, domain.ConnectionID) (bool, error) { return c.may, nil }
			request := domain.DisconnectRequested{
				CommandID: "c1", ConnectionID: "acc1", TargetSystem: "clinica-sol", CloseSockets: c.origin != "", BanUntil: &until,
			}
			e, err := domain.NewEvent("clinica-sol", request, domain.Cause{})
			if err != nil {
				t.Fatal(err)
			}
			e.Position, e.Origin, e.Time = domain.Position{Ms: uint64(now.UnixMilli())}, c.origin, now.Add(-30*time.Minute)
			if err := d.react(t.Context(), e); err != nil {
				t.Fatal(err)
			}
			if gone := 2 - len(held.shelly["acc1"]); gone != c.want || len(held.browsers) != 1 || len(raised.bans) != 0 {
				t.Errorf("%d device sockets went, %d clients are left, %d bans are raised", gone, len(held.browsers), len(raised.bans))
			}
			if reports := len(log.appended); (reports == 1) != c.report {
				t.Errorf("%d reports", reports)
			}
		})
	}
}

// What comes over a bridge may name any connection, also one of another system: it
// is neither stopped nor let go.
func TestBridgedStopOfAnotherSystemsConnection(t *testing.T) {
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
		testToken(t, domain.RoleService, "clinica-sol"), events, nil)
	waitFor(t, "the process to have heard of it", func() bool {
		return strings.Count(n.output.tail(), "speaks of another system's connection") == 2
	})
	if _, outcome := switched(t, n.base, "centro-luna", id, true); outcome != domain.OutcomeCompleted {
		t.Errorf("the plug is switched with %s", outcome)
	}
}
