package projections_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/projections"
)

// twoTenants fills two systems, and the platform's own, with one row of every kind.
func twoTenants(t testing.TB, b *bundle) {
	t.Helper()
	thing := domain.EquipmentID("e")
	log := newScript()
	for i, system := range []domain.SystemID{"sol-1", "luna-2", domain.PlatformSystem} {
		for j, data := range []domain.Data{
			domain.DeviceUpdate{DeviceID: "d", Online: domain.Some(true)},
			domain.EquipmentRegistered{EquipmentID: thing, Name: "Laser"},
			domain.AssignmentUpdated{DeviceID: "d", EquipmentID: &thing},
			domain.ConnectionCreated{ConnectionID: domain.ConnectionID(fmt.Sprint("acc", i)), Kind: domain.ConnectionShellyCloud},
			domain.Undecodable{Reason: "torn"},
		} {
			log.add(must(t, system, uint64(1000+10*i+j), data))
		}
	}
	projectAll(t, b.store, log)
}

var guarded = append([]string{"history", "heads", "quarantine"}, readModels...)

// Queries without any WHERE, run as the reader with the setting, see only the systems in the
// setting.
func TestForgottenWhereLeaksNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	twoTenants(t, b)
	for _, scope := range []struct {
		setting string
		want    []string
	}{
		{"", nil},
		{"sol-1", []string{"sol-1"}},
		{"luna-2,sol-1", []string{"luna-2", "sol-1"}},
		{"nobody", nil},
		{"*", []string{"luna-2", "sol-1"}},
		{"**", []string{"_platform", "luna-2", "sol-1"}},
	} {
		for _, table := range guarded {
			got := asReader(t, b, &scope.setting, "SELECT DISTINCT system_id::text FROM "+table+" ORDER BY 1")
			if diff := cmp.Diff(scope.want, got); diff != "" {
				t.Errorf("%s with %q (-want +got)\n%s", table, scope.setting, diff)
			}
		}
	}
	for _, table := range guarded {
		if got := asReader(t, b, nil, "SELECT DISTINCT system_id::text FROM "+table); len(got) > 0 {
			t.Errorf("%s without the setting shows %v", table, got)
		}
	}
}

// A rebuild's tables are guarded as well.
func TestRebuiltTablesAreGuarded(t *testing.T) {
	t.Parallel()
	b := setup(t)
	twoTenants(t, b)
	b.exec(t, "DROP SCHEMA projection CASCADE")
	if _, err := b.store.Rebuild(t.Context(), nil, nil); err != nil {
		t.Fatal(err)
	}
	setting := "sol-1"
	for _, table := range readModels {
		if got := asReader(t, b, &setting, "SELECT DISTINCT system_id::text FROM "+table); !cmp.Equal(got, []string{"sol-1"}) {
			t.Errorf("%s shows %v", table, got)
		}
	}
}

func asReader(t *testing.T, b *bundle, setting *string, query string) []string {
	t.Helper()
	tx, err := b.owner.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(context.Background())
	if _, err := tx.Exec(t.Context(), "SET LOCAL ROLE plugcast_reader"); err != nil {
		t.Fatal(err)
	}
	if setting != nil {
		if _, err := tx.Exec(t.Context(), "SELECT set_config('plugcast.systems', $1, true)", *setting); err != nil {
			t.Fatal(err)
		}
	}
	rows, err := tx.Query(t.Context(), query)
	if err != nil {
		t.Fatal(err)
	}
	got, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	if len(got) == 0 {
		return nil
	}
	return got
}

// The reader can neither write nor bypass the guard through a table partition of history.
func TestReaderMayOnlyRead(t *testing.T) {
	t.Parallel()
	b := setup(t)
	twoTenants(t, b)
	for _, statement := range []string{
		"DELETE FROM history", "UPDATE heads SET seq = 0", "SELECT FROM history_1970_01", "DELETE FROM projection.devices",
		"UPDATE checkpoints SET position_ms = 0", "DROP TABLE projection.devices", "CREATE TABLE projection.mine ()",
	} {
		tx, err := b.owner.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.Exec(t.Context(), "SET LOCAL ROLE plugcast_reader; SET LOCAL plugcast.systems = '**'"); err != nil {
			t.Fatal(err)
		}
		if _, err := tx.Exec(t.Context(), statement); err == nil || !strings.Contains(err.Error(), "42501") {
			t.Errorf("%s: %v", statement, err)
		}
		_ = tx.Rollback(t.Context())
	}
}

// Every read on behalf of an actor stays within the actor's systems.
func TestActorSeesOwnSystemsOnly(t *testing.T) {
	t.Parallel()
	b := setup(t)
	twoTenants(t, b)
	for _, c := range []struct {
		name  string
		actor domain.Actor
		sees  []domain.SystemID
	}{
		{"nobody", domain.Actor{}, nil},
		{"one", domain.Actor{Role: domain.RoleViewer, Systems: []domain.SystemID{"sol-1"}}, []domain.SystemID{"sol-1"}},
		{"a list for an id", domain.Actor{Systems: []domain.SystemID{"sol-1,luna-2"}}, nil},
		{"a star for an id", domain.Actor{Systems: []domain.SystemID{"*", "**"}}, nil},
		{"a customer with the platform in its token", domain.Actor{Role: domain.RoleAdmin,
			Systems: []domain.SystemID{domain.PlatformSystem}}, nil},
		{"two", domain.Actor{Systems: []domain.SystemID{"sol-1", "luna-2"}}, []domain.SystemID{"luna-2", "sol-1"}},
		{"a back end for all", domain.Actor{Role: domain.RoleService, AllSystems: true}, []domain.SystemID{"luna-2", "sol-1"}},
		{"staff", staff, []domain.SystemID{domain.PlatformSystem, "luna-2", "sol-1"}},
	} {
		var systems []domain.SystemID
		found, err := b.store.Systems(t.Context(), c.actor, "", 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range found {
			systems = append(systems, s.SystemID)
		}
		if diff := cmp.Diff(c.sees, systems); diff != "" {
			t.Errorf("%s (-want +got)\n%s", c.name, diff)
		}
		for _, system := range []domain.SystemID{"sol-1", "luna-2", domain.PlatformSystem} {
			want := 0
			for _, sees := range c.sees {
				if sees == system {
					want = 1
				}
			}
			for what, got := range readsOf(t, b.store, c.actor, system) {
				if got != want {
					t.Errorf("%s reads %d %s of %s, want %d", c.name, got, what, system, want)
				}
			}
		}
	}
	_, err := b.store.SystemOfConnection(t.Context(), domain.Actor{Systems: []domain.SystemID{"sol-1"}}, "acc1")
	if !domain.HasCode(err, domain.CodeUnknownConnection) {
		t.Errorf("another system's connection: %v", err)
	}
}

// readsOf performs every scoped read on a system that has one row of every kind.
func readsOf(t *testing.T, store *projections.Store, actor domain.Actor, system domain.SystemID) map[string]int {
	t.Helper()
	ctx, counts := t.Context(), map[string]int{}
	note := func(what string, n int, err error) {
		if err != nil && domain.AsError(err).Kind != domain.KindNotFound {
			t.Fatalf("%s: %v", what, err)
		}
		counts[what] = min(n, 1)
	}
	devices, _, err := store.DevicePage(ctx, actor, system, "", 0)
	note("devices", len(devices.Devices), err)
	note("assignments", len(devices.Assignments), nil)
	equipment, _, err := store.EquipmentPage(ctx, actor, system, "", 0, true)
	note("equipment", len(equipment.Equipment), err)
	connections, _, err := store.ConnectionPage(ctx, actor, system, "", 0)
	note("connections", len(connections.Connections), err)
	events, _, err := store.Events(ctx, actor, system, domain.EventQuery{})
	note("events", len(events), err)
	st, err := store.WholeState(ctx, actor, system, domain.Position{})
	note("state", len(st.Devices)+int(st.Cursor.Seq), err)
	past, err := store.StateAt(ctx, actor, system, domain.Position{Ms: 1021})
	note("past", len(past.Devices)+int(past.Cursor.Seq), err)
	head, _, err := store.Head(ctx, actor, system)
	note("head", int(head.Seq), err)
	exported := 0
	err = store.Export(ctx, actor, system, domain.EventQuery{}, func(*domain.HashedEvent) error { exported++; return nil })
	note("export", exported, err)
	part, err := store.StateFor(ctx, actor, system, domain.Needs{Devices: []domain.DeviceID{"d"}}, domain.Position{})
	note("device", len(part.Devices), err)
	return counts
}

// A connection returns to the pool as the owner's, also after a query that failed as the
// reader.
func TestRoleDoesNotStick(t *testing.T) {
	t.Parallel()
	b := setup(t)
	store, err := projections.Open(t.Context(), projections.Config{URL: b.url, Partition: partitionOf, MaxConns: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	log := newScript(must(t, "stick-0", 1000, domain.DeviceUpdate{DeviceID: "d"}))
	for n := range 3 {
		if _, _, err := store.DevicePage(t.Context(), staff, "stick-0", "", 0); err != nil {
			t.Fatal(err)
		}
		// The owner writes on the same connection, which a reader could not.
		log.add(must(t, "stick-0", uint64(2000+n), domain.DeviceUpdate{DeviceID: "d"}))
		projectAll(t, store, log)
		b.exec(t, "ALTER TABLE projection.devices RENAME TO hidden")
		if _, _, err := store.DevicePage(t.Context(), staff, "stick-0", "", 0); err == nil {
			t.Fatal("it read a table that is not there")
		}
		b.exec(t, "ALTER TABLE projection.hidden RENAME TO devices")
	}
}
