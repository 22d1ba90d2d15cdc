package domain

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"
)

// Event is a fact in the log: an envelope around typed data.
//
// ID to Data are fixed by whoever appends it. Position is given by the log, and
// Seq by whoever counts the system's entries in log order; both are zero before
// the event is appended. Events are values that nobody changes after reading.
type Event struct {
	ID            string          // UUIDv7
	Type          EventType       //
	Version       int             // of the data's shape; 1 is the first
	SystemID      SystemID        //
	Time          time.Time       // when it was appended, UTC, to the microsecond; for people, never for order
	Actor         string          // who: a token's subject, or shelly:<connectionId>
	CorrelationID string          // groups what one request caused
	CausationID   string          // id of the command or event that caused this one, or ""
	Origin        string          // id of the deployment where it was first appended; "" for this one
	Data          json.RawMessage // a JSON object, kept byte for byte

	Position Position
	Seq      uint64
}

// EventType is the name of a kind of event, as on the wire.
type EventType string

// The types of event.
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
	// TypeUndecodable stands for an entry of the log that names its system but
	// cannot be read otherwise. It counts, is shown and archived like any other,
	// and the fold skips it.
	TypeUndecodable EventType = "undecodable"
)

// Cause says who caused an event and in what context.
type Cause struct {
	Actor         string
	CorrelationID string
	CausationID   string
}

// NewEvent makes an event that is ready to be appended; the log gives it its id,
// time and position. It fails only when data cannot be written as JSON.
func NewEvent(system SystemID, data Data, cause Cause) (Event, error) {
	raw, err := EncodeJSON(data)
	if err != nil {
		return Event{}, fmt.Errorf("domain: new %s event: %w", data.EventType(), err)
	}
	return Event{
		Type:          data.EventType(),
		Version:       currentVersion(data.EventType()),
		SystemID:      system,
		Actor:         cause.Actor,
		CorrelationID: cause.CorrelationID,
		CausationID:   cause.CausationID,
		Data:          raw,
	}, nil
}

// Cursor is the place of a reader that has this event as its last.
func (e *Event) Cursor() Cursor { return Cursor{Position: e.Position, Seq: e.Seq} }

// Arrival is when the event arrived in a log, as far as that can be believed: when
// it was appended, and for an event of another deployment at the latest when it was
// appended here, because its own time is that deployment's word.
func (e *Event) Arrival() time.Time {
	here := e.Position.Time()
	if e.Origin != "" && here.Before(e.Time) {
		return here
	}
	return e.Time
}

// AppendEnvelope appends the event's JSON form, the same on every face, to b.
// Empty correlation and causation ids and an empty origin are left out. It allocates nothing beyond
// what b needs to grow.
func (e *Event) AppendEnvelope(b []byte) []byte {
	b = append(b, `{"event":`...)
	b = appendJSONString(b, string(e.Type))
	b = append(b, `,"position":"`...)
	b = e.Position.appendTo(b)
	b = append(b, `","seq":`...)
	b = strconv.AppendUint(b, e.Seq, 10)
	b = append(b, `,"id":`...)
	b = appendJSONString(b, e.ID)
	b = append(b, `,"systemId":`...)
	b = appendJSONString(b, string(e.SystemID))
	b = append(b, `,"time":"`...)
	b = e.Time.UTC().AppendFormat(b, timeLayout)
	b = append(b, `","actor":`...)
	b = appendJSONString(b, e.Actor)
	if e.CorrelationID != "" {
		b = append(b, `,"correlationId":`...)
		b = appendJSONString(b, e.CorrelationID)
	}
	if e.CausationID != "" {
		b = append(b, `,"causationId":`...)
		b = appendJSONString(b, e.CausationID)
	}
	if e.Origin != "" {
		b = append(b, `,"origin":`...)
		b = appendJSONString(b, e.Origin)
	}
	b = append(b, `,"version":`...)
	b = strconv.AppendInt(b, int64(e.Version), 10)
	b = append(b, `,"data":`...)
	b = append(b, e.Data...)
	return append(b, '}')
}

// MarshalJSON writes the envelope.
func (e Event) MarshalJSON() ([]byte, error) { return e.AppendEnvelope(nil), nil }

// appendJSONString appends s as a JSON string. Plain ASCII, which is nearly all
// there is, is copied; the rest goes the slow, exact way.
func appendJSONString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c == '"' || c == '\\' || c >= utf8.RuneSelf {
			quoted, _ := EncodeJSON(s) // a string can always be written
			return append(b, quoted...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}
