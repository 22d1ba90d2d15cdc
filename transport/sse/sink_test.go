package sse

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/rooms"
)

// TestLineBreaksStayInTheirField encodes values that could end a field too early: data
// with line breaks, and a type that no version of this program writes.
func TestLineBreaksStayInTheirField(t *testing.T) {
	t.Parallel()
	data := "{\r\n  \"deviceId\": \"plug-1\",\n  \"name\": \"a\\nb\"\r}"
	e := domain.Event{
		Type: "odd\ntype", ID: "1", SystemID: "clinica-sol", Position: domain.Position{Ms: 5}, Seq: 1, Version: 1, Data: json.RawMessage(data),
	}
	frame := encoding{}.Encode([]*rooms.Encoded{{Cursor: e.Cursor(), Type: e.Type, Envelope: e.AppendEnvelope(nil)}})
	lines := strings.Split(string(frame), "\n")
	if len(lines) != 5 || lines[0] != "id: 5-0" || lines[1] != "event: odd type" || lines[3] != "" || lines[4] != "" {
		t.Fatalf("the frame is %q", frame)
	}
	envelope, ok := strings.CutPrefix(lines[2], "data: ")
	if !ok || strings.Contains(envelope, "\r") {
		t.Fatalf("the data are %q", lines[2])
	}
	var got domain.Event
	var want, have bytes.Buffer
	if err := json.Unmarshal([]byte(envelope), &got); err != nil {
		t.Fatal(err)
	}
	if json.Compact(&want, e.Data) != nil || json.Compact(&have, got.Data) != nil || want.String() != have.String() {
		t.Errorf("the data became %s", have.String())
	}
}
