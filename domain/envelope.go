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

// UnmarshalJSON reads an envelope that this build or another wrote. Envelopes of
// strangers are for [ParseEnvelope].
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
	if w.Time != "" { // a lean envelope of others may have none
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

// envelopeFields read the members of an envelope.
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

// neededFields are the members that every envelope has.
var neededFields = [...]string{"event", "position", "id", "systemId", "time", "version", "data"}

// ParseEnvelope reads an envelope from outside, as another deployment's bridge
// sends it. The names of its members are matched exactly, none may be there twice,
// and members that are not known pass. All but the data is canonical afterwards;
// the data is for [Event.Foreign]. Errors name the member.
func ParseEnvelope(raw []byte) (Event, error) {
	err := CheckJSON(raw)
	if errors.As(err, new(*textError)) {
		err = nil // the member that it is in decides
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
	for _, name := range neededFields {
		if !slices.Contains(seen, name) {
			return Event{}, errors.New(name + " is missing")
		}
	}
	return e, nil
}

// readText reads a text of at most maxEnvelopeText bytes.
func readText(value []byte, into *string) error {
	if wrong := new(textError); errors.As(CheckJSON(value), &wrong) {
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

// readName reads a text that is not empty.
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

// SalvageEnvelope makes an [Undecodable] of what [ParseEnvelope] has refused, with
// as much of it as fits, so that one such event does not stop a log that is read
// from a server of others. That is possible where its place in that log, position
// and seq, can be read; otherwise it returns false.
func SalvageEnvelope(raw []byte, system SystemID, refused error) (Event, bool) {
	var e Event
	readable := bytes.ToValidUTF8(raw, []byte("\uFFFD"))
	if ValidJSON(readable) != nil {
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
	return e.Undecodable("came over a bridge, and its "+refused.Error(), map[string]string{"envelope": string(raw)}), true
}

// firstMember is the value of the first member of that name, or nil.
func firstMember(raw []byte, name string) []byte {
	for written, value := range JSONMembers(raw) {
		if written == name {
			return value
		}
	}
	return nil
}
