package domain

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"
)

// AppendEnvelope appends the event's JSON form, which is the same on every face, to b. It omits an empty correlation
// id, causation id and origin. It allocates nothing beyond the growth of b.
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

// MarshalJSON returns the envelope.
func (e Event) MarshalJSON() ([]byte, error) { return e.AppendEnvelope(nil), nil }

// UnmarshalJSON reads an envelope that some build of plugcast wrote. It trusts its input: use [ParseEnvelope] for the
// envelopes of another deployment.
func (e *Event) UnmarshalJSON(b []byte) error {
	var w struct {
		Event         EventType       `json:"event"`
		Position      Position        `json:"position"`
		Seq           uint64          `json:"seq"`
		ID            string          `json:"id"`
		SystemID      SystemID        `json:"systemId"`
		Time          string          `json:"time"`
		Actor         string          `json:"actor"`
		CorrelationID string          `json:"correlationId"`
		CausationID   string          `json:"causationId"`
		Origin        string          `json:"origin"`
		Version       int             `json:"version"`
		Data          json.RawMessage `json:"data"`
	}
	if err := json.Unmarshal(b, &w); err != nil {
		return fmt.Errorf("domain: envelope: %w", err)
	}
	var at time.Time
	if w.Time != "" { // an envelope may lack the time
		var err error
		if at, err = parseInstant(w.Time); err != nil {
			return fmt.Errorf("domain: envelope: time %w", err)
		}
	}
	*e = Event{
		ID: w.ID, Type: w.Event, Version: w.Version, SystemID: w.SystemID, Time: at, Actor: w.Actor,
		CorrelationID: w.CorrelationID, CausationID: w.CausationID, Origin: w.Origin, Data: w.Data, Position: w.Position, Seq: w.Seq,
	}
	return nil
}

// envelopeFields maps each member of an envelope to the function that reads it into an event.
var envelopeFields = map[string]func(e *Event, value []byte) error{
	"event":         func(e *Event, v []byte) error { return readName(v, (*string)(&e.Type)) },
	"position":      readPosition,
	"seq":           readSeq,
	"id":            func(e *Event, v []byte) error { return readName(v, &e.ID) },
	"systemId":      readSystemID,
	"time":          readTime,
	"actor":         func(e *Event, v []byte) error { return readText(v, &e.Actor) },
	"correlationId": func(e *Event, v []byte) error { return readText(v, &e.CorrelationID) },
	"causationId":   func(e *Event, v []byte) error { return readText(v, &e.CausationID) },
	"origin":        readOrigin,
	"version":       readVersion,
	"data":          func(e *Event, v []byte) error { e.Data = slices.Clone(v); return nil },
}

// requiredFields are the members that every envelope has.
var requiredFields = [...]string{"event", "position", "id", "systemId", "time", "version", "data"}

// ParseEnvelope reads an envelope that another deployment's bridge sent. It matches the names of members exactly,
// rejects a member that appears twice, and ignores unknown members. Everything but the data is canonical afterwards;
// pass the event through [Event.AsImported] for the data. Errors name the member.
func ParseEnvelope(raw []byte) (Event, error) {
	err := CheckStorableJSON(raw)
	if errors.As(err, new(*textError)) {
		err = nil // the function that reads the member decides; unknown members and the data may contain such text
	}
	if err == nil && !IsJSONObject(raw) {
		err = errNotObject
	}
	if err != nil {
		return Event{}, err
	}
	var e Event
	seen := make([]string, 0, len(envelopeFields))
	for written, value := range members(raw) {
		name := unquoteName(written)
		read, known := envelopeFields[name]
		if !known {
			continue
		}
		if slices.Contains(seen, name) {
			return Event{}, errors.New(name + " appears twice")
		}
		seen = append(seen, name)
		if err := read(&e, value); err != nil {
			return Event{}, fmt.Errorf("%s %w", name, err)
		}
	}
	for _, name := range requiredFields {
		if !slices.Contains(seen, name) {
			return Event{}, errors.New(name + " is missing")
		}
	}
	return e, nil
}

// readText reads a string of at most maxEnvelopeText bytes.
func readText(value []byte, into *string) error {
	if wrong := new(textError); errors.As(CheckStorableJSON(value), &wrong) {
		return errors.New(wrong.fault)
	}
	if len(value) == 0 || value[0] != '"' || json.Unmarshal(value, into) != nil {
		return errors.New("must be a string")
	}
	if len(*into) > maxEnvelopeText {
		return fmt.Errorf("is limited to %d bytes", maxEnvelopeText)
	}
	return nil
}

// readName reads a string that is not empty.
func readName(value []byte, into *string) error {
	err := readText(value, into)
	if err == nil && *into == "" {
		err = errors.New("must not be empty")
	}
	return err
}

func readPosition(e *Event, value []byte) error {
	var text string
	if err := readText(value, &text); err != nil {
		return err
	}
	var err error
	if e.Position, err = ParsePosition(text); err != nil {
		return errors.New("must look like 1795461046705-0, not " + quote(text))
	}
	return nil
}

func readSeq(e *Event, value []byte) (err error) {
	if e.Seq, err = strconv.ParseUint(string(value), 10, 64); err != nil {
		return errors.New("must be a whole number from 0, not " + quote(string(value)))
	}
	return nil
}

func readSystemID(e *Event, value []byte) error {
	var text string
	if err := readText(value, &text); err != nil {
		return err
	}
	var err error
	if e.SystemID, err = ParseSystemID(text); err != nil {
		return errors.New("must be 1 to 64 characters of A-Z a-z 0-9 . _ -, not " + quote(text))
	}
	return nil
}

func readOrigin(e *Event, value []byte) error {
	if err := readText(value, &e.Origin); err != nil || e.Origin == "" {
		return err
	}
	if _, err := ParseOrigin(e.Origin); err != nil {
		return errors.New("must be 1 to 128 characters of A-Z a-z 0-9 . _ : -, not " + quote(e.Origin))
	}
	return nil
}

func readTime(e *Event, value []byte) error {
	var text string
	if err := readText(value, &text); err != nil {
		return err
	}
	at, err := parseInstant(text)
	if err == nil && at.IsZero() {
		err = errors.New("must be after 0001-01-01T00:00:00Z")
	}
	e.Time = at.Truncate(time.Microsecond)
	return err
}

func readVersion(e *Event, value []byte) error {
	version, err := strconv.ParseInt(string(value), 10, 32)
	if err != nil || version < 1 {
		return fmt.Errorf("must be a whole number from 1 to %d, not %s", math.MaxInt32, quote(string(value)))
	}
	e.Version = int(version)
	return nil
}

// SalvageEnvelope turns an envelope that [ParseEnvelope] refused into an [Undecodable] that contains as much of it as
// fits. One bad event then does not stop a reader of another deployment's log. SalvageEnvelope needs the event's
// position and seq, and returns false if it cannot read them. refused is ParseEnvelope's error.
func SalvageEnvelope(raw []byte, system SystemID, refused error) (Event, bool) {
	var e Event
	readable := bytes.ToValidUTF8(raw, []byte("\uFFFD"))
	if CheckJSONSyntax(readable) != nil {
		return e, false
	}
	position, seq, id := firstMember(readable, "position"), firstMember(readable, "seq"), firstMember(readable, "id")
	if readPosition(&e, position) != nil || readSeq(&e, seq) != nil {
		return Event{}, false
	}
	if readName(id, &e.ID) != nil {
		e.ID = "undecodable-" + e.Position.String()
	}
	e.SystemID = system
	e.Time = e.Position.Time()
	return e.AsUndecodable("came over a bridge, and its "+refused.Error(), map[string]string{"envelope": string(raw)}), true
}

// firstMember returns the value of the first member with that name, or nil.
func firstMember(raw []byte, name string) []byte {
	for written, value := range JSONMembers(raw) {
		if written == name {
			return value
		}
	}
	return nil
}
