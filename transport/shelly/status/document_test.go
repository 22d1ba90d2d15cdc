package status

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/plugcast/plugcast/domain"
)

func parse(t testing.TB, raw string) Document {
	t.Helper()
	d, err := Parse([]byte(raw))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		raw  string
		want error
	}{
		"nothing":               {"", ErrNotJSON},
		"a text":                {`"on"`, ErrNotAnObject},
		"null":                  {`null`, ErrNotAnObject},
		"a list":                {`[{"output":true}]`, ErrNotAnObject},
		"half of it":            {`{"switch:0":{"output":true}`, ErrNotJSON},
		"more behind it":        {`{} {}`, ErrNotJSON},
		"a text without end":    {`{"a":"\`, ErrNotJSON},
		"NaN":                   {`{"apower":NaN}`, ErrNotJSON},
		"too large":             {`{"a":"` + strings.Repeat("x", MaxBytes) + `"}`, ErrTooLarge},
		"deep":                  {strings.Repeat(`{"a":`, 17) + "1" + strings.Repeat("}", 17), ErrTooDeep},
		"deep lists":            {`{"a":` + strings.Repeat("[", 17) + strings.Repeat("]", 17) + "}", ErrTooDeep},
		"deep, and no end":      {strings.Repeat("[", MaxBytes), ErrTooDeep},
		"many members":          {`{"a":1` + strings.Repeat(`,"a":1`, 40_000) + "}", ErrTooMany},
		"a long list":           {`{"a":[0` + strings.Repeat(",0", 100_000) + "]}", ErrTooMany},
		"many empty objects":    {`{"a":[{}` + strings.Repeat(",{}", 80_000) + "]}", ErrTooMany},
		"huge, and then broken": {`{"a":1e999,`, ErrNotJSON},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if d, err := Parse([]byte(c.raw)); !errors.Is(err, c.want) || d != nil {
				t.Fatalf("%v, want %v", err, c.want)
			}
		})
	}
}

// A rejected document costs no memory, because the check comes first. The test is not
// parallel, because it counts the allocations of the whole process.
func TestRefusalIsCheap(t *testing.T) {
	keys := strings.Builder{}
	for i := range 20_000 {
		fmt.Fprintf(&keys, `"%d":1,`, i)
	}
	for name, raw := range map[string]string{
		"keys":  "{" + keys.String() + `"a":1}`,
		"depth": strings.Repeat("[", MaxBytes),
		"size":  strings.Repeat("[", 4*MaxBytes),
	} {
		hostile := []byte(raw)
		if n := testing.AllocsPerRun(10, func() { _, _ = Parse(hostile) }); n > 5 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]Document{
		`{}`:                            {},
		` [ ] `:                         {},
		`{"a":1e999,"b":2}`:             {"b": 2.0},
		`{"a":[1,-1e999,3],"b":1e-999}`: {"a": []any{1.0, nil, 3.0}, "b": 0.0},
		`{"a":{"b":` + strings.Repeat("9", 10_000) + `,"c":null}}`: {"a": map[string]any{"c": nil}},
		`{"a":1,"a":{"b":1},"a":{"c":2}}`:                          {"a": map[string]any{"c": 2.0}},
		`{"a":"\"},{[","b":[]}`:                                    {"a": `"},{[`, "b": []any{}},
		`{"__proto__":{"a":1}}`:                                    {"__proto__": map[string]any{"a": 1.0}},
	} {
		if diff := cmp.Diff(want, parse(t, raw)); diff != "" {
			t.Errorf("%.100s: %s", raw, diff)
		}
	}
}

// Merge follows RFC 7386, except for the cloud's [] for {}.
func TestMerge(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ full, delta, want string }{
		{`{"a":{"b":1,"c":{"d":2}}}`, `{"a":{"c":{"e":3}}}`, `{"a":{"b":1,"c":{"d":2,"e":3}}}`},
		{`{"a":{"b":1}}`, `{"a":{"b":null,"c":null}}`, `{"a":{}}`},
		{`{"a":1,"b":2}`, `{"a":null}`, `{"b":2}`},
		{`{}`, `{"a":{"b":{"c":null,"d":0}},"e":null}`, `{"a":{"b":{"d":0}}}`},
		{`{"a":[1,2,3]}`, `{"a":[4]}`, `{"a":[4]}`},
		{`{"a":[1]}`, `{"a":[]}`, `{"a":[]}`},
		{`{"a":{"b":1}}`, `{"a":[]}`, `{"a":{"b":1}}`},
		{`{"a":[]}`, `{"a":{"b":1}}`, `{"a":{"b":1}}`},
		{`{}`, `{"a":[]}`, `{"a":[]}`},
		{`{"a":{"b":1}}`, `{"a":false}`, `{"a":false}`},
		{`{"a":1}`, `{"a":{"b":1}}`, `{"a":{"b":1}}`},
		{`{"a":[{"b":1,"c":2}]}`, `{"a":[{"b":null}]}`, `{"a":[{"b":null}]}`},
		{`{"__proto__":1}`, `{"__proto__":{"constructor":2}}`, `{"__proto__":{"constructor":2}}`},
	} {
		d := parse(t, c.full)
		d.Merge(parse(t, c.delta))
		if diff := cmp.Diff(parse(t, c.want), d); diff != "" {
			t.Errorf("%s and %s: %s", c.full, c.delta, diff)
		}
	}
}

func TestMergeSharesNothing(t *testing.T) {
	t.Parallel()
	d := Document{}
	inner, inList := map[string]any{"b": 1.0}, map[string]any{"c": 1.0}
	list := []any{inList}
	d.Merge(Document{"a": inner, "l": list})
	inner["b"], inList["c"], list[0] = 2.0, 2.0, nil
	want := Document{"a": map[string]any{"b": 1.0}, "l": []any{map[string]any{"c": 1.0}}}
	if diff := cmp.Diff(want, d); diff != "" {
		t.Fatal(diff)
	}
}

// A status stays within its bounds for all ways to grow it, and its readings stay the same.
func TestMergeIsBounded(t *testing.T) {
	t.Parallel()
	text := strings.Repeat("x", 1000)
	for name, delta := range map[string]func(i int) Document{
		"components": func(i int) Document { return Document{fmt.Sprint("c:", i): map[string]any{"v": 1.0}} },
		"members":    func(i int) Document { return Document{"switch:0": map[string]any{fmt.Sprint("m", i): 1.0}} },
		"names":      func(i int) Document { return Document{fmt.Sprint(i, text): 1.0} },
		"texts":      func(i int) Document { return Document{fmt.Sprint("t", i%100): strings.Repeat("x", i)} },
		"lists":      func(i int) Document { return Document{"switch:0": map[string]any{"errors": make([]any, i)}} },
		"channels": func(i int) Document {
			errors := slices.Repeat([]any{text}, 100)
			return Document{fmt.Sprint("switch:", 1+i%255): map[string]any{"source": text, "errors": errors}}
		},
		"relays": func(i int) Document {
			return Document{"relays": slices.Repeat([]any{map[string]any{"source": text, "ison": true}}, i%300)}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := Document{"switch:0": map[string]any{"output": true}, "ts": 1786033227.0}
			merges := maxMembers + 100
			if name == "channels" || name == "relays" {
				merges = 600 // they are large, and soon too large
			}
			for i := range merges {
				d.Merge(delta(i))
				if d.oversized() {
					t.Fatalf("it is too large after %d merges", i)
				}
			}
			r := d.Readings()
			if on, known := r[0].RelayOn.Get(); !on || !known || r[0].Channel != 0 {
				t.Fatalf("%+v", r[0])
			}
			if _, ok := d.Time(); !ok {
				t.Fatal("the time is lost")
			}
		})
	}
}

func TestTime(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		`{"ts":1786033227.41,"sys":{"unixtime":1}}`:              "2026-08-06T16:20:27.41Z",
		`{"ts":1774112460}`:                                      "2026-03-21T17:01:00Z",
		`{"ts":null,"sys":{"unixtime":1786033227}}`:              "2026-08-06T16:20:27Z",
		`{"ts":"1786033227","sys":{"unixtime":1786033227}}`:      "2026-08-06T16:20:27Z",
		`{"unixtime":1707332241,"meters":[{"timestamp":1e9}]}`:   "2024-02-07T18:57:21Z",
		`{"meters":[{"timestamp":1707335841}]}`:                  "",
		`{"sys":{"unixtime":null,"time":null}}`:                  "",
		`{"sys":[],"unixtime":0}`:                                "",
		`{"ts":4.2}`:                                             "", // since it was switched on
		`{"ts":1e300}`:                                           "",
		`{"ts":-1786033227}`:                                     "",
		`{"serial":1786033227,"_updated":"2026-08-06 16:20:27"}`: "",
	} {
		at, ok := parse(t, raw).Time()
		if ok != (want != "") || ok && at.Format(time.RFC3339Nano) != want {
			t.Errorf("%s: %v, %v", raw, at, ok)
		}
	}
	if _, ok := (Document{"ts": math.NaN()}).Time(); ok {
		t.Error("NaN is a time")
	}
}

func TestWakeupPeriod(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]time.Duration{
		`{"sys":{"wakeup_period":7200}}`:   2 * time.Hour,
		`{"sys":{"wakeup_period":0}}`:      0,
		`{"sys":{"wakeup_period":-5}}`:     0,
		`{"sys":{"wakeup_period":1e300}}`:  30 * 24 * time.Hour,
		`{"sys":{"wakeup_period":"7200"}}`: 0,
		`{"sys":{}}`:                       0,
		`{}`:                               0,
	} {
		if got := parse(t, raw).WakeupPeriod(); got != want {
			t.Errorf("%s: %v", raw, got)
		}
	}
}

// samples returns the statuses in the recorded frames, by file and place.
func samples(t testing.TB) map[string]json.RawMessage {
	t.Helper()
	files, err := filepath.Glob("../testdata/samples/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no samples: %v", err)
	}
	out := map[string]json.RawMessage{}
	var look func(path string, raw json.RawMessage)
	look = func(path string, raw json.RawMessage) {
		out[path] = raw
		var members map[string]json.RawMessage
		if json.Unmarshal(raw, &members) != nil {
			return
		}
		for _, name := range slices.Sorted(maps.Keys(members)) {
			switch name {
			case "params", "result", "status", "data", "devices_status", "8cbfea9a1b2c", "5432045b561c", "b923fa":
				look(path+"/"+name, members[name])
			}
		}
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		look(strings.TrimSuffix(filepath.Base(file), ".json"), raw)
	}
	return out
}

// FuzzDocument merges a delta into a status, both from the wire.
func FuzzDocument(f *testing.F) {
	all := samples(f)
	full := all["rpc-notifyfullstatus-outbound-connect/params"]
	if full == nil {
		f.Fatal("a sample is missing")
	}
	for _, path := range slices.Sorted(maps.Keys(all)) {
		f.Add([]byte(full), []byte(all[path]))
		f.Add([]byte(all[path]), []byte(full))
	}
	f.Add([]byte(`{"switch:0":[],"pm1:0":{},"switch:255":{"apower":1e999}}`), []byte(`{"switch:0":{"output":null},"relays":[[]]}`))
	f.Fuzz(func(t *testing.T, full, delta []byte) {
		d, err := Parse(full)
		if err != nil {
			return
		}
		checkReadings(t, d)
		large := d.oversized()
		if diff := cmp.Diff(d.Readings(), d.Trim().Readings(), cmp.Comparer(sameReading)); diff != "" {
			t.Fatalf("a member that Trim removes is read: %s", diff)
		}
		change, err := Parse(delta)
		if err != nil {
			return
		}
		d.Merge(change)
		checkReadings(t, d)
		if !large && d.oversized() {
			t.Fatal("a merge made the document too large")
		}
		if again, err := Parse(delta); err != nil || !cmp.Equal(again, change) {
			t.Fatalf("the merge changed the delta, or it reads otherwise now: %v", err)
		}
		before := d.Readings()
		d.Merge(change)
		if diff := cmp.Diff(before, d.Readings(), cmp.Comparer(sameReading)); diff != "" {
			t.Fatalf("the same delta again changed something: %s", diff)
		}
	})
}

func checkReadings(t *testing.T, d Document) {
	readings := d.Readings()
	for i, r := range readings {
		if r.Channel < 0 || r.Channel > 255 || i > 0 && readings[i-1].Channel >= r.Channel {
			t.Fatalf("channels are not in order: %+v", readings)
		}
		for _, v := range []interface{ Get() (float64, bool) }{
			r.PowerW, r.VoltageV, r.CurrentA, r.FrequencyHz, r.PowerFactor, r.CounterWh, r.TemperatureC,
		} {
			if n, _ := v.Get(); !(math.Abs(n) <= maxReading) {
				t.Fatalf("%v is no reading", n)
			}
		}
		faults, known := r.Errors.Get()
		if source, _ := r.Source.Get(); !known || len(source) > maxString || len(faults) > maxList {
			t.Fatalf("it cannot be in an event: %+v", r)
		}
	}
	if at, ok := d.Time(); ok && at.Year() < 2001 {
		t.Fatalf("%v is no time", at)
	}
	d.WakeupPeriod()
}

func sameReading(a, b Reading) bool {
	for _, f := range domain.DeviceFields {
		if f.IsPresent(&a.DeviceUpdate) != f.IsPresent(&b.DeviceUpdate) || !f.Equal(&a.DeviceUpdate, &b.DeviceUpdate) {
			return false
		}
	}
	return a.Channel == b.Channel && a.Switch == b.Switch
}

func TestParseMendsTexts(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		"\xef\xbb\xbf{\"a\":\"b\xff\xfec\"}": "b\uFFFDc",
		"{\"a\":\"b\x01c\"}":                 "b\uFFFDc",
		"{\"a\":\"b\nc\\\"\x00\"}\x00":       "b\uFFFDc\"\uFFFD",
		"\x00{\n\"a\"\x1f:\t\"\\\\\"\r\n}":   "\\",
	} {
		doc, err := Parse([]byte(raw))
		if err != nil || doc["a"] != want {
			t.Errorf("%q is read as %q, %v", raw, doc, err)
		}
	}
}

// A device without a relay is channel 0, with bounded attributes.
func TestReadingsBeyondRelays(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		`{"light:0":{"id":0,"output":true,"brightness":50,"apower":12.5,` +
			`"aenergy":{"total":7,"by_minute":[1,2,3]},"transition":{"x":1}}}`: `powerW 12.5, {"light:0":` +
			`{"aenergy":{"total":7},"apower":12.5,"brightness":50,"output":true}}`,
		`{"cover:0":{"state":"open","current_pos":100,"apower":0},` +
			`"input:0":{"state":false}}`: `powerW 0, {"cover:0":{"apower":0,"current_pos":100,"state":"open"}}`,
		`{"em:0":{"total_act_power":900,"a_voltage":231,"user_calibrated_phase":[]},` +
			`"emdata:0":{"total_act":5}}`: `powerW 900, {"em:0":{"a_voltage":231,"total_act_power":900},"emdata:0":{"total_act":5}}`,
		`{"lights":[{"ison":true,"brightness":3,"x":1}],"meters":[]}`:         `powerW 0, {"lights":[{"brightness":3,"ison":true}]}`,
		`{"light:x":{},"light:01":{},"lights:0":{},"temperature:0":{"tC":1}}`: ``,
		`{"cover:0":{"state":"<open> & \u2028"}}`:                             `powerW 0, {"cover:0":{"state":"<open> & \u2028"}}`,
		`{"light:0":{"output":true},"switch:0":{"output":true}}`:              `powerW 0, `,
		`{"cover:0":{"state":"open"},"switch:1":{"output":true}}`:             `powerW 0, {"cover:0":{"state":"open"}}`,
	} {
		readings := parse(t, raw).Readings()
		got := ""
		if len(readings) > 0 {
			power, _ := readings[0].PowerW.Get()
			got = fmt.Sprintf("powerW %v, %s", power, readings[0].Attributes)
		}
		if got != want {
			t.Errorf("%s\n is %s\nnot %s", raw, got, want)
		}
		if diff := cmp.Diff(readings, parse(t, raw).Trim().Readings(), cmp.Comparer(sameReading)); diff != "" {
			t.Errorf("trimmed, %s reads otherwise: %s", raw, diff)
		}
	}
	many := Document{}
	for i := range 200 {
		many[fmt.Sprint("light:", i)] = map[string]any{"output": true, "source": strings.Repeat("ü<\x00", 200)}
	}
	if r := many.Readings(); len(r) != 1 || len(r[0].Attributes) > maxAttributes || len(r[0].Attributes) < maxAttributes/2 {
		t.Errorf("%d readings, the first with %d bytes of attributes", len(r), len(r[0].Attributes))
	}
}
