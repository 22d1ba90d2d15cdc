package domain

// Command is something that an actor wants to happen in a system, as a value.
// [Service.Execute] runs it. A new kind of command is a type that implements
// this, and the face that makes it.
type Command interface {
	// Validate checks the content by itself. Its errors are an [Error] of
	// [KindInvalid].
	Validate() error
	// Requires says what the service has to know before it can decide.
	Requires() Requirements
	// Decide returns the events that should follow from the state, or an [Error]
	// that says why not. It returns neither when things are already as asked. The
	// state has what Requires names, and perhaps nothing else; Decide does not
	// change it. commandID goes into the events that name their command.
	Decide(s *State, commandID string) ([]Data, error)
}

// Requirements say what a command depends on.
type Requirements struct {
	Action    Action    // the actor must be allowed to do it
	Aggregate Aggregate // nothing newer may have been appended under it; "" for commands that cannot conflict
	State     Needs     // what the decision looks at
}

// Needs names a part of a system's state. The zero Needs is for a decision that
// looks at nothing but which system it is in.
type Needs struct {
	Devices     []DeviceID    // with their assignments and the connections that they are behind
	Equipment   []EquipmentID // with the assignment of the plug that feeds each
	Connections []ConnectionID
}
