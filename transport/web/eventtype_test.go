package web

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/plugcast/plugcast/domain"
)

// The types of the client have every event type with all its fields, and the docs have every event type.
// TestEveryDeviceFieldIsDescribed checks the fields of a device-update.
func TestEveryEventTypeIsDescribed(t *testing.T) {
	t.Parallel()
	types := section(t, "client/src/events.ts", "export interface EventData", "\n}")
	command := section(t, "client/src/events.ts", "interface ConnectionCommand", "}")
	docs := describedEvents(t)
	for _, typ := range domain.EventTypes() {
		if !docs[string(typ)] {
			t.Errorf("docs/protocol.md does not describe the event type %s", typ)
		}
		_, after, found := strings.Cut(strings.ReplaceAll(types, `"`, ""), "\n  "+string(typ)+": ")
		if !found {
			t.Errorf("events.ts does not have the event type %s", typ)
			continue
		}
		body, _, _ := strings.Cut(after, "};")
		if strings.HasPrefix(after, "ConnectionCommand;") {
			body = command
		}
		for _, field := range fieldsOf(t, typ) {
			if typ != domain.TypeDeviceUpdate && !regexp.MustCompile(`\b`+field+`\??: `).MatchString(body) {
				t.Errorf("events.ts does not have the field %s of %s", field, typ)
			}
		}
	}
}

// fieldsOf returns the names of the fields that data of the type can have.
func fieldsOf(t *testing.T, typ domain.EventType) (names []string) {
	t.Helper()
	raw, err := os.ReadFile("../../domain/testdata/events/" + string(typ) + ".v1.json")
	if err != nil {
		t.Fatal(err)
	}
	e := domain.Event{Type: typ, Version: 1, Data: raw}
	data, err := e.Decode()
	if err != nil {
		t.Fatal(err)
	}
	for _, field := range reflect.VisibleFields(reflect.TypeOf(data)) {
		if name, _, _ := strings.Cut(field.Tag.Get("json"), ","); name != "" {
			names = append(names, name)
		}
	}
	return names
}

// describedEvents returns the event types in the table of docs/protocol.md. A row may have several, the later ones
// abbreviated: `equipment-registered`, `-updated`.
func describedEvents(t *testing.T) map[string]bool {
	t.Helper()
	above := section(t, "../../docs/protocol.md", "# The protocol", "| event | data |")
	described := map[string]bool{"undecodable": strings.Contains(above, "`undecodable` stands for")}
	for row := range strings.SplitSeq(section(t, "../../docs/protocol.md", "| event | data |", "\n\n"), "\n") {
		cells := strings.Split(row, "|")
		if len(cells) < 3 {
			continue
		}
		var stem string
		for _, name := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cells[1], -1) {
			if strings.HasPrefix(name[1], "-") {
				described[stem+name[1]] = true
				continue
			}
			described[name[1]] = true
			stem = name[1][:max(strings.LastIndex(name[1], "-"), 0)]
		}
	}
	return described
}
