package domain

import (
	"cmp"
	"maps"
	"slices"
)

// maxFields bounds the fields of an [Undecodable].
const maxFields = 64

// NewUndecodable makes the event that stands in the log's place for an entry which
// cannot be read, or cannot be kept as it is. reason and fields may hold anything:
// the event has them as text that every store takes, and is canonical. Every
// reader of the same entry gets the same event.
func NewUndecodable(system SystemID, at Position, reason string, fields map[string]string) Event {
	e := Event{ID: "undecodable-" + at.String(), SystemID: system, Time: at.Time(), Position: at}
	return e.Undecodable(reason, fields)
}

// Undecodable makes the event an [Undecodable] of the fields, with the envelope
// that it has. Fields that do not fit are cut, the longest first.
func (e *Event) Undecodable(reason string, fields map[string]string) Event {
	u := Undecodable{Reason: cutQuoted(reason, maxReason), Fields: make(map[string]string, len(fields))}
	names := slices.SortedFunc(maps.Keys(fields), func(a, b string) int {
		return cmp.Or(cmp.Compare(len(fields[a]), len(fields[b])), cmp.Compare(a, b))
	})
	names = names[:min(len(names), maxFields)]
	replaced := *e
	replaced.Type, replaced.Version = TypeUndecodable, currentVersion(TypeUndecodable)
	left := replaced.room() - len(`{"reason":"","fields":{}}`) - quotedLen(u.Reason)
	for i, name := range names {
		kept := cutQuoted(name, maxText)
		left -= len(`"":"",`) + quotedLen(kept)
		u.Fields[kept] = cutQuoted(fields[name], left/(len(names)-i))
		left -= quotedLen(u.Fields[kept])
	}
	replaced.Data, _ = EncodeJSON(u) // strings can always be written
	return replaced
}
