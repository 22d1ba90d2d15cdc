package projections_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/plugcast/plugcast/domain"
)

// A part of the state has the named rows, the rows related to them, and no others, with the
// cursor of the whole system.
func TestStateHasWhatIsNeeded(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const system = domain.SystemID("part-1")
	log := newScript()
	ms := uint64(1000)
	add := func(system domain.SystemID, data domain.Data) {
		ms++
		log.add(must(t, system, ms, data))
	}
	for _, in := range []domain.SystemID{system, "part-5"} { // another system in the same partition has rows with the same ids
		for _, id := range []string{"a", "b", "c"} {
			thing := domain.EquipmentID("e" + id)
			add(in, domain.DeviceUpdate{DeviceID: domain.DeviceID(id), Name: domain.Some(string(in))})
			add(in, domain.EquipmentRegistered{EquipmentID: thing, Name: string(in)})
			add(in, domain.AssignmentUpdated{DeviceID: domain.DeviceID(id), EquipmentID: &thing})
			add(in, domain.ConnectionCreated{ConnectionID: domain.ConnectionID(id), Name: string(in), Kind: domain.ConnectionShellyCloud})
		}
	}
	projectAll(t, b.store, log)
	whole := naively(log.events[partitionOf(system)])[system].state
	for name, c := range map[string]struct {
		needs                                        domain.Needs
		devices, equipment, assignments, connections []string
	}{
		"nothing":     {},
		"a plug":      {needs: domain.Needs{Devices: []domain.DeviceID{"a"}}, devices: []string{"a"}, assignments: []string{"a"}},
		"equipment":   {needs: domain.Needs{Equipment: []domain.EquipmentID{"eb"}}, equipment: []string{"eb"}, assignments: []string{"b"}},
		"connections": {needs: domain.Needs{Connections: []domain.ConnectionID{"a", "c", "x"}}, connections: []string{"a", "c"}},
		"an assignment": {
			needs:   domain.Needs{Devices: []domain.DeviceID{"a"}, Equipment: []domain.EquipmentID{"ec", "none"}},
			devices: []string{"a"}, equipment: []string{"ec"}, assignments: []string{"a", "c"},
		},
	} {
		want := domain.NewState(system)
		want.Cursor = whole.Cursor
		pick(want.Devices, whole.Devices, c.devices)
		pick(want.Equipment, whole.Equipment, c.equipment)
		pick(want.Assignments, whole.Assignments, c.assignments)
		pick(want.Connections, whole.Connections, c.connections)
		got, err := b.store.State(t.Context(), system, c.needs, whole.Cursor.Position)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(domain.State{})); diff != "" {
			t.Errorf("%s (-folded +read)\n%s", name, diff)
		}
	}
}

func pick[K ~string, V any](to, from map[K]V, keys []string) {
	for _, key := range keys {
		to[K(key)] = from[K(key)]
	}
}
