package domain

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
)

// AppendCloudEvent appends the event's line in an export to b: a CloudEvent 1.0 in JSON, without a line feed. Its type
// is the event's name as on the wire, and its subject is the device. Attributes that CloudEvents does not define are
// extensions with lower-case names, as its specification requires.
func (h *HashedEvent) AppendCloudEvent(b []byte) []byte {
	e := &h.Event
	b = append(b, `{"specversion":"1.0","id":`...)
	b = appendJSONString(b, e.ID)
	b = append(b, `,"source":`...)
	b = appendJSONString(b, "/systems/"+string(e.SystemID))
	b = append(b, `,"type":`...)
	b = appendJSONString(b, string(e.Type))
	if device := e.Device(); device != "" {
		b = append(b, `,"subject":`...)
		b = appendJSONString(b, string(device))
	}
	b = append(b, `,"time":"`...)
	b = e.Time.UTC().AppendFormat(b, timeLayout)
	b = append(b, `","datacontenttype":"application/json","systemid":`...)
	b = appendJSONString(b, string(e.SystemID))
	b = append(b, `,"position":"`...)
	b = e.Position.appendTo(b)
	b = append(b, `","seq":`...)
	b = strconv.AppendUint(b, e.Seq, 10)
	b = append(b, `,"dataversion":`...)
	b = strconv.AppendInt(b, int64(e.Version), 10)
	for _, extension := range []struct{ name, value string }{
		{"actor", e.Actor}, {"correlationid", e.CorrelationID}, {"causationid", e.CausationID}, {"origin", e.Origin},
	} {
		if extension.value != "" {
			b = append(b, `,"`+extension.name+`":`...)
			b = appendJSONString(b, extension.value)
		}
	}
	if h.Previous != nil {
		b = append(b, `,"previoushash":"`+h.Previous.String()+`"`...)
	}
	b = append(b, `,"hash":"`+h.Hash.String()+`","data":`...)
	b = append(b, e.Data...)
	return append(b, '}')
}

// ParseCloudEvent reads a line that [HashedEvent.AppendCloudEvent] wrote, with or without its line feed. It returns an
// [*IntegrityError] if the line differs from what AppendCloudEvent writes for the event by as little as one byte. It
// does not check the hash: see [ChainVerifier]. The data stays byte for byte the same, because the hash covers it.
func ParseCloudEvent(line []byte) (HashedEvent, error) {
	var w struct {
		SpecVersion   string          `json:"specversion"`
		ID            string          `json:"id"`
		Type          EventType       `json:"type"`
		Time          string          `json:"time"`
		SystemID      SystemID        `json:"systemid"`
		Position      Position        `json:"position"`
		Seq           uint64          `json:"seq"`
		DataVersion   int             `json:"dataversion"`
		Actor         string          `json:"actor"`
		CorrelationID string          `json:"correlationid"`
		CausationID   string          `json:"causationid"`
		Origin        string          `json:"origin"`
		PreviousHash  *string         `json:"previoushash"`
		Hash          string          `json:"hash"`
		Data          json.RawMessage `json:"data"`
	}
	if err := json.Unmarshal(line, &w); err != nil {
		return HashedEvent{}, fmt.Errorf("domain: read CloudEvent: %w", err)
	}
	if w.SpecVersion != "1.0" || w.SystemID == "" {
		return HashedEvent{}, fmt.Errorf("domain: read CloudEvent: the line is not from a plugcast export")
	}
	at, err := parseInstant(w.Time)
	if err != nil {
		return HashedEvent{}, fmt.Errorf("domain: read CloudEvent: time %w", err)
	}
	h := HashedEvent{Event: Event{
		ID: w.ID, Type: w.Type, Version: w.DataVersion, SystemID: w.SystemID, Time: at, Actor: w.Actor,
		CorrelationID: w.CorrelationID, CausationID: w.CausationID, Origin: w.Origin, Data: w.Data, Position: w.Position, Seq: w.Seq,
	}}
	var ok bool
	if h.Hash, ok = ParseHash(w.Hash); !ok {
		return HashedEvent{}, fmt.Errorf("domain: read CloudEvent: hash %s is not SHA-256 in hex", quote(w.Hash))
	}
	if w.PreviousHash != nil {
		previous, ok := ParseHash(*w.PreviousHash)
		if !ok {
			return HashedEvent{}, fmt.Errorf("domain: read CloudEvent: previoushash %s is not SHA-256 in hex", quote(*w.PreviousHash))
		}
		h.Previous = &previous
	}
	// The hash does not cover everything in a line, such as the subject, an added member, or a repeated one. Writing the
	// line again finds changes there.
	if !bytes.Equal(h.AppendCloudEvent(nil), bytes.TrimSuffix(line, []byte("\n"))) {
		return h, &IntegrityError{Cursor: h.Event.Cursor(), ID: h.Event.ID, Reason: "the line differs from what an export writes"}
	}
	return h, nil
}
