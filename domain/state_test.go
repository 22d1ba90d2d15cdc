package domain

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

var epoch = time.Date(2026, 11, 23, 18, 0, 0, 0, time.UTC)

// genHistory draws events of one system in log order. Most make sense; some name things that do not exist, have unknown
// types, or are broken.
func genHistory() *rapid.Generator[[]Event] {
	return rapid.Custom(func(t *rapid.T) []Event {
		n := rapid.IntRange(0, 60).Draw(t, "events")
		history := make([]Event, n)
		at := Position{Ms: 1}
		for i := range history {
			at = Position{Ms: at.Ms + rapid.Uint64Range(0, 2).Draw(t, "ms"), N: at.N + 1}
			e, err := NewEvent("clinica-sol", genData().Draw(t, "data"), Cause{Actor: "maria"})
			if err != nil {
				t.Fatal(err)
			}
			switch rapid.IntRange(0, 19).Draw(t, "fault") {
			case 0:
				e.Type = "from-the-future"
			case 1:
				e.Data = json.RawMessage(`{"deviceId":7,"equipmentId":7,"connectionId":7}`)
			case 2:
				e.Version = 99
			}
			e.ID, e.Time, e.Position, e.Seq = fmt.Sprint("id-", i), epoch.Add(time.Duration(i)*time.Second), at, uint64(i+1)
			history[i] = e
		}
		return history
	})
}

func genData() *rapid.Generator[Data] {
	devices := rapid.SampledFrom([]DeviceID{"d1", "d2", "d3"})
	equipment := rapid.SampledFrom([]EquipmentID{"e1", "e2"})
	connections := rapid.SampledFrom([]ConnectionID{"c1", "c2"})
	return rapid.Custom(func(t *rapid.T) Data {
		device, thing, command := devices.Draw(t, "device"), equipment.Draw(t, "equipment"),
			ConnectionCommand{ConnectionID: connections.Draw(t, "connection")}
		switch rapid.IntRange(0, 11).Draw(t, "type") {
		case 0, 1, 2:
			return DeviceUpdate{
				DeviceID: device,
				Online:   genOptional(rapid.Bool()).Draw(t, "online"),
				RelayOn:  genOptional(rapid.Bool()).Draw(t, "relay"),
				PowerW:   genOptional(rapid.Float64Range(0, 3000)).Draw(t, "power"),
				DeviceTime: genOptional(rapid.Custom(func(t *rapid.T) time.Time {
					return epoch.Add(time.Duration(rapid.IntRange(-5, 5).Draw(t, "skew")) * time.Second)
				})).Draw(t, "time"),
			}
		case 3:
			return DeviceOfflineStatus{DeviceID: device, Online: rapid.Bool().Draw(t, "online"), Reason: ReasonSocketClosed}
		case 4, 5:
			return AssignmentUpdated{DeviceID: device, EquipmentID: &thing}
		case 6:
			return AssignmentUpdated{DeviceID: device}
		case 7:
			return EquipmentRegistered{EquipmentID: thing, Name: rapid.StringN(1, 5, -1).Draw(t, "name")}
		case 8:
			return EquipmentUpdated{EquipmentID: thing, Name: genOptional(rapid.String()).Draw(t, "name")}
		case 9:
			return EquipmentRetired{EquipmentID: thing}
		case 10:
			return ConnectionCreated{ConnectionID: command.ConnectionID, Kind: ConnectionShellyCloud}
		default:
			return rapid.SampledFrom([]Data{
				ConnectionStarted{command}, ConnectionStopped{command}, ConnectionRestarted{command}, ConnectionDeleted{command},
				ConnectionStateChanged{ConnectionID: command.ConnectionID, State: "connected"},
			}).Draw(t, "command")
		}
	})
}

func genOptional[T any](of *rapid.Generator[T]) *rapid.Generator[Optional[T]] {
	return rapid.OneOf(
		rapid.Just(Optional[T]{}), rapid.Just(Null[T]()),
		rapid.Map(of, func(v T) Optional[T] { return Some(v) }),
	)
}

func fold(t interface{ Fatal(...any) }, s *State, events []Event) {
	for i := range events {
		if _, err := s.Apply(&events[i]); errors.Is(err, ErrGap) {
			t.Fatal(err)
		}
	}
}

func diffStates(a, b *State) string {
	return cmp.Diff(a, b, cmpopts.IgnoreUnexported(State{}))
}

// Folding in batches of any size, repeated and overlapping, gives the same state as folding every event once.
func TestFoldInAnyBatching(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		history := genHistory().Draw(t, "history")
		once := NewState("clinica-sol")
		fold(t, once, history)

		batched := NewState("clinica-sol")
		for done := 0; done < len(history); {
			from := rapid.IntRange(0, done).Draw(t, "from")
			to := rapid.IntRange(done+1, len(history)).Draw(t, "to")
			fold(t, batched, history[from:to])
			done = to
		}
		if diff := diffStates(once, batched); diff != "" {
			t.Fatalf("(-once +batched)\n%s", diff)
		}
		if want := uint64(len(history)); once.Cursor.Seq != want {
			t.Fatalf("every event counts: seq %d, want %d", once.Cursor.Seq, want)
		}
	})
}

// Apply changes no row that it does not return in ChangedRows, so that a reader of rows needs to copy only those.
func TestChangedRowsNameEveryChange(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		history := genHistory().Draw(t, "history")
		s := NewState("clinica-sol")
		rows := NewState("clinica-sol") // updated only by copying the changed rows
		for i := range history {
			touched, _ := s.Apply(&history[i])
			copyRow(rows.Devices, s.Devices, touched.Device)
			copyRow(rows.Equipment, s.Equipment, touched.Equipment)
			copyRow(rows.Assignments, s.Assignments, touched.Assigned)
			copyRow(rows.Assignments, s.Assignments, touched.Released)
			copyRow(rows.Connections, s.Connections, touched.Connection)
			rows.Cursor = s.Cursor
			if diff := diffStates(s, rows); diff != "" {
				t.Fatalf("after %s (-state +rows)\n%s", history[i].Data, diff)
			}
		}
	})
}

func copyRow[K comparable, V any](to, from map[K]*V, key K) {
	row, ok := from[key]
	if !ok {
		delete(to, key)
		return
	}
	kept := *row
	to[key] = &kept
}

// Whatever the events say, a plug feeds at most one piece of equipment, and at most one plug feeds it.
func TestAssignmentIsOneToOne(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := NewState("clinica-sol")
		fold(t, s, genHistory().Draw(t, "history"))
		seen := map[EquipmentID]DeviceID{}
		for device, a := range s.Assignments {
			if other, twice := seen[a.EquipmentID]; twice {
				t.Fatalf("%s is fed by %s and %s", a.EquipmentID, device, other)
			}
			seen[a.EquipmentID] = device
			if holder, ok := s.Holder(a.EquipmentID); !ok || holder != device || a.DeviceID != device {
				t.Fatalf("holder of %s is %s, want %s", a.EquipmentID, holder, device)
			}
		}
	})
}

func TestApplyRefusesGap(t *testing.T) {
	t.Parallel()
	s := NewState("clinica-sol")
	e, _ := NewEvent("clinica-sol", DeviceUpdate{DeviceID: "d1", Online: Some(true)}, Cause{})
	e.Position, e.Seq = Position{Ms: 5}, 2
	if _, err := s.Apply(&e); !errors.Is(err, ErrGap) {
		t.Fatalf("got %v", err)
	}
	if diff := diffStates(s, NewState("clinica-sol")); diff != "" {
		t.Errorf("the state changed:\n%s", diff)
	}
}

func TestDeviceUpdateMerges(t *testing.T) {
	t.Parallel()
	s, at := NewState("clinica-sol"), Position{}
	apply := func(data string) *Device {
		at.Ms++
		e := Event{Type: TypeDeviceUpdate, Version: 1, Position: at, Time: epoch, Data: json.RawMessage(data)}
		if _, err := s.Apply(&e); err != nil {
			t.Fatal(err)
		}
		return s.Devices["d1"]
	}
	apply(`{"deviceId":"d1","online":true,"relayOn":true,"powerW":399.2,"deviceTime":"2026-11-23T18:00:10Z"}`)
	d := apply(`{"deviceId":"d1","powerW":0}`)
	if d.RelayOn == nil || !*d.RelayOn || *d.PowerW != 0 {
		t.Errorf("absent must be unchanged and zero a value: %+v", d)
	}
	d = apply(`{"deviceId":"d1","relayOn":null}`)
	if d.RelayOn != nil || !*d.Online {
		t.Errorf("null must be unknown: %+v", d)
	}
	d = apply(`{"deviceId":"d1","relayOn":false,"deviceTime":"2026-11-23T18:00:09Z"}`)
	if d.RelayOn != nil {
		t.Errorf("an older device time must be recorded only: %+v", d)
	}
}

func BenchmarkApplyDeviceUpdate(b *testing.B) {
	e, err := NewEvent("clinica-sol", samples()[TypeDeviceUpdate], Cause{})
	if err != nil {
		b.Fatal(err)
	}
	s := NewState("clinica-sol")
	b.ReportAllocs()
	for b.Loop() {
		e.Position.Ms++
		if _, err := s.Apply(&e); err != nil {
			b.Fatal(err)
		}
	}
}
