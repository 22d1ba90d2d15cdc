package shelly

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/plugcast/plugcast/domain"
)

// model is a naive device: every value of the full state by its path, and all readings of
// counters.
type model struct {
	flat     map[string]any
	counters map[int][]reading // all readings
	heard    time.Time
	named    string
}

func (m *model) full(doc map[string]any, now time.Time) {
	m.flat = map[string]any{}
	m.delta(doc, now)
}

func (m *model) delta(doc map[string]any, now time.Time) {
	m.overlay("", doc)
	m.count(now)
}

// overlay writes an object's leaves. The object itself is an empty leaf.
func (m *model) overlay(path string, doc map[string]any) {
	m.flat[path] = struct{}{}
	for name, v := range doc {
		inner := path + "/" + name
		object, isObject := v.(map[string]any)
		_, isThere := m.flat[inner].(struct{})
		if list, ok := v.([]any); ok && len(list) == 0 && strings.Contains("/switch:0/switch:2/pm1:1/aenergy/temperature", "/"+name) {
			object, isObject = map[string]any{}, true
		}
		if !isObject || !isThere {
			maps.DeleteFunc(m.flat, func(p string, _ any) bool { return p == inner || strings.HasPrefix(p, inner+"/") })
		}
		switch {
		case isObject:
			m.overlay(inner, object)
		case v != nil:
			m.flat[inner] = v
		}
	}
}

// count keeps the readings of the counters for the naive reference.
func (m *model) count(now time.Time) {
	after := now.Sub(m.heard)
	m.heard = now
	for channel, component := range modelChannels {
		shown := reading{after: after}
		counter, ok := m.flat[component+"/aenergy/total"].(float64)
		if shown.counter = counter; !ok || counter < 0 || counter > 1e12 {
			shown.counter = math.NaN()
		}
		m.counters[channel] = append(m.counters[channel], shown)
	}
}

var modelChannels = map[int]string{0: "/switch:0", 1: "/pm1:1", 2: "/switch:2"}

// want returns the expected row of a channel, as JSON by field.
func (m *model) want(channel int) map[string]string {
	component := modelChannels[channel]
	out := map[string]string{}
	put := func(field string, v any) {
		raw, _ := json.Marshal(v)
		out[field] = string(raw)
	}
	if _, shown := m.flat[component].(struct{}); shown {
		put("errors", []string{})
		for name, field := range map[string]string{
			"output": "relayOn", "apower": "powerW", "voltage": "voltageV", "temperature/tC": "temperatureC",
			"source": "source", "errors": "errors",
		} {
			switch v := m.flat[component+"/"+name].(type) {
			case bool:
				if field == "relayOn" && component != "/pm1:1" {
					put(field, v)
				}
			case float64:
				if field != "relayOn" && field != "source" && field != "errors" && math.Abs(v) <= 1e12 {
					put(field, v)
				}
			case string:
				if field == "source" && component != "/pm1:1" {
					put(field, v)
				}
			case []any:
				if field == "errors" {
					put(field, v)
				}
			}
		}
	}
	put("channel", channel)
	put("connectionId", cred.ID)
	if m.named != "" {
		put("name", m.named)
	}
	return out
}

func genDocument() *rapid.Generator[map[string]any] {
	values := map[string][]any{
		"output":      {true, false, true, false, nil, "on", 0.0},
		"apower":      {0.0, 0.4, 40.0, 40.5, 43.0, 2000.0, -5.0, 1e300, nil, "12", true},
		"voltage":     {230.0, 231.5, nil},
		"source":      {"init", "button", "", nil, 7.0},
		"errors":      {[]any{"overtemp"}, []any{"overpower", "overtemp"}, []any{}, nil, true},
		"counts":      {map[string]any{"on_time": 5.0}, nil},
		"temperature": {map[string]any{"tC": 20.0}, map[string]any{"tC": 21.5}, map[string]any{"tC": nil}, map[string]any{}, []any{}, nil},
		"aenergy": {
			map[string]any{"total": 0.0}, map[string]any{"total": 1.0}, map[string]any{"total": 100.0}, map[string]any{"total": 101.5},
			map[string]any{"total": 90.0}, map[string]any{"total": -3.0}, map[string]any{"total": nil}, map[string]any{"total": 5000.25},
			map[string]any{"total": 4999.0}, map[string]any{"total": 40.1}, map[string]any{"total": 0.3}, map[string]any{"total": 70.7},
			map[string]any{}, []any{}, nil, 3.0,
		},
	}
	names := slices.Sorted(maps.Keys(values))
	return rapid.Custom(func(t *rapid.T) map[string]any {
		doc := map[string]any{}
		for _, component := range []string{"switch:0", "pm1:1", "switch:2", "cloud"} {
			switch rapid.IntRange(0, 9).Draw(t, component) {
			case 0, 1, 2, 3, 4, 5:
				c := map[string]any{}
				for _, name := range rapid.SliceOfNDistinct(rapid.SampledFrom(names), 0, 5, rapid.ID).Draw(t, "fields") {
					c[name] = rapid.SampledFrom(values[name]).Draw(t, name)
				}
				doc[component] = c
			case 6:
				doc[component] = []any{}
			case 7:
				doc[component] = nil
			}
		}
		switch rapid.IntRange(0, 3).Draw(t, "clock") {
		case 0:
			doc["ts"] = float64(epoch.Unix()) + rapid.Float64Range(-100, 100).Draw(t, "ts")
		case 1:
			doc["sys"] = map[string]any{"unixtime": rapid.SampledFrom([]any{nil, 0.0, float64(epoch.Unix())}).Draw(t, "unixtime")}
		}
		return doc
	})
}

// For random frames and changing holders, the platform has the state of the naive model in
// the end, and energy never falls on the way.
func TestDeviceAgreesWithNaiveModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		b := setup(t)
		m := &model{counters: map[int][]reading{}, heard: b.now}
		full := func() {
			doc := genDocument().Draw(t, "full")
			m.full(doc, b.now)
			b.full(encode(t, doc))
		}
		full()
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			switch rapid.IntRange(0, 9).Draw(t, "step") {
			case 0:
				full()
			case 1:
				takeAll(t, b) // or the counters since the last update are lost
				b.restart()
				full()
				if m.named != "" {
					b.SetName(m.named)
				}
			case 2:
				m.named = rapid.SampledFrom([]string{"laser 1", "lamp", strings.Repeat("n", 250)}).Draw(t, "name")
				b.SetName(m.named)
			case 3:
				b.SetOnline(rapid.Bool().Draw(t, "online"))
			default:
				doc := genDocument().Draw(t, "delta")
				m.delta(doc, b.now)
				b.delta(encode(t, doc))
			}
			if rapid.Bool().Draw(t, "takes") {
				take(t, b, time.Duration(rapid.IntRange(0, 90_000).Draw(t, "ms"))*time.Millisecond)
			}
		}
		takeAll(t, b)
		compare(t, b, m)
	})
}

func encode(t *rapid.T, doc map[string]any) string {
	raw, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// take takes once, and checks the invariants of each update.
func take(t *rapid.T, b *bundle, after time.Duration) {
	before := map[domain.DeviceID]float64{}
	for id, row := range b.state.Devices {
		if row.EnergyWh != nil {
			before[id] = *row.EnergyWh
		}
	}
	due, waits := b.Due()
	updates := b.take(after)
	if expected := waits && !due.After(b.now); expected != (len(updates) > 0) {
		t.Fatalf("due %v at %v, and %d updates were taken at %v", waits, due, len(updates), b.now)
	}
	for _, u := range updates {
		if u.Online != b.online {
			t.Fatalf("an update says online: %+v", u.Online)
		}
	}
	for id, was := range before {
		if is := b.state.Devices[id].EnergyWh; is == nil || *is < was {
			t.Fatalf("energy of %s fell from %v to %v", id, was, is)
		}
	}
}

// takeAll takes until no update waits.
func takeAll(t *rapid.T, b *bundle) {
	take(t, b, time.Minute)
	if at, waits := b.Due(); waits {
		t.Fatalf("something waits for %v, a minute after the last change", at)
	}
	if updates := b.take(time.Hour); updates != nil {
		t.Fatalf("nothing is due, and yet: %+v", updates)
	}
}

func compare(t *rapid.T, b *bundle, m *model) {
	for channel := range modelChannels {
		id := plug
		if channel > 0 {
			id += domain.DeviceID(fmt.Sprint(":", channel))
		}
		row := b.state.Devices[id]
		if row == nil {
			if _, shown := m.flat[modelChannels[channel]].(struct{}); shown {
				t.Fatalf("the platform does not know of %s", id)
			}
			continue
		}
		got, want := wire(t, row), m.want(channel)
		for _, name := range wireNames {
			switch name {
			case "online", "energyWh", "counterWh", "energySince", "counterFalls":
			default:
				if got[name] != want[name] {
					t.Fatalf("%s of %s is %q, want %q", name, id, got[name], want[name])
				}
			}
		}
		energy, counter, counted := naive(m.counters[channel])
		if counted != (row.EnergyWh != nil) || counted && math.Abs(*row.EnergyWh-energy) > 1e-6 {
			t.Fatalf("energy of %s is %v, want %v", id, got["energyWh"], energy)
		}
		if counted && *row.CounterWh != counter {
			t.Fatalf("counter of %s is %v, want %v", id, *row.CounterWh, counter)
		}
	}
}
