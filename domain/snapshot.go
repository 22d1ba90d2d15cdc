package domain

import (
	"cmp"
	"maps"
	"slices"
)

// Snapshot is a State in the form that faces send: lists ordered by id.
type Snapshot struct {
	SystemID    SystemID      `json:"systemId"`
	Position    Position      `json:"position"`
	Seq         uint64        `json:"seq"`
	Devices     []*Device     `json:"devices"`
	Equipment   []*Equipment  `json:"equipment"`
	Assignments []*Assignment `json:"assignments"`
	Connections []*Connection `json:"connections"`
}

// Snapshot returns the rows of s as lists ordered by id. It shares the rows with s.
func (s *State) Snapshot() *Snapshot {
	return &Snapshot{
		SystemID:    s.SystemID,
		Position:    s.Cursor.Position,
		Seq:         s.Cursor.Seq,
		Devices:     ordered(s.Devices),
		Equipment:   ordered(s.Equipment),
		Assignments: ordered(s.Assignments),
		Connections: ordered(s.Connections),
	}
}

func ordered[K cmp.Ordered, V any](m map[K]V) []V {
	out := make([]V, 0, len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, m[k])
	}
	return out
}
