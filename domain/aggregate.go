package domain

// Aggregate names a part of a system whose commands must not race: the log accepts a decision about it only if nothing
// newer was appended under the same aggregate. See [Expectation].
type Aggregate string

// AggregateInventory covers a system's equipment and its assignments.
const AggregateInventory Aggregate = "inventory"

// AggregateConnection returns the aggregate of one connection.
func AggregateConnection(id ConnectionID) Aggregate { return Aggregate("connection/" + string(id)) }

// expect returns the condition for a decision on s: the aggregate has no event that s has not seen. A state has seen
// everything up to its cursor.
func (a Aggregate) expect(s *State) *Expectation {
	if a == "" {
		return nil
	}
	return &Expectation{Aggregate: a, Head: s.Cursor.Position}
}

// Aggregate returns the aggregate that the event changes, or "" if no command decides on what it changes. An import
// moves the aggregate's head, so that the service repeats the decision of a local command that has not seen the event.
func (e *Event) Aggregate() Aggregate {
	data, err := e.Decode()
	if err != nil {
		return ""
	}
	switch d := data.(type) {
	case AssignmentUpdated, EquipmentRegistered, EquipmentUpdated, EquipmentRetired:
		return AggregateInventory
	case ConnectionCreated:
		return AggregateConnection(d.ConnectionID)
	case ConnectionUpdated:
		return AggregateConnection(d.ConnectionID)
	case ConnectionStarted:
		return AggregateConnection(d.ConnectionID)
	case ConnectionStopped:
		return AggregateConnection(d.ConnectionID)
	case ConnectionRestarted:
		return AggregateConnection(d.ConnectionID)
	case ConnectionDeleted:
		return AggregateConnection(d.ConnectionID)
	}
	return ""
}
