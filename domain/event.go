package domain

import (
	"encoding/json"
	"fmt"
	"time"
)

// Event is a fact in the log: an envelope around typed data.
//
// The appending process sets Type to Data. The log adds ID and Time where they are missing, and Position. No append
// assigns Seq: it follows from the order of the log. The projector counts it and stores it in history, and the timeline
// counts on from there, so both give an event the same number. Seq is zero in an event that was read from the log alone.
// Do not change an event after reading it: readers share events.
type Event struct {
	ID            string          // UUIDv7
	Type          EventType       //
	Version       int             // of the data's shape; 1 is the first
	SystemID      SystemID        //
	Time          time.Time       // of the append, in UTC, to the microsecond; for people, never for ordering
	Actor         string          // a token's subject, or shelly:<connectionId>
	CorrelationID string          // shared by all events that one request caused
	CausationID   string          // id of the command or event that caused this one, or ""
	Origin        string          // id of the deployment where it was first appended; "" for this deployment
	Data          json.RawMessage // one JSON object, kept byte for byte

	Position Position
	Seq      uint64 // 1 for the system's first event, then without gaps
}

// Cause names the actor of an event and the context in which the actor caused it.
type Cause struct {
	Actor         string
	CorrelationID string
	CausationID   string
}

// NewEvent returns an event of the data's current version that is ready to be appended. The log gives it its id, time
// and position. It fails only if the data cannot be encoded as JSON.
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

// Cursor returns the place of a reader whose last event is e.
func (e *Event) Cursor() Cursor { return Cursor{Position: e.Position, Seq: e.Seq} }

// Arrival returns the most trustworthy time of the event's arrival in a log. That is its Time. Another deployment's
// clock may be ahead, so for an imported event it is the time of the import here, if that is earlier.
func (e *Event) Arrival() time.Time {
	here := e.Position.Time()
	if e.Origin != "" && here.Before(e.Time) {
		return here
	}
	return e.Time
}

// Known reports whether this build knows the event's type and version. The log keeps and shows every other event as
// well, and the fold skips it.
func (e *Event) Known() bool {
	_, ok := eventTypes[e.Type]
	return ok && e.Version >= 1 && e.Version <= currentVersion(e.Type)
}

// Decode returns the event's data, upcast to the current version. It returns nil and no error for an event that is
// not [Event.Known], and an error for data that does not have its type's shape or identifies its subject with a
// malformed id.
func (e *Event) Decode() (Data, error) {
	if !e.Known() {
		return nil, nil
	}
	spec, raw := eventTypes[e.Type], e.Data
	for _, upcast := range spec.upcasts[e.Version-1:] {
		var err error
		if raw, err = upcast(raw); err != nil {
			return nil, fmt.Errorf("domain: upcast %s of version %d: %w", e.Type, e.Version, err)
		}
	}
	data, err := spec.decode(raw)
	if err == nil {
		err = checkIDs(data)
	}
	if err != nil {
		return nil, fmt.Errorf("domain: decode %s: %w", e.Type, err)
	}
	return data, nil
}

// Device returns the device that the event is about, for filters and indexes. It returns "" if there is none, if its
// id is malformed, or if this build does not know the event's type.
func (e *Event) Device() DeviceID {
	if _, has := eventTypes[e.Type].fields["deviceId"]; !has {
		return ""
	}
	var subject struct {
		DeviceID DeviceID `json:"deviceId"`
	}
	if json.Unmarshal(e.Data, &subject) != nil || !isID(string(subject.DeviceID), maxDeviceID, true) {
		return ""
	}
	return subject.DeviceID
}
