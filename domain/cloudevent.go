package domain

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
)

// Link is an event with its place in the system's hash chain, as exports carry
// it: one line of NDJSON, a CloudEvent 1.0.
type Link struct {
	Event Event
	Hash  Hash
	// Previous is the hash of the event before. A line says it only where the
	// line before it does not, so that an export may begin or leave out anywhere
	// and each event can still be checked.
	Previous *Hash
}

// AppendCloudEvent appends the link's line, without a line feed. The type is the
// event's name as on the wire, the subject is the device, and what CloudEvents
// has no name for is an extension in lower case, as the specification wants it.
func (l *Link) AppendCloudEvent(b []byte) []byte {
	e := &l.Event
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
	if l.Previous != nil {
		b = append(b, `,"previoushash":"`+l.Previous.String()+`"`...)
	}
	b = append(b, `,"hash":"`+l.Hash.String()+`","data":`...)
	b = append(b, e.Data...)
	return append(b, '}')
}

// ParseCloudEvent reads a line that AppendCloudEvent wrote, and fails with a
// [*BrokenError] for one that differs from that in a single byte. The data is
// kept byte for byte, because the hash is taken over it.
func ParseCloudEvent(line []byte) (Link, error) {
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
		return Link{}, fmt.Errorf("domain: read CloudEvent: %w", err)
	}
	if w.SpecVersion != "1.0" || w.SystemID == "" {
		return Link{}, fmt.Errorf("domain: read CloudEvent: not a line of a plugcast export")
	}
	at, err := parseInstant(w.Time)
	if err != nil {
		return Link{}, fmt.Errorf("domain: read CloudEvent: time %w", err)
	}
	l := Link{Event: Event{
		ID: w.ID, Type: w.Type, Version: w.DataVersion, SystemID: w.SystemID, Time: at, Actor: w.Actor,
		CorrelationID: w.CorrelationID, CausationID: w.CausationID, Origin: w.Origin, Data: w.Data, Position: w.Position, Seq: w.Seq,
	}}
	var ok bool
	if l.Hash, ok = ParseHash(w.Hash); !ok {
		return Link{}, fmt.Errorf("domain: read CloudEvent: hash %s is not SHA-256 in hex", quote(w.Hash))
	}
	if w.PreviousHash != nil {
		previous, ok := ParseHash(*w.PreviousHash)
		if !ok {
			return Link{}, fmt.Errorf("domain: read CloudEvent: previoushash %s is not SHA-256 in hex", quote(*w.PreviousHash))
		}
		l.Previous = &previous
	}
	// What the hash does not cover (the subject, a member of somebody's own, one
	// that appears twice) must be what it follows from.
	if !bytes.Equal(l.AppendCloudEvent(nil), bytes.TrimSuffix(line, []byte("\n"))) {
		return l, &BrokenError{Cursor: l.Event.Cursor(), ID: l.Event.ID, Reason: "its line is not as an export writes it"}
	}
	return l, nil
}

// Chain checks the links of one system as they come, in order of seq. The zero
// Chain is ready to use.
type Chain struct {
	last    *Link
	checked uint64
}

// BrokenError says where a chain does not hold, and how.
type BrokenError struct {
	Cursor Cursor
	ID     string
	Reason string
}

// Error implements error.
func (e *BrokenError) Error() string {
	return fmt.Sprintf("event %s at %s: %s", e.ID, e.Cursor, e.Reason)
}

// Check takes the next link. It fails with a [*BrokenError] for an event that
// was altered, that does not follow the one before, or whose predecessor is not
// known. Events may be missing between two links only where the second says its
// previous hash: what is missing then was left out by a filter, and Check cannot
// tell that from a removal.
func (c *Chain) Check(l *Link) error {
	broken := func(reason string) error {
		return &BrokenError{Cursor: l.Event.Cursor(), ID: l.Event.ID, Reason: reason}
	}
	var previous Hash
	switch {
	case c.last != nil && c.last.Event.SystemID != l.Event.SystemID:
		return broken("it belongs to another system than the one before")
	case c.last != nil && (l.Event.Seq <= c.last.Event.Seq || !l.Event.Position.After(c.last.Event.Position)):
		return broken("it is out of order")
	case c.last != nil && l.Event.Seq == c.last.Event.Seq+1:
		previous = c.last.Hash
		if l.Previous != nil && *l.Previous != previous {
			return broken("it does not link to the event before")
		}
	case l.Previous != nil:
		previous = *l.Previous
	case l.Event.Seq == 1:
		// the first event ever links to the zero hash
	default:
		return broken("events before it are missing")
	}
	if previous.Next(&l.Event) != l.Hash {
		return broken("its content is not what was hashed")
	}
	kept := *l
	c.last = &kept
	c.checked++
	return nil
}

// Checked is how many links held.
func (c *Chain) Checked() uint64 { return c.checked }

// Last is the last link that held, or nil.
func (c *Chain) Last() *Link { return c.last }
