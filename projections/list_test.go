package projections_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/projections"
)

// Pages contain the rows of the fold, in order of id.
func TestLists(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const system = domain.SystemID("list-1")
	log := newScript()
	ms := uint64(1000)
	add := func(data domain.Data) {
		ms++
		log.add(must(t, system, ms, data))
	}
	for _, id := range []string{"b", "a", "C", "c", "_", "a:2", "a-1"} { // locales order these differently
		thing := domain.EquipmentID("e" + strings.ReplaceAll(id, ":", "."))
		add(domain.DeviceUpdate{
			DeviceID: domain.DeviceID(id), Online: domain.Some(true), Attributes: json.RawMessage(`{ "a": "<" }`),
			ConnectionID: domain.Some(domain.ConnectionID("c")),
		})
		add(domain.EquipmentRegistered{EquipmentID: thing, Name: "Laser", Attributes: json.RawMessage(`{ }`)})
		add(domain.AssignmentUpdated{DeviceID: domain.DeviceID(id), EquipmentID: &thing})
		add(domain.ConnectionCreated{ConnectionID: domain.ConnectionID(id), Kind: domain.ConnectionShellyCloud})
	}
	add(domain.EquipmentRetired{EquipmentID: "eb"})
	projectAll(t, b.store, log)
	state := naively(log.events[partitionOf(system)])[system].state
	want := state.Snapshot()
	ctx := t.Context()
	for limit := 1; limit <= 8; limit++ {
		checkPages(t, limit, want.Devices, func(d *domain.Device) domain.DeviceID { return d.DeviceID },
			func(after domain.DeviceID) ([]*domain.Device, bool, error) {
				st, more, err := b.store.DevicePage(ctx, staff, system, after, limit)
				if err != nil {
					return nil, false, err
				}
				rows := st.Snapshot()
				for i, d := range rows.Devices {
					if diff := cmp.Diff(state.Assignments[d.DeviceID], rows.Assignments[i]); diff != "" {
						t.Errorf("assignment (-folded +read)\n%s", diff)
					}
					if d.ConnectionID != nil && st.Connections[*d.ConnectionID] == nil {
						t.Errorf("%s came without its connection", d.DeviceID)
					}
				}
				if len(st.Equipment) != 0 || len(st.Assignments) != len(st.Devices) || len(st.Connections) > len(st.Devices) ||
					st.Cursor != state.Cursor {
					t.Errorf("a page of devices has more than them, or is of %s", st.Cursor)
				}
				return rows.Devices, more, nil
			})
		for _, retired := range []bool{true, false} {
			equipment := want.Equipment
			if !retired {
				equipment = slices.DeleteFunc(slices.Clone(equipment), func(e *domain.Equipment) bool { return e.Retired })
			}
			checkPages(t, limit, equipment, func(e *domain.Equipment) domain.EquipmentID { return e.EquipmentID },
				func(after domain.EquipmentID) ([]*domain.Equipment, bool, error) {
					st, more, err := b.store.EquipmentPage(ctx, staff, system, after, limit, retired)
					if err != nil {
						return nil, false, err
					}
					for id := range st.Equipment {
						holder, _ := st.Holder(id)
						if want, _ := state.Holder(id); holder != want {
							t.Errorf("%s is fed by %q, not %q", id, holder, want)
						}
					}
					return st.Snapshot().Equipment, more, nil
				})
		}
		checkPages(t, limit, want.Connections, func(c *domain.Connection) domain.ConnectionID { return c.ConnectionID },
			func(after domain.ConnectionID) ([]*domain.Connection, bool, error) {
				st, more, err := b.store.ConnectionPage(ctx, staff, system, after, limit)
				if err != nil {
					return nil, false, err
				}
				return st.Snapshot().Connections, more, nil
			})
	}
}

// checkPages reads a list page by page and compares it with the whole list.
func checkPages[T any, K ~string](t *testing.T, limit int, want []*T, id func(*T) K, page func(after K) ([]*T, bool, error)) {
	t.Helper()
	var all []*T
	after := K("")
	for more := true; more; after = id(all[len(all)-1]) {
		rows, is, err := page(after)
		if err != nil {
			t.Fatal(err)
		}
		if len(rows) > limit || is && len(rows) < limit || len(rows) == 0 {
			t.Fatalf("a page of %d has %d rows, and more is %v", limit, len(rows), is)
		}
		all, more = append(all, rows...), is
	}
	if diff := cmp.Diff(want, all); diff != "" {
		t.Errorf("pages (-folded +read)\n%s", diff)
	}
}

// A page also ends at a number of bytes, and the next page continues with the next row.
func TestPagesEndAtBytes(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const system, devices = domain.SystemID("heavy-1"), 1000
	log := newScript()
	large := json.RawMessage(`{"x":"` + strings.Repeat("x", 3<<12) + `"}`)
	for i := range uint64(devices) {
		log.add(must(t, system, 1000+i, domain.DeviceUpdate{DeviceID: domain.DeviceID(fmt.Sprintf("d%04d", i)), Attributes: large}))
	}
	projectAll(t, b.store, log)
	seen, pages := 0, 0
	for after, more := domain.DeviceID(""), true; more; pages++ {
		st, is, err := b.store.DevicePage(t.Context(), staff, system, after, 0)
		if err != nil {
			t.Fatal(err)
		}
		bytes := 0
		for _, d := range st.Snapshot().Devices {
			if want := domain.DeviceID(fmt.Sprintf("d%04d", seen)); d.DeviceID != want {
				t.Fatalf("%s came instead of %s", d.DeviceID, want)
			}
			bytes += len(d.Attributes)
			seen, after = seen+1, d.DeviceID
		}
		if bytes == 0 || bytes > projections.PageBytes || is && bytes < projections.PageBytes*9/10 {
			t.Errorf("page %d has %d bytes", pages, bytes)
		}
		more = is
	}
	if seen != devices || pages != 3 {
		t.Errorf("%d devices on %d pages", seen, pages)
	}
}

// Two systems may have a connection with the same id. A caller that sees both has to name the
// system.
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
	if _, err := b.store.SystemOfConnection(t.Context(), staff, "shared"); !domain.HasCode(err, domain.CodeAmbiguousConnection) {
		t.Errorf("got %v", err)
	}
	own := domain.Actor{Role: domain.RoleStaff, Systems: []domain.SystemID{"two-2"}}
	if system, err := b.store.SystemOfConnection(t.Context(), own, "shared"); err != nil || system != "two-2" {
		t.Errorf("one's own: %s, %v", system, err)
	}
	// A bridged connection does not make an id ambiguous.
	bridged := must(t, "three-3", 3000, domain.ConnectionCreated{ConnectionID: "one-1", Kind: domain.ConnectionShellyCloud})
	bridged.Origin = "far"
	projectAll(t, b.store, newScript(append(events, bridged)...))
	if system, err := b.store.SystemOfConnection(t.Context(), staff, "one-1"); err != nil || system != "one-1" {
		t.Errorf("beside a bridged one: %s, %v", system, err)
	}
	one := domain.Actor{Systems: []domain.SystemID{"one-1"}}
	if system, err := b.store.SystemOfConnection(t.Context(), one, "shared"); err != nil || system != "one-1" {
		t.Errorf("%s, %v", system, err)
	}
}

// Large events make smaller batches, and all of them are stored byte for byte.
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

// A position beyond the calendar, which any client of Redis can give to an entry, is archived
// like any other, and so are later entries.
func TestPositionBeyondTheCalendar(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const system = domain.SystemID("beyond-0")
	log := newScript(
		must(t, system, 253402300799999, domain.DeviceUpdate{DeviceID: "d"}),
		must(t, system, 253402300800000, domain.DeviceUpdate{DeviceID: "d"}),
		must(t, system, 9e18, domain.DeviceUpdate{DeviceID: "d", Online: domain.Some(true)}),
	)
	projectAll(t, b.store, log)
	if events := archived(t, b.store, system); len(events) != 3 {
		t.Errorf("%d events are archived", len(events))
	}
}
