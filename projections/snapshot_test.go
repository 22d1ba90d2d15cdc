package projections_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plugcast/plugcast/domain"
)

// A snapshot that is written row by row decodes to the result of the fold, with the publishers'
// attributes byte for byte, in pieces of bounded size.
func TestWriteSnapshot(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const system = domain.SystemID("snap-1")
	log := newScript()
	ms := uint64(1000)
	add := func(data domain.Data) {
		ms++
		log.add(must(t, system, ms, data))
	}
	attributes := `{"x":"` + strings.Repeat("<&>", 1000) + `"}`
	for i := range 60 {
		id := fmt.Sprint(i * 7919 % 1000) // in no order
		thing := domain.EquipmentID("e" + id)
		u := domain.DeviceUpdate{DeviceID: domain.DeviceID(id), Online: domain.Some(true), Name: domain.Some("<Ω>")}
		if i%2 == 0 {
			u.Attributes = json.RawMessage(attributes)
		}
		add(u)
		add(domain.EquipmentRegistered{EquipmentID: thing, Name: "Laser", Attributes: json.RawMessage(`{}`)})
		add(domain.AssignmentUpdated{DeviceID: domain.DeviceID(id), EquipmentID: &thing})
		add(domain.ConnectionCreated{ConnectionID: domain.ConnectionID(id), Kind: domain.ConnectionShellyCloud})
	}
	projectAll(t, b.store, log)
	for system, want := range map[domain.SystemID]*domain.State{
		system:      naively(log.events[partitionOf(system)])[system].state,
		"nothing-1": domain.NewState("nothing-1"),
	} {
		var text []byte
		cursor, err := b.store.WriteSnapshot(t.Context(), system, func(piece []byte) error {
			if len(piece) > 64<<10 {
				t.Errorf("a piece of %d bytes", len(piece))
			}
			text = append(text, piece...)
			return nil
		})
		if err != nil || cursor != want.Cursor {
			t.Fatalf("%s is at %s, not %s: %v", system, cursor, want.Cursor, err)
		}
		var got domain.Snapshot
		if err := json.Unmarshal(text, &got); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		if diff := cmp.Diff(want.Snapshot(), &got); diff != "" {
			t.Errorf("(-folded +read)\n%s", diff)
		}
		for _, d := range want.Devices {
			if d.Attributes != nil && !strings.Contains(string(text), `,"attributes":`+string(d.Attributes)+`}`) {
				t.Errorf("the attributes of %s came with other bytes", d.DeviceID)
			}
		}
	}
	full := errors.New("full")
	if _, err := b.store.WriteSnapshot(t.Context(), system, func([]byte) error { return full }); !errors.Is(err, full) ||
		domain.HasCode(err, domain.CodeUnavailable) {
		t.Errorf("the error of write came as %v", err)
	}
	if err := b.store.Ping(t.Context()); err != nil {
		t.Error(err)
	}
}
