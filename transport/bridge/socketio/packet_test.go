package socketio

import (
	"encoding/json"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestParsePacket(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{
		"", "9", "x", `2[`, `2["a"`, `5["a"]`, `5-["a"]`, `5-1`, `599999999-["a"]`, `5--1-["a"]`, "299999999999999999999[]", `2{}x`,
	} {
		p, err := parsePacket([]byte(bad))
		if err == nil && p.kind == typeEvent {
			_, _, err = p.arguments()
		}
		if err == nil && bad != "5-1" {
			t.Errorf("%q was taken for %+v", bad, p)
		}
	}
	for _, bad := range []string{"2", "2{}", "2[]", "2[1]", "2null", `2"a"`, "3", "3{}"} {
		p, err := parsePacket([]byte(bad))
		if err == nil {
			_, _, err = p.arguments()
		}
		if err == nil {
			t.Errorf("%q has arguments", bad)
		}
	}
	p, err := parsePacket([]byte(`2/custom,12["a",{"b":1}]`))
	if err != nil || p.namespace != "/custom" || p.id == nil || *p.id != 12 || string(p.data) != `["a",{"b":1}]` {
		t.Errorf("%+v, %v", p, err)
	}
}

// Whatever comes, it is a packet or an error, and what we write is read as it was.
func TestPackets(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		_, _ = parsePacket(rapid.SliceOf(rapid.Byte()).Draw(t, "noise"))
		name := rapid.String().Draw(t, "name")
		args, err := json.Marshal([]any{name, rapid.String().Draw(t, "argument")})
		if err != nil {
			t.Fatal(err)
		}
		sent := packet{kind: typeEvent, namespace: rapid.SampledFrom([]string{"/", "/custom"}).Draw(t, "namespace"), data: args}
		if rapid.Bool().Draw(t, "asks") {
			id := rapid.Uint64Max(1<<60).Draw(t, "id")
			sent.id = &id
		}
		got, err := parsePacket(sent.append(nil)[1:])
		if err != nil || got.namespace != sent.namespace || string(got.data) != string(args) || (got.id == nil) != (sent.id == nil) {
			t.Fatalf("%+v came back as %+v, %v", sent, got, err)
		}
		want := strings.ToValidUTF8(name, "\uFFFD") // as JSON has it
		if back, _, err := got.arguments(); err != nil || back != want {
			t.Fatalf("name %q came back as %q, %v", want, back, err)
		}
	})
}
