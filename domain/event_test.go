package domain

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files of event types that have none yet")

// samples holds one event of each type, with every field that the type had when its golden file was written.
func samples() map[EventType]Data {
	laser, lamp := EquipmentID("laser-1"), EquipmentID("lamp-2")
	other := DeviceID("shellyplugsg3-8cbfea9a1b2d")
	at := time.Date(2026, 11, 23, 18, 0, 0, 123456000, time.UTC)
	command := ConnectionCommand{ConnectionID: "acc1", CommandID: "cmd-1", Reason: "maintenance"}
	const plug = DeviceID("shellyplugsg3-8cbfea9a1b2c")
	return map[EventType]Data{
		TypeDeviceUpdate: DeviceUpdate{
			DeviceID: plug, Online: Some(true), RelayOn: Null[bool](), Channel: Some(0), PowerW: Some(399.2), VoltageV: Some(240.8),
			CurrentA: Some(1.886), FrequencyHz: Some(50.0), PowerFactor: Some(0.98), EnergyWh: Some(2574466.629), CounterWh: Some(12.5),
			EnergySince: Some(at), EnergyOffsetWh: Some(-0.25),
			CounterFalls: Some([]CounterFall{{At: at, CounterWh: 2574000, EnergyWh: 2574454.129}}),
			TemperatureC: Some(46.3),
			Source:       Some("button"), Errors: Some([]string{"overtemp"}), Changed: []string{"powerW"}, DeviceTime: Some(at),
			ConnectionID: Some(ConnectionID("acc1")), Name: Some("Láser"), Attributes: json.RawMessage(`{"floor":2}`),
		},
		TypeDeviceOfflineStatus: DeviceOfflineStatus{
			DeviceID: plug, RelayOn: Null[bool](), LastSeenAt: Some(at), Reason: ReasonHeartbeatMissed,
		},
		TypeEnergyCorrected: EnergyCorrected{CommandID: "cmd-1", DeviceID: plug, EnergyWh: 2574466.629, Reason: "meter read by hand"},
		TypeAssignmentUpdated: AssignmentUpdated{
			DeviceID: plug, EquipmentID: &laser, PreviousEquipmentID: &lamp, PreviousDeviceID: &other,
		},
		TypeEquipmentRegistered: EquipmentRegistered{
			EquipmentID: laser, Name: "Laser", Kind: "laser", Location: "room 2", Attributes: json.RawMessage(`{"serial":"A1"}`),
		},
		TypeEquipmentUpdated: EquipmentUpdated{
			EquipmentID: laser, Name: Some("Laser 2"), Kind: Null[string](), Location: Some("room 3"), Attributes: json.RawMessage(`{}`),
		},
		TypeEquipmentRetired:  EquipmentRetired{EquipmentID: laser, Reason: "sold"},
		TypeConnectionCreated: ConnectionCreated{ConnectionID: "acc1", Kind: ConnectionShellyCloud, Name: "Clinic"},
		TypeConnectionUpdated: ConnectionUpdated{
			ConnectionID: "acc1", CommandID: "cmd-1", Name: Some("Clinic 2"), Credential: true,
		},
		TypeConnectionStarted:      ConnectionStarted{command},
		TypeConnectionStopped:      ConnectionStopped{command},
		TypeConnectionRestarted:    ConnectionRestarted{command},
		TypeConnectionStateChanged: ConnectionStateChanged{ConnectionID: "acc1", State: "connected", Reason: "token renewed"},
		TypeConnectionDeleted:      ConnectionDeleted{command},
		TypeRelaySwitchRequested:   RelaySwitchRequested{CommandID: "cmd-1", DeviceID: plug, On: true, ToggleAfterS: 1800},
		TypeRelaySwitchCompleted: RelaySwitchCompleted{
			CommandID: "cmd-1", DeviceID: plug, Outcome: OutcomeFailed, Error: "device offline",
		},
		TypeDisconnectRequested: DisconnectRequested{
			CommandID: "cmd-1", SocketID: "s1", ConnectionID: "acc1", TargetSystem: "clinica-sol", Subject: "maria", Role: RoleViewer,
			Reason: "left", CloseSockets: true, Reconnect: true, BanUntil: &at,
		},
		TypeDisconnectCompleted: DisconnectCompleted{CommandID: "cmd-1", Node: "node-a", ShellySockets: 1, BrowserSockets: 12},
		TypeHistoryExported:     HistoryExported{After: Position{1, 0}, Until: Position{2, 3}, Events: 17},
		TypeUndecodable:         Undecodable{Reason: "data is not JSON", Fields: map[string]string{"data": "{"}},
	}
}

// TestGolden keeps every type and version readable for ever: files are added and never changed.
func TestGolden(t *testing.T) {
	t.Parallel()
	for typ, data := range samples() {
		t.Run(string(typ), func(t *testing.T) {
			t.Parallel()
			file := filepath.Join("testdata", "events", string(typ)+".v1.json")
			e, err := NewEvent("clinica-sol", data, Cause{Actor: "maria"})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(file); os.IsNotExist(err) && *rewrite {
				if err := os.WriteFile(file, append(e.Data, '\n'), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			golden, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			golden = []byte(strings.TrimSuffix(string(golden), "\n"))
			if diff := cmp.Diff(string(golden), string(e.Data)); diff != "" {
				t.Errorf("the type is written differently now; give it a version and an upcast (-golden +now):\n%s", diff)
			}
			e.Data = golden
			read, err := e.Decode()
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(data, read, cmp.AllowUnexported(
				Optional[bool]{}, Optional[int]{}, Optional[float64]{}, Optional[string]{}, Optional[[]string]{},
				Optional[time.Time]{}, Optional[ConnectionID]{}, Optional[[]CounterFall]{},
			)); diff != "" {
				t.Errorf("read back differently (-written +read):\n%s", diff)
			}
		})
	}
	for typ := range eventTypes {
		if samples()[typ] == nil {
			t.Errorf("type %s has no sample", typ)
		}
	}
}

func TestUpcast(t *testing.T) {
	const typ EventType = "test-upcast"
	eventTypes[typ] = typeSpec{
		decode: decodeAs[EquipmentRetired],
		upcasts: []func(json.RawMessage) (json.RawMessage, error){
			func(old json.RawMessage) (json.RawMessage, error) {
				return json.RawMessage(strings.Replace(string(old), "equipment", "equipmentId", 1)), nil
			},
		},
	}
	defer delete(eventTypes, typ)
	for version, raw := range map[int]string{1: `{"equipment":"laser-1"}`, 2: `{"equipmentId":"laser-1"}`} {
		e := Event{Type: typ, Version: version, Data: json.RawMessage(raw)}
		data, err := e.Decode()
		if err != nil || data != (EquipmentRetired{EquipmentID: "laser-1"}) {
			t.Errorf("version %d: %v, %v", version, data, err)
		}
	}
	later := Event{Type: typ, Version: 3, Data: json.RawMessage(`[]`)}
	if data, err := later.Decode(); data != nil || err != nil || later.Known() {
		t.Errorf("a later version must be kept and skipped, got %v, %v", data, err)
	}
}

// Data whose subject cannot have a row is unreadable, and the fold skips it.
func TestDecodeRefusesBadIDs(t *testing.T) {
	t.Parallel()
	for typ, data := range map[EventType]string{
		TypeDeviceUpdate:        `{"online":true}`,
		TypeDeviceOfflineStatus: `{"deviceId":"a b","online":false}`,
		TypeAssignmentUpdated:   `{"deviceId":"d","equipmentId":""}`,
		TypeEquipmentRegistered: `{"equipmentId":"a/b","name":"n"}`,
		TypeConnectionCreated:   `{"kind":"shelly-cloud"}`,
	} {
		e := Event{Type: typ, Version: 1, Data: json.RawMessage(data), Position: Position{Ms: 1}}
		if _, err := e.Decode(); err == nil {
			t.Errorf("%s %s was read", typ, data)
		}
		s := NewState("clinica-sol")
		if touched, err := s.Apply(&e); err == nil || touched != (ChangedRows{}) || s.Cursor.Seq != 1 {
			t.Errorf("%s %s: touched %+v, %v", typ, data, touched, err)
		}
	}
}

func genEvent() *rapid.Generator[Event] {
	return rapid.Custom(func(t *rapid.T) Event {
		return Event{
			ID:            rapid.String().Draw(t, "id"),
			Type:          EventType(rapid.String().Draw(t, "type")),
			Version:       rapid.IntRange(1, 9).Draw(t, "version"),
			SystemID:      SystemID(rapid.String().Draw(t, "system")),
			Time:          time.UnixMicro(rapid.Int64Range(0, 1<<51).Draw(t, "time")).UTC(),
			Actor:         rapid.String().Draw(t, "actor"),
			CorrelationID: rapid.String().Draw(t, "correlation"),
			CausationID:   rapid.String().Draw(t, "causation"),
			Data:          json.RawMessage(`{"a":1.50}`),
			Position:      Position{rapid.Uint64().Draw(t, "ms"), rapid.Uint64().Draw(t, "n")},
			Seq:           rapid.Uint64().Draw(t, "seq"),
		}
	})
}

// AppendEnvelope writes JSON by hand; encoding/json must read the same event from it.
func TestEnvelopeReadsBack(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		e := genEvent().Draw(t, "event")
		var back Event
		if err := json.Unmarshal(e.AppendEnvelope(nil), &back); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(e, back); diff != "" {
			t.Fatal(diff)
		}
	})
}

func TestEnvelopeForm(t *testing.T) {
	t.Parallel()
	e := Event{
		ID: "0192f0a0", Type: TypeDeviceUpdate, Version: 1, SystemID: "clinica-sol", Actor: "shelly:acc1", CorrelationID: "c1",
		Time: time.Date(2026, 11, 23, 18, 0, 0, 120000000, time.UTC), Data: json.RawMessage(`{"deviceId":"d"}`),
		Position: Position{1795461046705, 0}, Seq: 48213,
	}
	want := `{"event":"device-update","position":"1795461046705-0","seq":48213,"id":"0192f0a0","systemId":"clinica-sol",` +
		`"time":"2026-11-23T18:00:00.120000Z","actor":"shelly:acc1","correlationId":"c1","version":1,"data":{"deviceId":"d"}}`
	if got := string(e.AppendEnvelope(nil)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// The hash of one event is pinned: if it changes, every chain that was ever written breaks.
func TestHashIsPinned(t *testing.T) {
	t.Parallel()
	e := Event{
		ID: "0192f0a0", Type: TypeDeviceUpdate, Version: 1, SystemID: "clinica-sol", Actor: "maria",
		Time: time.Date(2026, 11, 23, 18, 0, 0, 0, time.UTC), Data: json.RawMessage(`{"powerW":1.50}`), Position: Position{5, 1}, Seq: 1,
	}
	const want = "92da96cabb27a267598b7cced6125568d2b45cce240fa36c322498775a55389b"
	if got := (Hash{}).Next(&e).String(); got != want {
		t.Errorf("hash is %s, want %s", got, want)
	}
}

// Two different events never have the same hash: moving a byte from one field to the next must change it.
func TestHashSeesEveryField(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		a, b := genEvent().Draw(t, "a"), genEvent().Draw(t, "b")
		same := cmp.Equal(a, b)
		if equal := (Hash{}).Next(&a) == (Hash{}).Next(&b); equal != same {
			t.Fatalf("hashes equal: %v, events equal: %v", equal, same)
		}
		shifted := a
		shifted.Actor, shifted.CorrelationID = a.Actor+"x", a.CorrelationID
		moved := a
		moved.CorrelationID = "x" + a.CorrelationID
		if (Hash{}).Next(&shifted) == (Hash{}).Next(&moved) {
			t.Fatal("a byte moved between fields is not seen")
		}
	})
}

func TestParsePosition(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]Position{"0-0": {}, "1795461046705-3": {1795461046705, 3}, "17": {17, 0}} {
		if got, err := ParsePosition(in); err != nil || got != want {
			t.Errorf("%q: %v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "-", "1-", "-1", "+1-0", "1-+2", "a-b", "1-2-3", " 1-0", "99999999999999999999-0"} {
		if _, err := ParsePosition(in); !HasCode(err, CodeInvalidPosition) {
			t.Errorf("%q: %v", in, err)
		}
	}
}

func TestParseIDs(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a", 65)
	for in, ok := range map[string]bool{
		"clinica-sol": true, "A.b_c-9": true, "": false, "a b": false, "ñ": false, long: false, "a:1": false, "a\n": false,
	} {
		if _, err := ParseSystemID(in); (err == nil) != ok {
			t.Errorf("system %q: %v", in, err)
		}
	}
	if _, err := ParseDeviceID("shellypstripg4-8cbfea9a1b2c:2"); err != nil {
		t.Error(err)
	}
}

func BenchmarkAppendEnvelope(b *testing.B) {
	e, err := NewEvent("clinica-sol", samples()[TypeDeviceUpdate], Cause{Actor: "shelly:acc1", CorrelationID: "0192f0a0"})
	if err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, 0, 2048)
	b.ReportAllocs()
	for b.Loop() {
		buf = e.AppendEnvelope(buf[:0])
	}
}

// Every text of every event type has a bound. HistoryExported has no text, and Undecodable bounds itself.
func TestEveryTextIsBounded(t *testing.T) {
	t.Parallel()
	long := json.RawMessage(`"` + strings.Repeat("x", maxReason+1) + `"`)
	for typ, data := range samples() {
		if typ == TypeHistoryExported || typ == TypeUndecodable {
			continue
		}
		raw, err := EncodeJSON(data)
		if err != nil {
			t.Fatal(err)
		}
		var fields map[string]json.RawMessage
		if err := json.Unmarshal(raw, &fields); err != nil {
			t.Fatal(err)
		}
		for name, value := range fields {
			if value[0] != '"' {
				continue
			}
			fields[name] = long
			changed, err := json.Marshal(fields)
			if err != nil {
				t.Fatal(err)
			}
			e := Event{ID: "x", Type: typ, Version: 1, SystemID: "s", Time: time.Unix(1, 0), Data: changed, Position: Position{Ms: 1}}
			if got := e.AsImported("far"); got.Type != TypeUndecodable {
				t.Errorf("%s: %s has no bound", typ, name)
			}
			fields[name] = value
		}
	}
}
