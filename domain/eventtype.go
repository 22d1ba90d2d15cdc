package domain

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// EventType is the name of a kind of event, as on the wire.
type EventType string

// The types of event. An event type is for ever: a new shape of its data is a new version with an upcast.
const (
	TypeDeviceUpdate           EventType = "device-update"
	TypeDeviceOfflineStatus    EventType = "device-offline-status"
	TypeEnergyCorrected        EventType = "energy-corrected"
	TypeAssignmentUpdated      EventType = "smart-plug-assignment-updated"
	TypeEquipmentRegistered    EventType = "equipment-registered"
	TypeEquipmentUpdated       EventType = "equipment-updated"
	TypeEquipmentRetired       EventType = "equipment-retired"
	TypeConnectionCreated      EventType = "connection-created"
	TypeConnectionUpdated      EventType = "connection-updated"
	TypeConnectionStarted      EventType = "connection-started"
	TypeConnectionStopped      EventType = "connection-stopped"
	TypeConnectionRestarted    EventType = "connection-restarted"
	TypeConnectionStateChanged EventType = "connection-state-changed"
	TypeConnectionDeleted      EventType = "connection-deleted"
	TypeRelaySwitchRequested   EventType = "relay-switch-requested"
	TypeRelaySwitchCompleted   EventType = "relay-switch-completed"
	TypeDisconnectRequested    EventType = "disconnect-requested"
	TypeDisconnectCompleted    EventType = "disconnect-completed"
	TypeHistoryExported        EventType = "history-exported"
	// TypeUndecodable replaces a log entry that names its system but is otherwise unreadable. It counts, is shown and
	// is archived like any other event, and the fold skips it.
	TypeUndecodable EventType = "undecodable"
)

// EventTypes returns the types that this build knows, sorted.
func EventTypes() []EventType { return slices.Sorted(maps.Keys(eventTypes)) }

// TriggersReaction reports whether processes react to events of the type: they switch a relay, close sockets, or
// connect to a cloud. Such an event costs many times as much as one that is only kept and delivered.
func (t EventType) TriggersReaction() bool { return eventTypes[t].reaction }

// ParseEventType checks the name of an event type, known or not, that a caller gives in a filter. It returns an
// [Error] with [CodeInvalidFilter] for a malformed name.
func ParseEventType(s string) (EventType, error) {
	strange := func(r rune) bool { return r == ',' || !unicode.IsGraphic(r) || unicode.IsSpace(r) }
	if s == "" || len(s) > maxTypeName || !utf8.ValidString(s) || strings.ContainsFunc(s, strange) {
		return "", Invalid(CodeInvalidFilter,
			fmt.Sprintf("an event type is 1 to %d printable characters without spaces and commas, not %s", maxTypeName, quote(s)))
	}
	return EventType(s), nil
}

// typeSpec describes one event type to this build.
type typeSpec struct {
	decode func(json.RawMessage) (Data, error)
	fields map[string]fieldForm // of the data, at the current version
	// upcasts[i] turns data of version i+1 into version i+2. Nobody rewrites an old event: each read upcasts it.
	upcasts  []func(json.RawMessage) (json.RawMessage, error)
	reaction bool // see TriggersReaction
}

// eventTypes is the table of the event types. Decoding, the canonical form, filters by device and the limit on reactions
// work from it. A new type is a line here, a constant, and its data; tests fail until it has a sample, bounds, and a
// place in the docs and in the client's types. CONTRIBUTING.md lists the places.
var eventTypes = map[EventType]typeSpec{
	TypeDeviceUpdate:           specOf[DeviceUpdate](),
	TypeDeviceOfflineStatus:    specOf[DeviceOfflineStatus](),
	TypeEnergyCorrected:        specOf[EnergyCorrected]().withReaction(),
	TypeAssignmentUpdated:      specOf[AssignmentUpdated](),
	TypeEquipmentRegistered:    specOf[EquipmentRegistered](),
	TypeEquipmentUpdated:       specOf[EquipmentUpdated](),
	TypeEquipmentRetired:       specOf[EquipmentRetired](),
	TypeConnectionCreated:      specOf[ConnectionCreated]().withReaction(),
	TypeConnectionUpdated:      specOf[ConnectionUpdated]().withReaction(),
	TypeConnectionStarted:      specOf[ConnectionStarted]().withReaction(),
	TypeConnectionStopped:      specOf[ConnectionStopped]().withReaction(),
	TypeConnectionRestarted:    specOf[ConnectionRestarted]().withReaction(),
	TypeConnectionStateChanged: specOf[ConnectionStateChanged](),
	TypeConnectionDeleted:      specOf[ConnectionDeleted]().withReaction(),
	TypeRelaySwitchRequested:   specOf[RelaySwitchRequested]().withReaction(),
	TypeRelaySwitchCompleted:   specOf[RelaySwitchCompleted]().withReaction(),
	TypeDisconnectRequested:    specOf[DisconnectRequested]().withReaction(),
	TypeDisconnectCompleted:    specOf[DisconnectCompleted](),
	TypeHistoryExported:        specOf[HistoryExported](),
	TypeUndecodable:            specOf[Undecodable](),
}

func specOf[T Data]() typeSpec {
	return typeSpec{decode: decodeAs[T], fields: formsOf(reflect.TypeFor[T]())}
}

func (s typeSpec) withReaction() typeSpec {
	s.reaction = true
	return s
}

func decodeAs[T Data](raw json.RawMessage) (Data, error) {
	var v T
	if err := json.Unmarshal(raw, &v); err != nil {
		return nil, err
	}
	return v, nil
}

func currentVersion(t EventType) int { return len(eventTypes[t].upcasts) + 1 }

const (
	maxTypeName  = 64  // bytes of an event type in a filter
	maxEventType = 128 // bytes of an event's own type
)

// frameNames lists, in alphabetical order, the names that the faces and their clients give to frames that are not
// events. On a socket, an event is sent under its own name next to those frames. Clients would mistake an event with
// such a name for a word of the server: it could close a client's socket, or give the client a snapshot of another
// system whose room it is also in.
var frameNames = []string{
	"authenticate", "authenticated", "connect", "connect_error", "connection-status", "disconnect", "disconnecting", "error",
	"forced-disconnect", "heartbeat", "join-admin-dashboard", "join-system", "joined", "leave-admin-dashboard", "leave-system", "left",
	"message", "metrics", "newListener", "open", "ping", "pong", "removeListener", "replay-control", "replay-ended", "reset", "restarted",
	"snapshot", "state", "status",
}

// check returns an error that says why no event, known to this build or not, can have the type t.
func (t EventType) check() error {
	if _, known := eventTypes[t]; known {
		return nil
	}
	if !isID(string(t), maxEventType, true) {
		return errors.New("must be 1 to 128 characters of A-Z a-z 0-9 . _ : -, not " + quote(string(t)))
	}
	if _, taken := slices.BinarySearch(frameNames, string(t)); taken {
		return errors.New(quote(string(t)) + " is reserved for a frame that is not an event")
	}
	return nil
}
