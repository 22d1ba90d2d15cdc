// Package clienttest has what the tests of client sockets stand on, in memory: the
// events that rooms read, tokens, bans, the list of sockets, the metrics feed.
package clienttest

import (
	"fmt"
	"log/slog"
	"testing"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/rooms"
)

// The systems of the tests.
const (
	Sol  domain.SystemID = "clinica-sol"
	Luna domain.SystemID = "centro-luna"
)

// NewHub makes a hub on a source. It is closed after the test, behind everything
// that is cleaned up later than this call.
func NewHub(t testing.TB, source rooms.Source, config rooms.Config) *rooms.Hub {
	t.Helper()
	hub, err := rooms.New(source, config, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(hub.Close)
	return hub
}

// Update is a device that draws so many watts, or is off at none.
func Update(device string, watts float64) domain.Data {
	return domain.DeviceUpdate{DeviceID: domain.DeviceID(device), RelayOn: domain.Some(watts > 0), PowerW: domain.Some(watts)}
}

// Updates are n updates of three devices in turn, no two alike.
func Updates(n int) []domain.Data {
	out := make([]domain.Data, n)
	for i := range out {
		out[i] = Update(fmt.Sprint("plug-", i%3), float64(i))
	}
	return out
}

// RequireEvents demands exactly these events, with the same places, ids and data.
func RequireEvents(t testing.TB, got, wanted []domain.Event) {
	t.Helper()
	for i := range min(len(got), len(wanted)) {
		if g, w := &got[i], &wanted[i]; g.Cursor() != w.Cursor() || g.ID != w.ID || string(g.Data) != string(w.Data) {
			t.Fatalf("event %d is %s %s, not %s %s", i, g.Cursor(), g.Data, w.Cursor(), w.Data)
		}
	}
	if len(got) != len(wanted) {
		t.Fatalf("%d events, not %d", len(got), len(wanted))
	}
}
