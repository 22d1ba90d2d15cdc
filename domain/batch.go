package domain

import "fmt"

// Batch is a piece of the log of one system as another deployment has it, on its
// way into ours.
//
// The events keep what makes them what they are: id, type, version, time, actor,
// correlation, causation, data and origin. Their Position is where they stand in
// the source's log, and says how far a reader of that log has come; ours gives
// them another, and another Seq.
type Batch struct {
	System SystemID
	Source string // the id of the deployment whose log was read
	// The batch has everything that is wanted of the source's events after After,
	// exclusive, up to Through, inclusive: what is between and not in Events was
	// left out on purpose.
	After, Through Position
	Events         []Event // in the order of the source's log
}

// Taken says what became of a [Batch].
type Taken struct {
	Accepted   int      // appended now
	Duplicates int      // here already: taken from this source before, or come by another way
	Own        int      // first appended here: they came home
	Cursor     Position // up to where the source's log is taken now
}

// BehindError says that a [Batch] begins after the place up to which its source
// was taken. Nothing of it was appended: what lies between would be lost. Read
// the source's log on from Cursor.
type BehindError struct {
	Source string
	After  Position
	Cursor Position
}

// Error implements error.
func (e *BehindError) Error() string {
	return fmt.Sprintf("domain: the log of %s is taken up to %s, and this batch begins after %s", e.Source, e.Cursor, e.After)
}

// MaxBatch bounds the events of one [Batch] that is pushed.
const MaxBatch = MaxUpdates

// ParseDeployment checks the id of a deployment: 1 to 64 characters of A-Z a-z
// 0-9 . _ and -.
func ParseDeployment(s string) (string, error) {
	if !isID(s, maxID, false) {
		return "", Invalid(CodeInvalidDeployment, "a deployment's id is 1 to 64 characters of A-Z a-z 0-9 . _ -, not "+quote(s))
	}
	return s, nil
}

// ParseOrigin checks where an event first came into a log: a deployment, or a link
// of one to something that is none, as in socketio:NAME. It is 1 to 128 characters
// of A-Z a-z 0-9 . _ : and -.
func ParseOrigin(s string) (string, error) {
	if !isID(s, maxOrigin, true) {
		return "", Invalid(CodeInvalidDeployment, "an origin is 1 to 128 characters of A-Z a-z 0-9 . _ : -, not "+quote(s))
	}
	return s, nil
}

// Aggregate is what the event changes that commands decide on, or "": who takes
// an event from elsewhere moves its head, so that a command that has not seen it
// is decided anew.
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
