package domain

import (
	"cmp"
	"maps"
	"slices"
)

// maxFields limits the number of fields of an [Undecodable].
const maxFields = 64

// NewUndecodable returns the event that replaces a log entry that plugcast cannot read or store. reason and fields may
// contain anything: the event contains them as storable text and is canonical. Every reader of the same entry gets the
// same event.
func NewUndecodable(system SystemID, at Position, reason string, fields map[string]string) Event {
	e := Event{ID: "undecodable-" + at.String(), SystemID: system, Time: at.Time(), Position: at}
	return e.AsUndecodable(reason, fields)
}

// AsUndecodable returns the event with its data replaced by an [Undecodable] of the reason and the fields. It keeps the
// envelope. It truncates fields that do not fit, the longest first, and keeps at most 64 of them.
func (e *Event) AsUndecodable(reason string, fields map[string]string) Event {
	u := Undecodable{Reason: truncateQuoted(reason, maxReason), Fields: make(map[string]string, len(fields))}
	names := slices.SortedFunc(maps.Keys(fields), func(a, b string) int {
		return cmp.Or(cmp.Compare(len(fields[a]), len(fields[b])), cmp.Compare(a, b))
	})
	names = names[:min(len(names), maxFields)]
	replaced := *e
	replaced.Type, replaced.Version = TypeUndecodable, currentVersion(TypeUndecodable)
	left := replaced.maxData() - len(`{"reason":"","fields":{}}`) - quotedLen(u.Reason)
	for i, name := range names {
		kept := truncateQuoted(name, maxText)
		left -= len(`"":"",`) + quotedLen(kept)
		u.Fields[kept] = truncateQuoted(fields[name], left/(len(names)-i))
		left -= quotedLen(u.Fields[kept])
	}
	replaced.Data, _ = EncodeJSON(u) // never fails for strings
	return replaced
}
