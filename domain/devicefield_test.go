package domain

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// The table has every field of an update, and every field of a row except those that the fold computes.
func TestTableHasEveryDeviceField(t *testing.T) {
	t.Parallel()
	var table []string
	for _, f := range DeviceFields {
		table = append(table, f.Name)
	}
	update := jsonNames(reflect.TypeFor[DeviceUpdate](), "deviceId", "changed")
	if !slices.Equal(table, update) {
		t.Errorf("the table has %v, and DeviceUpdate %v", table, update)
	}
	row := jsonNames(reflect.TypeFor[Device](), "deviceId", "lastSeenAt", "offlineReason", "updatedAt", "position", "origin")
	if !slices.Equal(table, row) {
		t.Errorf("the table has %v, and Device %v", table, row)
	}
}

func jsonNames(of reflect.Type, but ...string) (names []string) {
	for i := range of.NumField() {
		name, _, _ := strings.Cut(of.Field(i).Tag.Get("json"), ",")
		if !slices.Contains(but, name) {
			names = append(names, name)
		}
	}
	return names
}

// Each line of the table accesses the field with its name, and no other.
func TestTableReachesItsFields(t *testing.T) {
	t.Parallel()
	for i, f := range DeviceFields {
		u := DeviceUpdate{}
		f.SetNull(&u)
		if got, want := marshal(t, u), `{"deviceId":"","`+f.Name+`":null}`; got != want {
			t.Errorf("%s is written %s, want %s", f.Name, got, want)
		}
		if !f.IsPresent(&u) || f.HasValue(&u) || !f.Equal(&u, &DeviceUpdate{}) {
			t.Errorf("%s that is null is %v in, %v known", f.Name, f.IsPresent(&u), f.HasValue(&u))
		}
		for j, other := range DeviceFields {
			if other.IsPresent(&u) != (i == j) {
				t.Errorf("%s and %s are one field", f.Name, other.Name)
			}
		}
	}
}

func marshal(t *testing.T, v any) string {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// genFields draws an update with any set of fields, with few different values.
func genFields(t *rapid.T) (u DeviceUpdate) {
	at := epoch.Add(time.Duration(rapid.IntRange(0, 9).Draw(t, "clock")) * time.Second)
	n := float64(rapid.IntRange(0, 1000).Draw(t, "n"))
	all := DeviceUpdate{
		Online: Some(n > 500), RelayOn: Some(n < 500), Channel: Some(3), PowerW: Some(n), VoltageV: Some(n + 1), CurrentA: Some(n + 2),
		FrequencyHz: Some(n + 3), PowerFactor: Some(n + 4), EnergyWh: Some(n + 5), CounterWh: Some(n + 6), TemperatureC: Some(n + 7),
		EnergySince: Some(at), EnergyOffsetWh: Some(n + 8), CounterFalls: Some([]CounterFall{{At: at, CounterWh: n, EnergyWh: n}}),
		Source: Some("init"), Errors: Some([]string{"overtemp"}), DeviceTime: Some(at), ConnectionID: Some(ConnectionID("c1")),
		Name: Some("laser"), Attributes: json.RawMessage(`{"a":1}`),
	}
	for _, f := range DeviceFields {
		if !f.HasValue(&all) {
			t.Fatalf("this test has no value for %s", f.Name)
		}
		switch rapid.IntRange(0, 2).Draw(t, f.Name) {
		case 0:
			f.Copy(&u, &all)
		case 1:
			f.SetNull(&u)
		}
	}
	return u
}

// A row to which one update was applied has all values of the update, and so has an update made from the row.
func TestUpdateOfARowSaysWhatItKnows(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		u := genFields(t)
		row := &Device{}
		u.fold(row)
		again := UpdateFromDevice(row)
		for _, f := range DeviceFields {
			if f.Name == "energyOffsetWh" { // only corrections set it
				f.Copy(&u, &DeviceUpdate{})
			}
			if !f.Equal(&u, &again) {
				t.Fatalf("%s was lost between %+v and %+v", f.Name, u, again)
			}
			if f.IsPresent(&again) != f.HasValue(&u) {
				t.Fatalf("%s is in an update of a row that does not know it", f.Name)
			}
		}
	})
}

// A device whose clock is ahead, or was never set, does not stop changing.
func TestClockThatIsWrongDoesNotOrder(t *testing.T) {
	t.Parallel()
	s, seq := NewState("clinica-sol"), uint64(0)
	// Every second update switches the relay on, so that each has a visible effect.
	apply := func(deviceTime time.Time, origin string, ahead time.Duration) *Device {
		t.Helper()
		seq++
		arrival := epoch.Add(time.Duration(seq) * time.Second)
		e, err := NewEvent("clinica-sol", DeviceUpdate{DeviceID: "d1", RelayOn: Some(seq%2 == 0), DeviceTime: Some(deviceTime)}, Cause{})
		if err != nil {
			t.Fatal(err)
		}
		e.Time, e.Origin, e.Position = arrival.Add(ahead), origin, Position{Ms: uint64(arrival.UnixMilli())}
		if _, err := s.Apply(&e); err != nil {
			t.Fatal(err)
		}
		return s.Devices["d1"]
	}
	for _, c := range []struct {
		name    string
		at      time.Time
		origin  string
		ahead   time.Duration // by which the event's own time is ahead
		folds   bool
		ordered bool
	}{
		{"now", epoch, "", 0, true, true},
		{"in 2099", epoch.AddDate(73, 0, 0), "", 0, true, false},
		{"now again", epoch.Add(2 * time.Second), "", 0, true, true},
		{"older", epoch.Add(time.Second), "", 0, false, false},
		{"in 1970", time.Unix(0, 0), "", 0, true, false},
		{"in 2000", time.Date(2000, 1, 1, 0, 0, 5, 0, time.UTC), "", 0, true, false},
		{"a bit ahead", epoch.Add(7*time.Second + MaxClockAhead), "", 0, true, true},
		{"corrected", epoch.Add(7 * time.Second), "", 0, false, false},
		{"a bit more ahead", epoch.Add(9*time.Second + MaxClockAhead + 1000), "", 0, true, false},
		{"of a bridge whose own clock is ahead", epoch.Add(20 * time.Minute), "elsewhere", 20 * time.Minute, true, false},
		{"of a bridge that was cut for an hour", epoch.Add(10*time.Second + MaxClockAhead), "elsewhere", -time.Hour, true, false},
	} {
		before := s.Devices["d1"]
		var known *time.Time
		if before != nil {
			known = before.DeviceTime
		}
		d := apply(c.at, c.origin, c.ahead)
		at := epoch.Add(time.Duration(seq) * time.Second)
		if folded := *d.RelayOn == (seq%2 == 0) && d.Position.Ms == uint64(at.UnixMilli()); folded != c.folds {
			t.Errorf("%s: folded is %v", c.name, folded)
		}
		if ordered := d.DeviceTime != known; ordered != c.ordered {
			t.Errorf("%s: the device time is %v", c.name, d.DeviceTime)
		}
	}
}

// A correction sets the total, which continues from there, whether or not the sender of the next update knows of it.
func TestEnergyGoesOnFromACorrection(t *testing.T) {
	t.Parallel()
	s, at := NewState("clinica-sol"), Position{}
	apply := func(typ EventType, data string) {
		t.Helper()
		at.Ms++
		e := Event{Type: typ, Version: 1, Position: at, Time: epoch, Data: json.RawMessage(data)}
		if _, err := s.Apply(&e); err != nil {
			t.Fatal(err)
		}
	}
	for _, step := range []struct {
		typ  EventType
		data string
		want string
	}{
		{TypeEnergyCorrected, `{"deviceId":"d1","commandId":"c","energyWh":7}`, ""}, // of a device that is not known
		{TypeDeviceUpdate, `{"deviceId":"d1","energyWh":100.1,"counterWh":100.1}`, "100.1"},
		{TypeEnergyCorrected, `{"deviceId":"d1","commandId":"c","energyWh":5000}`, "5000"},
		{TypeDeviceUpdate, `{"deviceId":"d1","energyWh":100.3,"counterWh":100.3}`, "5000.2"},
		{TypeDeviceUpdate, `{"deviceId":"d1","energyWh":5000.4,"energyOffsetWh":4899.9,"counterWh":100.5}`, "5000.4"},
		{TypeEnergyCorrected, `{"deviceId":"d1","commandId":"c","energyWh":90}`, "90"},
		{TypeDeviceUpdate, `{"deviceId":"d1","energyWh":5001.4,"energyOffsetWh":4899.9,"counterWh":101.5}`, "91"},
		{TypeDeviceUpdate, `{"deviceId":"d1","energyWh":null}`, ""},
		{TypeDeviceUpdate, `{"deviceId":"d1","energyWh":102}`, "91.5"},
	} {
		apply(step.typ, step.data)
		got := ""
		if d := s.Devices["d1"]; d != nil && d.EnergyWh != nil {
			got = marshal(t, *d.EnergyWh)
		}
		if got != step.want {
			t.Errorf("after %s: %s, want %s", step.data, got, step.want)
		}
	}
}
