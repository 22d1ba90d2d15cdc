package web

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/testpeer/nodejs"
)

// folder is a Node process that folds events with the client's code.
type folder struct {
	in  io.Writer
	out *bufio.Reader
}

func newFolder(t *testing.T) *folder {
	t.Helper()
	cmd := nodejs.Command(t, nodejs.Folder(t, "client"), "test/fold.mjs")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait() // the end of its input or the test's context ends it
	})
	return &folder{in: in, out: bufio.NewReader(out)}
}

func (f *folder) fold(t interface{ Fatal(...any) }, snapshot *domain.Snapshot, events []domain.Event) folded {
	line := append(mustJSON(t, map[string]any{"snapshot": snapshot, "events": events}), '\n')
	if _, err := f.in.Write(line); err != nil {
		t.Fatal(err)
	}
	answer, err := f.out.ReadBytes('\n')
	if err != nil {
		t.Fatal(err)
	}
	var got folded
	if err := json.Unmarshal(answer, &got); err != nil {
		t.Fatal(err)
	}
	return got
}

// folded is the output of client/test/fold.mjs.
type folded struct {
	Gap         int
	Position    domain.Position
	Seq         uint64
	Devices     []map[string]any
	Equipment   []map[string]any
	Assignments []map[string]any
	Connections []map[string]any
}

// The client and the server fold the same events to the same state.
func TestFoldAgrees(t *testing.T) {
	t.Parallel()
	client := newFolder(t)
	rapid.Check(t, func(t *rapid.T) {
		st := domain.NewState("s")
		events := make([]domain.Event, rapid.IntRange(1, 200).Draw(t, "events"))
		from := rapid.IntRange(0, len(events)-1).Draw(t, "the snapshot is taken after")
		var snapshot *domain.Snapshot
		for i := range events {
			events[i] = drawEvent(t, i+1)
			if i == from {
				snapshot = copyOf(t, st.Snapshot())
			}
			if _, err := st.Apply(&events[i]); errors.Is(err, domain.ErrGap) {
				t.Fatal(err)
			}
		}
		got := client.fold(t, snapshot, events[max(0, from-2):]) // the first few are in the snapshot already
		want := folded{Gap: -1}
		if err := json.Unmarshal(mustJSON(t, st.Snapshot()), &want); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(known(want), known(got)); diff != "" {
			t.Fatalf("server (-) and client (+) differ: %s", diff)
		}
	})
}

// copyOf returns a copy of a snapshot, which later events do not change.
func copyOf(t interface{ Fatal(...any) }, s *domain.Snapshot) *domain.Snapshot {
	var c domain.Snapshot
	if err := json.Unmarshal(mustJSON(t, s), &c); err != nil {
		t.Fatal(err)
	}
	return &c
}

func TestClientNoticesAGap(t *testing.T) {
	t.Parallel()
	one := domain.Event{Type: domain.TypeDeviceUpdate, SystemID: "s", Seq: 1, Data: []byte(`{"deviceId":"d"}`)}
	three := one
	three.Seq = 3
	got := newFolder(t).fold(t, domain.NewState("s").Snapshot(), []domain.Event{one, one, three})
	if got.Gap != 2 || got.Seq != 1 {
		t.Errorf("a repeated event and then a missing one: %+v", got)
	}
}

// known removes null and empty members, which are the same as absent ones to the client,
// and gives all times one format.
func known(f folded) folded {
	for _, list := range [][]map[string]any{f.Devices, f.Equipment, f.Assignments, f.Connections} {
		for _, row := range list {
			for key, value := range row {
				if value == nil || value == "" {
					delete(row, key)
				}
				if text, is := value.(string); is {
					if at, err := domain.ParseTime(text); err == nil {
						row[key] = domain.FormatTime(at)
					}
				}
			}
		}
	}
	return f
}

func mustJSON(t interface{ Fatal(...any) }, v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var begin = time.Date(2026, 11, 23, 18, 0, 0, 0, time.UTC)

// fieldValues are example values of the fields of a device except deviceTime.
var fieldValues = map[string][]any{
	"online": {true, false}, "relayOn": {true, false}, "channel": {0, 3}, "powerW": {0, 12.5}, "voltageV": {230.1}, "currentA": {0.05},
	"frequencyHz": {50}, "powerFactor": {0.98, -1}, "energyWh": {0, 100954.03}, "counterWh": {0, 100954.03},
	"energySince": {begin}, "energyOffsetWh": {-3.1, 0.7}, "temperatureC": {-4.5},
	"counterFalls": {[]any{}, []domain.CounterFall{{At: begin, CounterWh: 2.5, EnergyWh: 7}}},
	"source":       {"", "init"}, "errors": {[]string{}, []string{"overtemp"}}, "connectionId": {"c1", "c2"}, "name": {"Lamp"},
	"attributes": {map[string]any{}, map[string]any{"a": 1}},
}

// drawEvent draws an event about a few devices, pieces of equipment and connections.
func drawEvent(t *rapid.T, n int) domain.Event {
	id := func(kind string) string { return fmt.Sprint(kind, rapid.IntRange(1, 3).Draw(t, kind)) }
	// maybe returns a member that is absent, null or one of the values.
	maybe := func(name string, values ...any) string {
		switch i := rapid.IntRange(-2, len(values)-1).Draw(t, name); i {
		case -2:
			return ""
		case -1:
			return fmt.Sprintf(`,%q:null`, name)
		default:
			return fmt.Sprintf(`,%q:%s`, name, mustJSON(t, values[i]))
		}
	}
	deviceTime := func() string {
		unit := rapid.SampledFrom([]time.Duration{time.Millisecond, time.Microsecond}).Draw(t, "unit")
		at := begin.Add(time.Duration(rapid.IntRange(0, 1000).Draw(t, "device clock")) * unit)
		switch rapid.IntRange(0, 5).Draw(t, "device clock is") {
		case 0: // about as far ahead as is allowed
			at = at.Add(domain.MaxClockAhead + time.Duration(n)*time.Second)
		case 1: // far ahead
			at = at.AddDate(73, 0, 0)
		case 2: // a clock that was never set
			at = time.Unix(rapid.Int64Range(0, 1e9).Draw(t, "since 1970"), 0).UTC()
		}
		return maybe("deviceTime", at)
	}
	drawn := []struct {
		of   domain.EventType
		data func() string
	}{
		{domain.TypeDeviceUpdate, func() string {
			data := `"deviceId":"` + id("d") + `"`
			for _, name := range slices.Sorted(maps.Keys(fieldValues)) {
				data += maybe(name, fieldValues[name]...)
			}
			return data + deviceTime()
		}},
		{domain.TypeDeviceOfflineStatus, func() string {
			return `"deviceId":"` + id("d") + `","reason":"heartbeat-missed"` +
				maybe("online", true, false) + maybe("relayOn", true) + maybe("lastSeenAt", begin)
		}},
		{domain.TypeEnergyCorrected, func() string {
			return `"deviceId":"` + id("d") + `","commandId":"c"` + maybe("energyWh", 5000, 0.1, 33.333)
		}},
		{domain.TypeAssignmentUpdated, func() string { return `"deviceId":"` + id("d") + `"` + maybe("equipmentId", "e1", "e2") }},
		{domain.TypeEquipmentRegistered, func() string { return `"equipmentId":"` + id("e") + `","name":"Laser","kind":"laser"` }},
		{domain.TypeEquipmentUpdated, func() string {
			return `"equipmentId":"` + id("e") + `"` + maybe("name", "Láser") + maybe("kind", "lamp") +
				maybe("location", "room 3") + maybe("attributes", map[string]any{"b": 2})
		}},
		{domain.TypeEquipmentRetired, func() string { return `"equipmentId":"` + id("e") + `"` }},
		{domain.TypeConnectionCreated, func() string { return `"connectionId":"` + id("c") + `","kind":"shelly-cloud"` }},
		{domain.TypeConnectionStopped, func() string { return `"connectionId":"` + id("c") + `"` }},
		{domain.TypeConnectionStarted, func() string { return `"connectionId":"` + id("c") + `"` }},
		{domain.TypeConnectionRestarted, func() string { return `"connectionId":"` + id("c") + `"` }},
		{domain.TypeConnectionStateChanged, func() string {
			return `"connectionId":"` + id("c") + `","state":"disconnected"` + maybe("reason", "timeout")
		}},
		{domain.TypeConnectionDeleted, func() string { return `"connectionId":"` + id("c") + `"` }},
		{domain.TypeConnectionUpdated, func() string { return `"connectionId":"` + id("c") + `"` + maybe("name", "Annex") }},
		{"of-tomorrow", func() string { return `"deviceId":"` + id("d") + `"` }},
	}
	one := drawn[rapid.IntRange(0, len(drawn)-1).Draw(t, "type")]
	data, version := one.data(), 1
	switch rapid.IntRange(0, 19).Draw(t, "fault") {
	case 0: // a version that does not exist yet
		version = 2
	case 1: // data with a malformed member
		data += rapid.SampledFrom([]string{
			`,"relayOn":"yes"`, `,"channel":1.5`, `,"powerW":"7"`, `,"errors":[1]`, `,"counterFalls":[1]`,
			`,"counterFalls":[{"at":"noon"}]`, `,"energySince":7`, `,"energyWh":"much"`, `,"deviceTime":"noon"`,
			`,"deviceTime":"2026-11-23"`, `,"deviceTime":"2026-11-23T18:00:00"`, `,"deviceTime":"Nov 23, 2026"`, `,"name":7`,
			`,"deviceId":"a b"`, `,"equipmentId":".."`, `,"connectionId":7`, `,"reason":false`, `,"online":0`, `,"kind":1`, `,"location":[]`,
		}).Draw(t, "malformed member")
	}
	clock := rapid.SampledFrom([]time.Duration{0, 0, 123456 * time.Microsecond, time.Hour, -time.Hour})
	return domain.Event{
		ID: fmt.Sprint("id-", n), Type: one.of, Version: version, SystemID: "s", Actor: "maria", Data: json.RawMessage("{" + data + "}"),
		Origin:   rapid.SampledFrom([]string{"", "elsewhere"}).Draw(t, "origin"),
		Time:     begin.Add(time.Duration(n)*time.Second + clock.Draw(t, "clock")),
		Position: domain.Position{Ms: uint64(begin.UnixMilli() + int64(n)*1000)}, Seq: uint64(n),
	}
}
