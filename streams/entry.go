package streams

import (
	"encoding/json"
	"errors"
	"strconv"

	"github.com/plugcast/plugcast/domain"
)

// entry is an entry of the log, as a reply contains it.
type entry struct {
	position domain.Position
	buf      []byte // the reply that the spans refer to
	fields   []span // name, value, name, value, …
}

// span is a part of a reply.
type span struct{ from, to int }

func (e *entry) bytes(i int) []byte { return e.buf[e.fields[i].from:e.fields[i].to] }

// decodeEntries decodes a page from a list of entries, as XRANGE replies it. The page ends at
// maxPageBytes; the next page reads the rest again.
func decodeEntries(r *reply) (events []domain.Event, got pageStats, err error) {
	n, err := r.array()
	if err != nil || n <= 0 {
		return nil, got, err
	}
	return decodePage(r, n)
}

// decodeEntriesAfter decodes a list that may begin with the entry of a position that the reader
// has. It reports whether the list does, and leaves that entry out.
func decodeEntriesAfter(r *reply, at domain.Position) (events []domain.Event, present bool, got pageStats, err error) {
	n, err := r.array()
	if err != nil || n <= 0 {
		return nil, false, got, err
	}
	begin := r.at
	var e entry
	if err := e.read(r); err != nil {
		return nil, false, got, err
	}
	if present = e.position == at; present {
		n--
	} else {
		r.at = begin
	}
	events, got, err = decodePage(r, n)
	return events, present, got, err
}

// decodePage decodes up to n entries. got.entries is n.
func decodePage(r *reply, n int) (events []domain.Event, got pageStats, err error) {
	got.entries = n
	events = make([]domain.Event, 0, n)
	var e entry
	for begin := r.at; len(events) < n; {
		before := r.at
		if err := e.read(r); err != nil {
			return events, got, err
		}
		got.largest = max(got.largest, r.at-before)
		if r.at-begin > maxPageBytes && len(events) > 0 {
			break
		}
		got.bytes = r.at - begin
		events = append(events, e.event())
	}
	return events, got, nil
}

func (e *entry) read(r *reply) error {
	if n, err := r.array(); err != nil || n != 2 {
		return errors.Join(errMalformed, err)
	}
	id, err := r.bulk()
	if err != nil {
		return err
	}
	var ok bool
	if e.position, ok = parsePosition(id); !ok {
		return errMalformed
	}
	n, err := r.array()
	if err != nil {
		return err
	}
	e.buf, e.fields = r.buf, e.fields[:0]
	for range n {
		field, err := r.bulk()
		if err != nil {
			return err
		}
		end := r.at - 2 // the end of the line
		e.fields = append(e.fields, span{end - len(field), end})
	}
	return nil
}

func parsePosition(b []byte) (p domain.Position, ok bool) {
	i := 0
	for ; i < len(b) && b[i] != '-'; i++ {
		p.Ms = p.Ms*10 + uint64(b[i]-'0')
	}
	for i++; i < len(b); i++ {
		p.N = p.N*10 + uint64(b[i]-'0')
		ok = true
	}
	return p, ok
}

// event returns the event of the entry. It takes two allocations: one string that all envelope
// fields are parts of, and the data. Both are copies, so that a kept event does not keep the
// whole reply in memory.
func (e *entry) event() domain.Event {
	if e.inOrder() {
		return e.decode(e.envelope())
	}
	// Another program wrote it: find the fields by name. The last one counts.
	var text [len(fieldNames) - 1]string
	var data []byte
	for i := 0; i+1 < len(e.fields); i += 2 {
		for n, name := range fieldNames {
			switch {
			case string(e.bytes(i)) != name:
			case name == fieldData:
				data = e.bytes(i + 1)
			default:
				text[n] = string(e.bytes(i + 1))
			}
		}
	}
	return e.decode(text, data)
}

func (e *entry) inOrder() bool {
	if len(e.fields) != 2*len(fieldNames) {
		return false
	}
	for i, name := range fieldNames {
		if string(e.bytes(2*i)) != name {
			return false
		}
	}
	return true
}

// envelope returns the values of all fields but the last, which is the data, as parts of one
// string.
func (e *entry) envelope() (text [len(fieldNames) - 1]string, data []byte) {
	base := e.fields[0].from
	all := string(e.buf[base:e.fields[2*len(text)].from])
	for n := range text {
		value := e.fields[2*n+1]
		text[n] = all[value.from-base : value.to-base]
	}
	return text, e.bytes(2*len(text) + 1)
}

// decode checks the values of the fields and returns their event. An entry that another program
// appended may have any form. Every process that reads the entry gets the same event.
func (e *entry) decode(text [len(fieldNames) - 1]string, data []byte) domain.Event {
	id, kind, version, system, at := text[0], text[1], text[2], text[3], text[4]
	if _, err := domain.ParseSystemID(system); err != nil {
		return e.undecodable("", "no well-formed systemId")
	}
	event := domain.Event{
		ID: id, Type: domain.EventType(kind), SystemID: domain.SystemID(system),
		Actor: text[5], CorrelationID: text[6], CausationID: text[7], Origin: text[8], Position: e.position,
	}
	if id == "" || kind == "" {
		return e.undecodable(event.SystemID, "no id or no type")
	}
	var err error
	if event.Version, err = strconv.Atoi(version); err != nil {
		return e.undecodable(event.SystemID, "version is not a number from 1")
	}
	if event.Time, err = domain.ParseTime(at); err != nil {
		return e.undecodable(event.SystemID, "time is not RFC 3339")
	}
	event.Data = append(make(json.RawMessage, 0, len(data)), data...)
	if err := event.Canonicalize(); err != nil {
		return e.undecodable(event.SystemID, domain.AsError(err).Detail)
	}
	return event
}

// undecodable returns the event that stands for an entry that is not in canonical form.
func (e *entry) undecodable(system domain.SystemID, reason string) domain.Event {
	fields := make(map[string]string, len(e.fields)/2)
	for i := 0; i+1 < len(e.fields); i += 2 {
		fields[string(e.bytes(i))] = string(e.bytes(i + 1))
	}
	return domain.NewUndecodable(system, e.position, reason, fields)
}
