package projections_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/projections"
)

// Pages hold what the fold has, in order of id, and each row can be read by
// itself.
func TestListsAndSingleReads(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const system = domain.SystemID("list-1")
	log := newScript()
	ms := uint64(1000)
	add := func(data domain.Data) {
		ms++
		log.add(must(t, system, ms, data))
	}
	for _, id := range []string{"b", "a", "C", "c", "_", "a:2", "a-1"} { // an order that locales would not agree on
		thing := domain.EquipmentID("e" + strings.ReplaceAll(id, ":", "."))
		add(domain.DeviceUpdate{DeviceID: domain.DeviceID(id), Online: domain.Some(true), Attributes: json.RawMessage(`{ "a": "<" }`)})
		add(domain.EquipmentRegistered{EquipmentID: thing, Name: "Laser", Attributes: json.RawMessage(`{ }`)})
		add(domain.AssignmentUpdated{DeviceID: domain.DeviceID(id), EquipmentID: &thing})
		add(domain.ConnectionCreated{ConnectionID: domain.ConnectionID(id), Kind: domain.ConnectionShellyCloud})
	}
	projectAll(t, b.store, log)
	want := naively(log.events[partitionOf(system)])[system].state.Snapshot()
	got, err := b.store.Snapshot(t.Context(), system)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("snapshot (-folded +read)\n%s", diff)
	}
	ctx := t.Context()
	checkList(t, want.Devices,
		func(after domain.DeviceID) ([]*domain.Device, error) {
			return b.store.Devices(ctx, staff, system, after, 3)
		},
		func(id domain.DeviceID) (*domain.Device, error) { return b.store.Device(ctx, staff, system, id) },
		func(d *domain.Device) domain.DeviceID { return d.DeviceID }, domain.CodeUnknownDevice)
	checkList(t, want.Equipment,
		func(after domain.EquipmentID) ([]*domain.Equipment, error) {
			return b.store.Equipment(ctx, staff, system, after, 3)
		},
		func(id domain.EquipmentID) (*domain.Equipment, error) {
			return b.store.EquipmentByID(ctx, staff, system, id)
		},
		func(e *domain.Equipment) domain.EquipmentID { return e.EquipmentID }, domain.CodeUnknownEquipment)
	checkList(t, want.Assignments,
		func(after domain.DeviceID) ([]*domain.Assignment, error) {
			return b.store.Assignments(ctx, staff, system, after, 3)
		},
		func(id domain.DeviceID) (*domain.Assignment, error) {
			return b.store.Assignment(ctx, staff, system, id)
		},
		func(a *domain.Assignment) domain.DeviceID { return a.DeviceID }, domain.CodeNotAssigned)
	checkList(t, want.Connections,
		func(after domain.ConnectionID) ([]*domain.Connection, error) {
			return b.store.Connections(ctx, staff, system, after, 3)
		},
		func(id domain.ConnectionID) (*domain.Connection, error) {
			return b.store.Connection(ctx, staff, system, id)
		},
		func(c *domain.Connection) domain.ConnectionID { return c.ConnectionID }, domain.CodeUnknownConnection)
}

func checkList[T any, K ~string](t *testing.T, want []*T, page func(K) ([]*T, error), single func(K) (*T, error), id func(*T) K, missing domain.Code) {
	t.Helper()
	var all []*T
	for after := K(""); ; after = id(all[len(all)-1]) {
		rows, err := page(after)
		if err != nil {
			t.Fatal(err)
		}
		if len(rows) == 0 {
			break
		}
		all = append(all, rows...)
	}
	if diff := cmp.Diff(want, all); diff != "" {
		t.Errorf("pages (-folded +read)\n%s", diff)
	}
	for _, row := range want {
		got, err := single(id(row))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(row, got); diff != "" {
			t.Errorf("(-folded +read)\n%s", diff)
		}
	}
	if _, err := single("nothing"); !domain.HasCode(err, missing) {
		t.Errorf("a row that is not there: %v", err)
	}
}

// Two systems may have a connection of the same id: who sees both has to say
// which.
func TestSystemOfConnection(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var events []domain.Event
	for i, system := range []domain.SystemID{"one-1", "two-2"} {
		events = append(events,
			must(t, system, uint64(1000+i), domain.ConnectionCreated{ConnectionID: "shared", Kind: domain.ConnectionShellyCloud}),
			must(t, system, uint64(2000+i), domain.ConnectionCreated{ConnectionID: domain.ConnectionID(system), Kind: domain.ConnectionShellyCloud}))
	}
	projectAll(t, b.store, newScript(events...))
	if system, err := b.store.SystemOfConnection(t.Context(), staff, "two-2"); err != nil || system != "two-2" {
		t.Errorf("%s, %v", system, err)
	}
	if _, err := b.store.SystemOfConnection(t.Context(), staff, "shared"); !domain.HasCode(err, domain.CodeConnectionExists) {
		t.Errorf("got %v", err)
	}
	one := domain.Actor{Systems: []domain.SystemID{"one-1"}}
	if system, err := b.store.SystemOfConnection(t.Context(), one, "shared"); err != nil || system != "one-1" {
		t.Errorf("%s, %v", system, err)
	}
}

// Large events make smaller batches, and all of them are kept to the byte.
func TestLargeEvents(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const system = domain.SystemID("large-0")
	log := newScript()
	for i := range uint64(6) {
		e := must(t, system, 1000+i, domain.DeviceUpdate{DeviceID: "d"})
		e.Data = json.RawMessage(fmt.Sprintf(`{"deviceId":"d","attributes":{"n":%d,"x":"%s"}}`, i, strings.Repeat("x", 4<<20)))
		log.add(e)
	}
	projectAll(t, b.store, log)
	stats := b.store.Stats()
	if stats.Archived != 6 || stats.Batches < 3 || stats.Quarantined != 0 || stats.Writing == 0 {
		t.Errorf("%+v", stats)
	}
	got := archived(t, b.store, system)
	for i, e := range log.events[partitionOf(system)] {
		if string(got[i].Data) != string(e.Data) {
			t.Errorf("event %d has other data", i)
		}
	}
	if result, err := b.store.Verify(t.Context(), staff, system, nil); err != nil || result.Broken != nil || result.Checked != 6 {
		t.Errorf("%+v, %v", result, err)
	}
}

func TestOpenRefusesWhatIsNoDatabase(t *testing.T) {
	t.Parallel()
	for _, url := range []string{"postgres://u:hunter2@127.0.0.1:1/x", "postgres://u:hunter2@127.0.0.1:port/x"} {
		if _, err := projections.Open(t.Context(), projections.Config{URL: url}); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("got %v", err)
		}
	}
	if err := setup(t).store.Ping(t.Context()); err != nil {
		t.Error(err)
	}
}

// A position that no calendar has stops the partition with a clear error.
func TestPositionBeyondTheCalendar(t *testing.T) {
	t.Parallel()
	b := setup(t)
	log := newScript(must(t, "beyond-0", 253402300800000, domain.DeviceUpdate{DeviceID: "d"}))
	err := projections.NewProjector(b.store, log, partitionOf("beyond-0")).Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "9999") {
		t.Errorf("got %v", err)
	}
}
