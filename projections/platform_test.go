package projections_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plugcast/plugcast/domain"
)

func TestPlatformReads(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ctx := t.Context()
	log := newScript()
	ms := uint64(1000)
	add := func(system domain.SystemID, data domain.Data) {
		ms++
		log.add(must(t, system, ms, data))
	}
	for _, system := range []domain.SystemID{"sol-1", "luna-2", "mar-1"} { // sol and mar share a partition
		for _, id := range []domain.ConnectionID{"a", "b"} {
			add(system, domain.ConnectionCreated{ConnectionID: id, Kind: domain.ConnectionShellyCloud, Name: string(system)})
		}
		for i, id := range []domain.DeviceID{"p", "p:1", "p:12", "p:", "p1", "p-1", "p.1", "p_", "q", "o"} {
			add(system, domain.DeviceUpdate{DeviceID: id, ConnectionID: domain.Some(domain.ConnectionID([]string{"a", "b"}[i%2]))})
		}
		add(system, domain.DeviceUpdate{DeviceID: "free"})
	}
	projectAll(t, b.store, log)

	connections, err := b.store.ConnectionsIn(ctx, partitionOf("sol-1"))
	var got []string
	for _, c := range connections {
		got = append(got, fmt.Sprint(c.System, " ", c.ConnectionID, " ", c.Name))
	}
	if want := []string{"mar-1 a mar-1", "mar-1 b mar-1", "sol-1 a sol-1", "sol-1 b sol-1"}; err != nil || !cmp.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	if c, err := b.store.ConnectionOf(ctx, "luna-2", "a"); err != nil || c.Name != "luna-2" {
		t.Errorf("%+v, %v", c, err)
	}
	for _, system := range []domain.SystemID{"luna-2", "nobody-0", "*", "luna-2,sol-1"} {
		if _, err := b.store.ConnectionOf(ctx, system, "c"); !domain.HasCode(err, domain.CodeUnknownConnection) {
			t.Errorf("%s: %v", system, err)
		}
	}
	ids := func(devices []*domain.Device, err error) (list []domain.DeviceID) {
		if err != nil {
			t.Error(err)
		}
		for _, d := range devices {
			list = append(list, d.DeviceID)
		}
		return list
	}
	for _, c := range []struct{ most, inConnection, inSystem int }{{100, 5, 11}, {4, 4, 4}, {0, 0, 0}} {
		n, err := b.store.CountDevices(ctx, "sol-1", "a", c.most)
		if n != c.inConnection || err != nil {
			t.Errorf("counting to %d in the connection: %d, %v", c.most, n, err)
		}
		known, n, err := b.store.FindDevices(ctx, "sol-1", []domain.DeviceID{"p", "q", "nope"}, c.most)
		slices.Sort(known)
		if !slices.Equal(known, []domain.DeviceID{"p", "q"}) || n != c.inSystem || err != nil {
			t.Errorf("counting to %d in the system: %v and %d, %v", c.most, known, n, err)
		}
	}
	if diff := cmp.Diff([]domain.DeviceID{"p", "p:1", "p:12"}, ids(b.store.Channels(ctx, "sol-1", "p"))); diff != "" {
		t.Error(diff)
	}
	some, err := b.store.DevicesAt(ctx, "sol-1", []domain.DeviceID{"p", "q", "nope"}, domain.Position{Ms: 1001})
	if err != nil || len(some) != 2 || some["p"] == nil || some["q"].DeviceID != "q" {
		t.Errorf("%v, %v", some, err)
	}
	if got := ids(b.store.Channels(ctx, "sol-1", "nope")); got != nil {
		t.Errorf("%v", got)
	}
	if diff := cmp.Diff([]domain.DeviceID{"p", "p.1", "p1", "p:12", "q"}, ids(b.store.DevicesOf(ctx, "sol-1", "a"))); diff != "" {
		t.Error(diff)
	}
	if got := ids(b.store.DevicesOf(ctx, "sol-1", "nope")); got != nil {
		t.Errorf("%v", got)
	}
}

// A text with an escaped NUL, which is valid JSON, must not make queries on its row fail.
func TestQueriesReadNoDocuments(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const system = domain.SystemID("nul-0")
	nul := "rack\x00"
	log := newScript(
		must(t, system, 1000, domain.DeviceUpdate{DeviceID: "d", Name: domain.Some(nul), ConnectionID: domain.Some(domain.ConnectionID("c-1"))}),
		must(t, system, 1001, domain.DeviceUpdate{DeviceID: "e", Errors: domain.Some([]string{nul}),
			ConnectionID: domain.Some(domain.ConnectionID("c-1"))}),
		must(t, system, 1002, domain.DeviceUpdate{DeviceID: "f", ConnectionID: domain.Some(domain.ConnectionID("c-2"))}),
	)
	projectAll(t, b.store, log)
	devices, err := b.store.DevicesOf(t.Context(), system, "c-1")
	if err != nil || len(devices) != 2 || *devices[0].Name != nul {
		t.Fatalf("%d devices, %v", len(devices), err)
	}
}
