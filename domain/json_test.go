package domain

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

// scanObject agrees with encoding/json about what is JSON, and with json.Compact
// about white space.
func TestScanObjectAgreesWithEncodingJSON(t *testing.T) {
	t.Parallel()
	agree := func(t interface{ Fatalf(string, ...any) }, b []byte) {
		want := json.Valid(b) && utf8.Valid(b) && bytes.HasPrefix(bytes.TrimLeft(b, " \t\r\n"), []byte("{"))
		got, loose := scanObject(b)
		if got != want {
			t.Fatalf("%q: %v, want %v", b, got, want)
		}
		var compact bytes.Buffer
		if want && json.Compact(&compact, b) == nil && loose == bytes.Equal(compact.Bytes(), b) {
			t.Fatalf("%q: white space %v, compact is %q", b, loose, compact.Bytes())
		}
	}
	for _, s := range []string{
		"", " ", "{}", " {\n} ", "{}x", "[]", "null", `{"a"}`, `{"a":}`, `{"a":1,}`, `{,}`, `{"a":01}`, `{"a":-}`, `{"a":-0}`, `{"a":1.}`,
		`{"a":.5}`, `{"a":1e}`, `{"a":1E+5}`, `{"a":1e-05}`, `{"a":"\u12g4"}`, `{"a":"\u12`, `{"a":"\`, `{"a":"`, "{\"a\":\"\t\"}", `{"a":tru}`,
		`{"a":[1,[2,{}],"x",true,false,null]}`, `{"a":[1 2]}`, `{"a":[,]}`, `{"a" : 1 , "b":2}`, `{"a":1`, `{"a":"é\n\/"}`, "{\"\xff\":1}",
	} {
		agree(t, []byte(s))
	}
	rapid.Check(t, func(t *rapid.T) {
		words := []string{"{", "}", "[", "]", ",", ":", `"a"`, `"\u00e9"`, "1", "-2.5e3", "0", "true", "false", "null", " ", `"`, `\`, "e", "."}
		var b []byte
		for _, w := range rapid.SliceOfN(rapid.SampledFrom(words), 0, 24).Draw(t, "words") {
			b = append(b, w...)
		}
		agree(t, b)
		agree(t, append(append([]byte(`{"k":`), b...), '}'))
	})
	if deep := strings.Repeat(`{"a":`, 600) + "1" + strings.Repeat("}", 600); deep != "" {
		if ok, _ := scanObject([]byte(deep)); ok {
			t.Error("600 levels were taken")
		}
		if err := CheckStorableJSON([]byte(deep)); err == nil || !strings.Contains(err.Error(), "nests deeper than 512 levels") {
			t.Errorf("of 600 levels it says %v", err)
		}
	}
}

func BenchmarkScanObject(b *testing.B) {
	data := []byte(`{"deviceId":"shellyplugsg3-8cbfea9a1b2c","online":true,"relayOn":true,"powerW":41.5,"voltageV":231.2,` +
		`"currentA":0.52,"energyWh":10432.881,"changed":["powerW","currentA"],"deviceTime":"2026-11-24T10:00:00Z"}`)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if ok, loose := scanObject(data); !ok || loose {
			b.Fatal("refused")
		}
	}
}

// CheckDuplicateMembers finds a repeated member wherever two readers could differ, and ignores the sender's own objects.
func TestCheckDuplicateMembers(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		`{"a":1,"b":2}`:      "",
		`{"a":1,"A":2}`:      "",
		`{"a":1,"a":1}`:      `"a"`,
		`{"a":1,"\u0061":2}`: `"a"`,
		` { "x" : { "b" : [ 1 , { "c" : 1, "c" : 2 } ] } } `: `"c"`,
		`[{"a":1},{"a":2}]`:                                   "",
		`[[],{},"",{"a":[]},{"a":1,"a":[]}]`:                  `"a"`,
		`{"own":{"a":1,"a":2},"b":[{"own":[{"c":1,"c":2}]}]}`: "",
		`{"own":{},"own":{}}`:                                 `"own"`,
		`"a"`:                                                 "",
		`7`:                                                   "",
		strings.Repeat(`{"a":[`, 200) + `{"z":1,"z":2}` + strings.Repeat(`]}`, 200): `"z"`,
	} {
		if err := CheckJSONSyntax([]byte(raw)); err != nil {
			t.Fatalf("%.80s: %v", raw, err)
		}
		err := CheckDuplicateMembers([]byte(raw), "own")
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%.80s: want %s, got %v", raw, want, err)
		}
	}
}

func TestCheckJSONSyntax(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		`{"a":"\u0000\ud800"}`: "", "null": "", " [1] ": "",
		"": "empty", " \n": "empty", "{": "byte 1", "{}{}": "byte 2", "\"\xff\"": "UTF-8", "\xef\xbb\xbf{}": "BOM", "\xff\xfe{\x00": "BOM",
	} {
		err := CheckJSONSyntax([]byte(raw))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: want %q, got %v", raw, want, err)
		}
	}
}
