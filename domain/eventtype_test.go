package domain

import (
	"slices"
	"strings"
	"testing"
)

func TestNoEventBearsTheNameOfAFrame(t *testing.T) {
	t.Parallel()
	if !slices.IsSorted(frameNames) {
		t.Fatal("the names of frames are searched in order, and are not in order")
	}
	for name := range eventTypes {
		if slices.Contains(frameNames, string(name)) {
			t.Errorf("%s is an event of ours and the name of a frame", name)
		}
	}
	bad := append(slices.Clone(frameNames), "a,b", "a b", "a\nevent: left", "\u0001", "é", "*", "..", strings.Repeat("x", 129))
	for _, name := range bad {
		e := Event{Type: EventType(name), Version: 1, SystemID: "clinica-sol", Data: []byte(`{}`)}
		if err := e.Canonicalize(); err == nil {
			t.Errorf("the log takes an event with the name %q", name)
		}
		e.ID, e.Position = "x", Position{Ms: 5}
		if kept := e.AsImported("far"); kept.Type != TypeUndecodable || kept.Canonicalize() != nil {
			t.Errorf("a bridged event with the name %q is not kept as undecodable, but as %q", name, kept.Type)
		}
	}
	for _, name := range []EventType{"of-the-future", "example.app:door.opened", EventType(strings.Repeat("x", 128))} {
		e := Event{Type: name, Version: 1, SystemID: "clinica-sol", Data: []byte(`{}`)}
		if err := e.Canonicalize(); err != nil || e.AsImported("far").Type != name {
			t.Errorf("the log or a bridge refuses an event with the name %q: %v", name, err)
		}
	}
}
