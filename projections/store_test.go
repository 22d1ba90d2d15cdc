package projections_test

import (
	"testing"

	"github.com/plugcast/plugcast/domain"
)

func TestProjectAndRead(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const sol = domain.SystemID("sol-1")
	laser := domain.EquipmentID("laser")
	log := newScript(
		must(t, sol, 1000, domain.DeviceUpdate{DeviceID: "d1", Online: domain.Some(true), PowerW: domain.Some(3.5)}),
		must(t, sol, 2000, domain.EquipmentRegistered{EquipmentID: laser, Name: "Laser"}),
		must(t, sol, 3000, domain.AssignmentUpdated{DeviceID: "d1", EquipmentID: &laser}),
		must(t, sol, 4000, domain.ConnectionCreated{ConnectionID: "acc1", Kind: domain.ConnectionShellyCloud}),
	)
	projectAll(t, b.store, log)
	st, err := b.store.WholeState(t.Context(), staff, sol, domain.Position{Ms: 4000})
	if err != nil {
		t.Fatal(err)
	}
	want := domain.NewState(sol)
	for _, e := range log.events[partitionOf(sol)] {
		if _, err := want.Apply(&e); err != nil {
			t.Fatal(err)
		}
	}
	if diff := diffStates(want, st); diff != "" {
		t.Errorf("(-folded +read)\n%s", diff)
	}
	page, err := b.store.Page(t.Context(), sol, domain.Position{Ms: 1000}, 10)
	if err != nil || len(page) != 3 || page[0].Seq != 2 {
		t.Errorf("page: %v, %v", page, err)
	}
	checkpoint, head, err := b.store.Base(t.Context(), sol)
	if err != nil || checkpoint != (domain.Position{Ms: 4000}) || head != (domain.Cursor{Position: domain.Position{Ms: 4000}, Seq: 4}) {
		t.Errorf("base: %v, %v, %v", checkpoint, head, err)
	}
	at, err := b.store.Locate(t.Context(), sol, domain.Position{Ms: 2999, N: 7})
	if err != nil || at != (domain.Cursor{Position: domain.Position{Ms: 2000}, Seq: 2}) {
		t.Errorf("locate: %v, %v", at, err)
	}
	if system, err := b.store.SystemOfConnection(t.Context(), staff, "acc1"); err != nil || system != sol {
		t.Errorf("system of connection: %v, %v", system, err)
	}
}
