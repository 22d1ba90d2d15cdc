package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/plugcast/plugcast/domain"
)

// hostile are characters that make a terminal do something, as JSON lets them
// through or not, and what they are beside.
const hostile = "a\x1b[31mb\u009b2Jc\u202ed\x7fe\U000e0001f é 😀"

// The output of tail for people, and that of any command to a terminal, has no
// character that makes the terminal do something.
func TestOutputIsPlain(t *testing.T) {
	t.Parallel()
	data, err := domain.EncodeJSON(map[string]any{"deviceId": "d1", "name": hostile})
	if err != nil {
		t.Fatal(err)
	}
	e := &domain.Event{
		ID: "x", Type: domain.EventType("type" + hostile), Version: 1, SystemID: "s", Time: time.Unix(1, 0), Actor: hostile, Data: data,
	}
	var people, screen strings.Builder
	if err := showEvent(&people, e); err != nil {
		t.Fatal(err)
	}
	one := &plainWriter{w: &screen}
	for _, b := range append(e.AppendEnvelope(nil), "\n\tend"...) { // each byte by itself
		if n, err := one.Write([]byte{b}); n != 1 || err != nil {
			t.Fatal(n, err)
		}
	}
	for what, text := range map[string]string{"for people": people.String(), "on a terminal": screen.String()} {
		if i := strings.IndexFunc(text, func(r rune) bool { return !isPlain(r) && r != '\n' && r != '\t' }); i >= 0 || !utf8.ValidString(text) {
			t.Errorf("%s there is %q", what, text)
		}
		if !strings.Contains(text, "é 😀") {
			t.Errorf("%s harmless characters are lost: %q", what, text)
		}
	}
	envelope, ended := strings.CutSuffix(screen.String(), "\n\tend")
	var read domain.Event
	if err := json.Unmarshal([]byte(envelope), &read); err != nil || !ended || read.Actor != hostile {
		t.Errorf("the envelope is no longer the same JSON: %v %q", err, screen.String())
	}
}
