package web

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/plugcast/plugcast/domain"
)

// The fold in JavaScript sets every field of the table, and removes it if it is null.
func TestClientFoldsEveryDeviceField(t *testing.T) {
	t.Parallel()
	client := newFolder(t)
	for _, f := range domain.DeviceFields {
		values := fieldValues[f.Name]
		if f.Name == "deviceTime" {
			values = []any{begin}
		}
		if len(values) == 0 {
			t.Errorf("there is no value for %s: TestFoldAgrees does not try it", f.Name)
			continue
		}
		for _, value := range append(values, nil) {
			data := mustJSON(t, map[string]any{"deviceId": "d", f.Name: value})
			got := client.fold(t, domain.NewState("s").Snapshot(), []domain.Event{firstUpdate(data)})
			if f.Name == "energyOffsetWh" {
				value = nil // only corrections set this field
			}
			if len(got.Devices) != 1 || string(mustJSON(t, got.Devices[0][f.Name])) != string(mustJSON(t, value)) {
				t.Errorf("%s folds to %v", data, got.Devices)
			}
		}
		wrong := json.RawMessage(`{"deviceId":"d","` + f.Name + `":{"no":"value"}}`)
		if f.Name == "attributes" {
			continue
		}
		if got := client.fold(t, domain.NewState("s").Snapshot(), []domain.Event{firstUpdate(wrong)}); len(got.Devices) != 0 {
			t.Errorf("%s folds to %v: the client does not check the field", wrong, got.Devices)
		}
	}
}

// firstUpdate returns the first event of system s.
func firstUpdate(data json.RawMessage) domain.Event {
	return domain.Event{
		Type: domain.TypeDeviceUpdate, Version: 1, SystemID: "s", Time: begin, Position: domain.Position{Ms: 1}, Seq: 1, Data: data,
	}
}

// The types of the client and the docs name every field of the table, and the docs name
// no other.
func TestEveryDeviceFieldIsDescribed(t *testing.T) {
	t.Parallel()
	types := section(t, "client/src/events.ts", "export interface Device {", "\n}")
	docs := section(t, "../../docs/protocol.md", "| `device-update` |", "\n")
	var table []string
	for _, f := range domain.DeviceFields {
		table = append(table, f.Name)
		if !regexp.MustCompile(`(?m)^  ` + f.Name + `\??: `).MatchString(types) {
			t.Errorf("events.ts does not know %s of a device", f.Name)
		}
	}
	var described []string
	for _, name := range regexp.MustCompile("`[^`]+`").FindAllString(docs, -1) {
		described = append(described, strings.Trim(name, "`"))
	}
	if want := append([]string{"device-update", "deviceId"}, append(table, "changed")...); !sameSet(described, want) {
		t.Errorf("docs/protocol.md lists %v, and the table has %v", described, want)
	}
}

func sameSet(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

// section returns the part of a file between two texts.
func section(t *testing.T, file, from, to string) string {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(raw), from)
	part, _, ended := strings.Cut(rest, to)
	if !found || !ended {
		t.Fatalf("%s has no part from %q to %q", file, from, to)
	}
	return from + part
}
