package domain

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"
)

// survives fails unless the event is the same after it was written and read in every form that events have.
func survives(t interface{ Fatalf(string, ...any) }, e Event) {
	if err := e.Canonicalize(); err != nil {
		t.Fatalf("it is not canonical: %v\n%s", err, e.AppendEnvelope(nil))
	}
	envelope := e.AppendEnvelope(nil)
	var read Event
	if err := json.Unmarshal(envelope, &read); err != nil || !bytes.Equal(read.AppendEnvelope(nil), envelope) {
		t.Fatalf("the envelope is read as %s, %v\nwritten %s", read.AppendEnvelope(nil), err, envelope)
	}
	if strict, err := ParseEnvelope(envelope); err != nil || !bytes.Equal(strict.AppendEnvelope(nil), envelope) {
		t.Fatalf("the envelope is refused: %v\n%s", err, envelope)
	}
	link := HashedEvent{Event: e, Previous: &Hash{}}
	line := link.AppendCloudEvent(nil)
	if bytes.ContainsAny(line, "\r\n") || len(line) > MaxEventBytes {
		t.Fatalf("the line has %d bytes, or is more than one:\n%.2000s", len(line), line)
	}
	if again, err := ParseCloudEvent(line); err != nil || !bytes.Equal(again.AppendCloudEvent(nil), line) {
		t.Fatalf("the line is read as %s, %v\nwritten %s", again.AppendCloudEvent(nil), err, line)
	}
	st := NewState(e.SystemID)
	if _, err := st.Apply(&e); err != nil && e.Version <= currentVersion(e.Type) {
		t.Fatalf("the fold says %v\n%s", err, envelope)
	}
	snapshot, err := EncodeJSON(st.Snapshot())
	if err != nil {
		t.Fatalf("the state after %s cannot be written: %v", envelope, err)
	}
	// As a row of the database: a text or json column rejects some texts.
	if CheckStorableJSON(snapshot) != nil || !utf8.Valid(e.Data) {
		t.Fatalf("the state after it cannot be kept: %v\n%s", CheckStorableJSON(snapshot), snapshot)
	}
	for _, d := range st.Devices {
		for _, at := range []*time.Time{d.DeviceTime, d.LastSeenAt, &d.UpdatedAt} {
			if at != nil && at.Location() != time.UTC {
				t.Fatalf("a time of the state is not UTC: %s", snapshot)
			}
		}
	}
}

// oddValues are tokens that people and programs send as a value.
var oddValues = []string{
	`null`, `true`, `"x"`, `"on"`, `1`, `1.0`, `1e0`, `-1`, `255`, `256`, `1.5`, `1e400`, `-0`, `0.1000000000000000055`, `1E-400`,
	`123456789012345678901234567890`, `"\u0000"`, `"\ud800"`, `"\ud83d\ude00"`, `"\udc00\ud800"`, "\"\xff\"", "\"\u2028\"", `"<&>"`,
	`"2026-11-23T18:00:00Z"`, `"2026-11-23t18:00:00z"`, `"2026-11-23T18:00:00+01:00"`, `"2026-11-23T18:00:00+24:00"`,
	`"2026-11-23T18:00:00+23:60"`, `"9999-12-31T23:59:59-23:59"`, `"0000-01-01T00:00:00+23:59"`, `"2026-11-23T18:00:00,5Z"`,
	`"10000-01-01T00:00:00Z"`, `"2026-11-23T24:00:00Z"`, `{}`, `[]`, `["a"]`, `["\u0000"]`, `{"a":{"b":[1e999,"\u0000"]}}`,
	"{ \"b\" :\n1.50,\t\"a\":\"\\u003c\",\"a\":2 }", `{"a":"<"}`,
	`"` + strings.Repeat("x", 300) + `"`, `"` + strings.Repeat(`\u0001`, 2000) + `"`,
	`"d1"`, `"a b"`, `""`, `"acc1"`, strings.Repeat("[", 600) + strings.Repeat("]", 600), `nul`, `{"a"}`,
}

// odd draws data of some type. Most of it is well-formed, and hardly any of it is ordinary.
func odd(t *rapid.T) (EventType, json.RawMessage) {
	types := make([]string, 0, len(eventTypes)+1)
	for typ := range samples() {
		types = append(types, string(typ))
	}
	typ := EventType(rapid.SampledFrom(append(types, "of-the-future", "device-update", "device-update")).Draw(t, "type"))
	names := []string{"unknown", "DeviceId", `\u0064eviceId`, "deviceid", `a\u0000`}
	for name := range eventTypes[typ].fields {
		names = append(names, name)
	}
	var b strings.Builder
	b.WriteString(rapid.SampledFrom([]string{"{", " {\n", "{", "{"}).Draw(t, "open"))
	for _, id := range []string{"deviceId", "equipmentId", "connectionId"} {
		if _, has := eventTypes[typ].fields[id]; has && rapid.IntRange(0, 9).Draw(t, "id") > 0 {
			fmt.Fprintf(&b, `"%s":"d1",`, id)
		}
	}
	for range rapid.IntRange(0, 5).Draw(t, "members") {
		fmt.Fprintf(&b, `"%s":%s,`, rapid.SampledFrom(names).Draw(t, "name"), rapid.SampledFrom(oddValues).Draw(t, "value"))
	}
	closing := rapid.SampledFrom([]string{"}", "}", "}", "\r\n}", "", "}}"}).Draw(t, "close")
	return typ, json.RawMessage(strings.TrimSuffix(b.String(), ",") + closing)
}

// Every event that arrives over a bridge is kept, and can be written in every form.
func TestImportedEventsSurvive(t *testing.T) {
	t.Parallel()
	known := 0
	rapid.Check(t, func(t *rapid.T) {
		typ, data := odd(t)
		e := Event{
			ID: "0192f0a0-0000-7000-8000-000000000001", Type: typ, Version: rapid.SampledFrom([]int{1, 1, 1, 2, math.MaxInt32}).Draw(t, "version"),
			SystemID: "clinica-sol", Time: time.Date(2026, 11, 23, 18, 0, 0, 123456789, time.UTC), Actor: "<Ana> \u2028 \"ñ\"",
			CorrelationID: strings.Repeat("\x01", rapid.IntRange(0, maxEnvelopeText).Draw(t, "correlation")),
			Position:      Position{math.MaxUint64, math.MaxUint64}, Seq: 1, Data: data,
		}
		foreign := e.AsImported("far")
		if foreign.Type == typ {
			known++
		} else if foreign.Type != TypeUndecodable {
			t.Fatalf("it became %s", foreign.Type)
		}
		foreign.Seq = 1
		survives(t, foreign)
		if again := foreign.AsImported("further"); again.Type != foreign.Type || !bytes.Equal(again.Data, foreign.Data) {
			t.Fatalf("over the next bridge it becomes %s %s, from %s", again.Type, again.Data, foreign.Data)
		}
	})
	if known == 0 && !testing.Short() { // a few draws may all be odd
		t.Error("nothing was what its type says")
	}
}

// Every published update that is accepted survives as well.
func TestPublishedUpdatesSurvive(t *testing.T) {
	t.Parallel()
	accepted := 0
	rapid.Check(t, func(t *rapid.T) {
		_, data := odd(t)
		raw := append([]byte(`{"systemId":"clinica-sol","deviceId":"d1",`), bytes.TrimPrefix(bytes.TrimSpace(data), []byte("{"))...)
		u, err := ParseSystemUpdate(raw)
		if err != nil {
			if AsError(err).Kind != KindInvalid {
				t.Fatalf("%v", err)
			}
			return
		}
		accepted++
		e, err := NewEvent(u.SystemID, u.DeviceUpdate, Cause{Actor: "backend"})
		if err != nil {
			t.Fatalf("%s is taken and cannot be written: %v", raw, err)
		}
		e.ID, e.Time, e.Position, e.Seq = "x", time.Date(2026, 11, 23, 18, 0, 0, 0, time.UTC), Position{1, 0}, 1
		survives(t, e)
		if foreign := e.AsImported("far"); foreign.Type != e.Type || !bytes.Equal(foreign.Data, e.Data) {
			t.Fatalf("what is published does not pass a bridge: %s", foreign.Data)
		}
	})
	if accepted == 0 && !testing.Short() { // a few draws may all be odd
		t.Error("nothing was accepted")
	}
}

// Data within its bounds passes a bridge. Data beyond them becomes undecodable, and is kept whole if it fits.
func TestImportBounds(t *testing.T) {
	t.Parallel()
	text := strings.Repeat("x", maxText)
	list := strings.TrimSuffix(strings.Repeat(`"a",`, maxList), ",")
	for _, c := range []struct {
		typ      EventType
		in, over string
	}{
		{TypeDeviceUpdate, `{"deviceId":"d1","name":"` + text + `"}`, `{"deviceId":"d1","name":"` + text + `x"}`},
		{TypeDeviceUpdate, `{"deviceId":"d1","errors":[` + list + `]}`, `{"deviceId":"d1","errors":[` + list + `,"a"]}`},
		{TypeDeviceUpdate, `{"deviceId":"d1","channel":255}`, `{"deviceId":"d1","channel":256}`},
		{TypeDeviceUpdate, `{"deviceId":"d1","attributes":{}}`, `{"deviceId":"d1","attributes":[]}`},
		{TypeDeviceUpdate, `{"deviceId":"d1","connectionId":"a"}`, `{"deviceId":"d1","connectionId":"a b"}`},
		{TypeDeviceUpdate, `{"deviceId":"d1","a":1,"a":2}`, `{"deviceId":"d1","powerW":1,"powerW":2}`},
		{TypeDeviceUpdate, `{"deviceId":"d1","powered":1}`, `{"deviceId":"d1","PowerW":1}`},
		{TypeDeviceUpdate, `{"deviceId":"d1","energyWh":1e15}`, `{"deviceId":"d1","energyWh":1e16}`},
		{TypeDeviceUpdate, `{"deviceId":"d1","counterWh":-1e15}`, `{"deviceId":"d1","counterWh":-1e308}`},
		{TypeDeviceUpdate, `{"deviceId":"d1","energyOffsetWh":-1}`, `{"deviceId":"d1","energyOffsetWh":1e308}`},
		{TypeDeviceUpdate, `{"deviceId":"d1","errors":[""],"changed":[""]}`, `{"deviceId":"d1","errors":["a",null]}`},
		{TypeDeviceUpdate, `{"deviceId":"d1","changed":null}`, `{"deviceId":"d1","changed":[null]}`},
		{TypeDeviceUpdate, falling(`{"at":"2026-11-29t03:00:00+01:00","counterWh":1,"energyWh":2.50}`),
			falling(`{"at":"2026-11-29T03:00:00+24:00","counterWh":1,"energyWh":2}`)},
		{TypeDeviceUpdate, falling(``), falling(`null`)},
		{TypeDeviceUpdate, falling(`{"energyWh":2,"counterWh":1,"at":"2026-11-29T03:00:00Z"}`),
			falling(`{"At":"2026-11-29T03:00:00Z","counterWh":1,"energyWh":2}`)},
		{TypeDeviceUpdate, falling(`{"at":"2026-11-29T03:00:00Z","counterWh":1,"energyWh":2}`),
			falling(`{"at":"2026-11-29T03:00:00,5Z","counterWh":1,"energyWh":2}`)},
		{TypeDeviceUpdate, falling(`{"at":"2026-11-29T03:00:00Z","counterWh":1,"energyWh":2}`),
			falling(`{"at":"2026-11-29T03:00:00Z","counterWh":1,"energyWh":1e308}`)},
		{TypeDeviceUpdate, falling(`{"at":"2026-11-29T03:00:00Z","counterWh":1,"energyWh":2}`),
			falling(`{"at":"2026-11-29T03:00:00Z","counterWh":1,"energyWh":2,"mine":3}`)},
		{TypeEnergyCorrected, `{"commandId":"c","deviceId":"d1","energyWh":1e12}`, `{"commandId":"c","deviceId":"d1","energyWh":1e308}`},
		{TypeEnergyCorrected, `{"commandId":"c","deviceId":"d1","energyWh":0}`, `{"commandId":"c","deviceId":"d1","energyWh":-1}`},
		{TypeDeviceOfflineStatus, `{"deviceId":"d1","online":false}`,
			`{"deviceId":"d1","online":false,"lastSeenAt":"2026-11-29T03:00:00+24:00"}`},
		{TypeEquipmentRegistered, `{"equipmentId":"e1","name":"x"}`, `{"equipmentId":"e1","name":""}`},
		{TypeEquipmentRegistered, `{"equipmentId":"e1","name":"x"}`,
			`{"equipmentId":"e1","name":"x","attributes":{"a":"` + strings.Repeat("x", 4<<10) + `"}}`},
		{TypeEquipmentUpdated, `{"equipmentId":"e1"}`, `{"equipmentId":"e1","location":"` + text + `x"}`},
		{TypeAssignmentUpdated, `{"deviceId":"d1","equipmentId":null}`, `{"deviceId":"d1","equipmentId":null,"previousDeviceId":"a b"}`},
		{TypeConnectionCreated, `{"connectionId":"a","kind":"shelly-cloud","name":"` + text + `"}`,
			`{"connectionId":"a","kind":"shelly-cloud","name":"\u0000"}`},
		{TypeConnectionStopped, `{"connectionId":"a","reason":"` + text + `"}`,
			`{"connectionId":"a","reason":"` + strings.Repeat(text, 5) + `"}`},
		{TypeRelaySwitchRequested, `{"commandId":"c","deviceId":"d1","on":true,"toggleAfterS":86400}`,
			`{"commandId":"c","deviceId":"d1","on":true,"toggleAfterS":-1}`},
		{TypeDisconnectRequested, `{"commandId":"c","banUntil":"2026-11-29t03:00:00z"}`,
			`{"commandId":"c","banUntil":"2026-11-29T03:00:00+24:00"}`},
		{"of-the-future", `{"a":"` + strings.Repeat("x", 60_000) + `"}`, `{"a":"` + strings.Repeat("x", 70_000) + `"}`},
		{"of-the-future", `{"a":"\u0001"}`, `{"a":"\u0000"}`},
	} {
		e := Event{
			ID: "x", Type: c.typ, Version: 1, SystemID: "s", Time: time.Unix(1, 0), Data: json.RawMessage(c.in), Position: Position{1, 0},
		}
		if got := e.AsImported("far"); got.Type != c.typ {
			t.Errorf("%s %.100s: %.200s", c.typ, c.in, got.Data)
		}
		e.Data = json.RawMessage(c.over)
		got := e.AsImported("far")
		var kept Undecodable
		if err := json.Unmarshal(got.Data, &kept); err != nil || got.Type != TypeUndecodable {
			t.Errorf("%s %.100s: is kept as %s, %v", c.typ, c.over, got.Type, err)
			continue
		}
		if whole := kept.Fields["data"] == c.over; whole != (len(c.over) < 60_000) || kept.Fields["type"] != string(c.typ) {
			t.Errorf("%s %.100s: whole is %v: %.300s", c.typ, c.over, whole, got.Data)
		}
	}
}

// An imported event with the name of a frame is kept under a name that no client mistakes for that frame.
func TestImportedEventsAreNoFrames(t *testing.T) {
	t.Parallel()
	for _, name := range frameNames {
		e := Event{
			ID: "x", Type: EventType(name), Version: 1, SystemID: "s", Time: time.Unix(1, 0), Data: json.RawMessage(`{"a":1}`),
			Position: Position{1, 0},
		}
		got := e.AsImported("far")
		var kept Undecodable
		if err := json.Unmarshal(got.Data, &kept); err != nil || got.Type != TypeUndecodable ||
			kept.Fields["type"] != name || kept.Fields["data"] != `{"a":1}` {
			t.Errorf("%s is kept as %s %s", name, got.Type, got.Data)
		}
	}
}

func falling(fall string) string { return `{"deviceId":"d1","counterFalls":[` + fall + `]}` }

// Times inside lists are converted to UTC, over HTTP and over bridges.
func TestFallsAreCanonical(t *testing.T) {
	t.Parallel()
	const fall, want = `{ "at":"2026-11-29t03:00:00.5+01:00", "energyWh":2.50, "counterWh":1 }`,
		`"counterFalls":[{"at":"2026-11-29T02:00:00.5Z","counterWh":1,"energyWh":2.5}]`
	e := Event{
		ID: "x", Type: TypeDeviceUpdate, Version: 1, SystemID: "s", Time: time.Unix(1, 0), Data: json.RawMessage(falling(fall)),
		Position: Position{1, 0},
	}
	if got := e.AsImported("far"); !strings.Contains(string(got.Data), want) {
		t.Errorf("over a bridge: %s", got.Data)
	}
	u, err := ParseSystemUpdate([]byte(`{"systemId":"s","deviceId":"d1","counterFalls":[` + fall + `]}`))
	if err != nil || !strings.Contains(marshal(t, u.DeviceUpdate), want) {
		t.Errorf("published: %s, %v", marshal(t, u.DeviceUpdate), err)
	}
	for _, wrong := range []string{
		`[{"at":"2026-11-29T03:00:00+24:00","counterWh":1,"energyWh":2}]`, `[{}]`, `[null]`, `[[]]`, `["x"]`, `{}`,
		`[{"at":"2026-11-29T03:00:00Z","counterWh":null,"energyWh":2}]`, `[{"at":1,"counterWh":1,"energyWh":2}]`,
		`[{"at":"2026-11-29T03:00:00Z","counterWh":1,"counterWh":1,"energyWh":2}]`,
	} {
		_, err := ParseSystemUpdate([]byte(`{"systemId":"s","deviceId":"d1","counterFalls":` + wrong + `}`))
		if AsError(err) == nil || AsError(err).Kind != KindInvalid || !strings.Contains(err.Error(), "counterFalls") {
			t.Errorf("%s: %v", wrong, err)
		}
	}
}

// The sample of every type passes a bridge byte for byte.
func TestSamplesAreCanonical(t *testing.T) {
	t.Parallel()
	for typ, data := range samples() {
		e, err := NewEvent("clinica-sol", data, Cause{Actor: "maria", CorrelationID: "k"})
		if err != nil {
			t.Fatal(err)
		}
		if eventTypes[typ].fields == nil {
			t.Errorf("the fields of %s are not known to canonicalFields", typ)
		}
		e.ID, e.Time, e.Position = "x", time.Unix(1, 0), Position{1, 0}
		if foreign := e.AsImported("far"); foreign.Type != typ || !bytes.Equal(foreign.Data, e.Data) {
			t.Errorf("%s becomes %s %s", typ, foreign.Type, foreign.Data)
		}
	}
}

// The texts of an undecodable event are truncated until they fit, no matter what the entry contained.
func TestUndecodableFits(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		fields := rapid.MapOfN(rapid.StringN(0, 300, -1), rapid.StringN(0, 30_000, -1), 0, 12).Draw(t, "fields")
		fields["data"] = strings.Repeat(rapid.SampledFrom([]string{"x", "\x01", "\x00", "\xff", "é", "\u2028", `"`}).Draw(t, "text"),
			rapid.IntRange(0, 80_000).Draw(t, "length"))
		e := Event{ID: "x", SystemID: "s", Time: time.Unix(1, 0), Position: Position{1, 0}, Seq: 1}
		survives(t, e.AsUndecodable(strings.Repeat("y", rapid.IntRange(0, 3000).Draw(t, "reason")), fields))
	})
}

func TestParseTime(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"2026-11-23T18:00:00Z":                  "2026-11-23T18:00:00.000000Z",
		"2026-11-23t18:00:00z":                  "2026-11-23T18:00:00.000000Z",
		"2026-11-23t18:00:00.5+01:30":           "2026-11-23T16:30:00.500000Z",
		"2026-11-23T18:00:00.123456789Z":        "2026-11-23T18:00:00.123456Z",
		"2026-11-23T18:00:00-23:59":             "2026-11-24T17:59:00.000000Z",
		"0000-01-01T00:00:00Z":                  "0000-01-01T00:00:00.000000Z",
		"9999-12-31T23:59:59.999999999Z":        "9999-12-31T23:59:59.999999Z",
		"2026-11-23T18:00:00.1234567890123456Z": "2026-11-23T18:00:00.123456Z",
	} {
		if at, err := ParseTime(text); err != nil || FormatTime(at) != want {
			t.Errorf("%s: %v, %v", text, at, err)
		}
	}
	for _, text := range []string{
		"", "Z", "2026-11-23", "2026-11-23T18:00:00", "2026-11-23 18:00:00Z", "2026-11-23T18:00Z", "2026-11-23T8:00:00Z",
		"2026-11-23T18:00:00,5Z",
		"2026-11-23T18:00:00+24:00", "2026-11-23T18:00:00+23:60", "2026-11-23T18:00:00+1:00", "2026-11-23T18:00:00+0100", "2026-11-23T18:00:00.Z",
		"9999-12-31T23:59:59-00:01", "0000-01-01T00:00:00+00:01", "10000-01-01T00:00:00Z", "2026-13-01T00:00:00Z", "2026-11-23T24:00:00Z",
		"2026-11-23T18:00:00Zz", "2026-11-23T18:00:00+01:00Z", "-026-11-23T18:00:00Z", "2026-02-29T00:00:00Z",
	} {
		if at, err := ParseTime(text); err == nil {
			t.Errorf("%q is read as %v", text, at)
		}
	}
}

func TestCleanTexts(t *testing.T) {
	t.Parallel()
	for given, want := range map[string]string{
		"plain é": "plain é", "a\x00b\xffc": "a\uFFFDb\uFFFDc", "\xed\xa0\x80": "\uFFFD",
	} {
		if got := CleanText(given); got != want {
			t.Errorf("%q becomes %q", given, got)
		}
	}
	if got := TruncateText("aé\x00", 2); got != "a" {
		t.Errorf("cut to %q", got)
	}
	for given, want := range map[string]string{
		`{"a":"\\u0000","b":"\u0000\ud800x\ud83d\ude00\udc00"}`: `{"a":"\\u0000","b":"\ufffd\ufffdx\ud83d\ude00\ufffd"}`,
		"{\"\\u0000\":\"\xff\"}":                                `{"\ufffd":"` + "\uFFFD" + `"}`,
		`{"a":"\ud800\u0000"}`:                                  `{"a":"\ufffd\ufffd"}`,
		`{"a":1`:                                                `{"a":1`,
	} {
		if got := string(CleanJSON([]byte(given))); got != want {
			t.Errorf("%s becomes %s", given, got)
		}
	}
}

// A refused envelope is kept if its place can be read.
func TestSalvageEnvelope(t *testing.T) {
	t.Parallel()
	for _, raw := range []string{
		`{"position":"7-0","seq":3,"id":"a","version":-1}`,
		`{"position":"7-0","seq":3,"id":"\u0000","data":"\u0000"}`,
		"{\"position\":\"7-0\",\"seq\":3,\"id\":\"a\",\"actor\":\"\xff\"}",
		`{"position":"7-0","position":"9-0","seq":3,"data":{},"data":{}}`,
		`{"Position":"9-0","position":"7-0","seq":3}`,
		`{"position":"18446744073709551615-0","seq":18446744073709551615,"time":"` + strings.Repeat("x", 100_000) + `"}`,
	} {
		e, ok := SalvageEnvelope([]byte(raw), "clinica-sol", fmt.Errorf("version must be something"))
		if !ok {
			t.Fatalf("%.100s is lost", raw)
		}
		foreign := e.AsImported("far")
		if foreign.Type != TypeUndecodable || !bytes.Equal(foreign.Data, e.Data) {
			t.Errorf("it becomes %s %.200s", foreign.Type, foreign.Data)
		}
		foreign.Seq = 1
		survives(t, foreign)
	}
	for _, raw := range []string{
		``, `[]`, `{"seq":1}`, `{"Position":"7-0","Seq":1}`, `{"position":"7-0","seq":-1}`, `{"position":7,"seq":1}`,
	} {
		if e, ok := SalvageEnvelope([]byte(raw), "clinica-sol", fmt.Errorf("x")); ok {
			t.Errorf("%s is placed at %s", raw, e.Cursor())
		}
	}
}

func FuzzAsImported(f *testing.F) {
	for typ, data := range samples() {
		raw, err := EncodeJSON(data)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(typ), []byte(raw))
	}
	for _, value := range oddValues {
		f.Add("device-update", []byte(`{"deviceId":"d1","deviceTime":`+value+`,"attributes":`+value+`}`))
	}
	f.Fuzz(func(t *testing.T, typ string, data []byte) {
		if typ == "" || !IsStorableText(typ) || len(typ) > maxEnvelopeText {
			return
		}
		e := Event{ID: "x", Type: EventType(typ), Version: 1, SystemID: "s", Time: time.Unix(1, 0), Data: data, Position: Position{1, 0}}
		foreign := e.AsImported("far")
		foreign.Seq = 1
		survives(t, foreign)
	})
}

func BenchmarkNewEvent(b *testing.B) {
	data := samples()[TypeDeviceUpdate]
	b.ReportAllocs()
	for b.Loop() {
		if _, err := NewEvent("clinica-sol", data, Cause{Actor: "x"}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCanonicalize(b *testing.B) {
	e, err := NewEvent("clinica-sol", samples()[TypeDeviceUpdate], Cause{Actor: "shelly:acc1"})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := e.Canonicalize(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAsImported(b *testing.B) {
	e, err := NewEvent("clinica-sol", samples()[TypeDeviceUpdate], Cause{Actor: "shelly:acc1"})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if e.AsImported("far").Type != TypeDeviceUpdate {
			b.Fatal("undecodable")
		}
	}
}
