package domain

// Command is a request of an actor to change something in a system, as a value. [Service.Execute] runs it. A new kind of
// command is a type that implements Command, and a face that creates it.
type Command interface {
	// Validate checks the command by itself. It returns an [Error] of [KindInvalid].
	Validate() error
	// Requires returns the command's requirements. The service calls it before Validate.
	Requires() Requirements
	// Decide returns the data of the events that should follow from the state, or an [Error] that says why the command
	// is impossible. It returns neither if everything is already as requested. s has the rows that Requires names, and
	// maybe no others; Decide does not change it. commandID is the id of this command, for the events that name it.
	Decide(s *State, commandID string) ([]Data, error)
}

// Requirements lists the permission, the aggregate and the state that a command needs.
type Requirements struct {
	Action    Action    // the actor must be allowed to perform it
	Aggregate Aggregate // nobody may append to it between the decision and the append; "" if the command cannot conflict
	State     Needs     // the rows that the decision reads
}

// Needs selects a part of a system's state. The zero Needs is for a decision that needs no row.
type Needs struct {
	Devices     []DeviceID    // with their assignments and their connections
	Equipment   []EquipmentID // each with the assignment of the plug that feeds it
	Connections []ConnectionID
}

func (s *State) requireDevice(id DeviceID) error {
	if s.Devices[id] == nil {
		return Fail(KindNotFound, CodeUnknownDevice, "there is no device "+quote(string(id)))
	}
	return nil
}

func (s *State) requireEquipment(id EquipmentID) error {
	if eq := s.Equipment[id]; eq == nil || eq.Retired {
		return Fail(KindNotFound, CodeUnknownEquipment, "there is no equipment "+quote(string(id)))
	}
	return nil
}

// requirePosition checks the caller's If-Match condition on the position of a row.
func requirePosition(now Position, want *Position) error {
	if want == nil || *want == now {
		return nil
	}
	return Fail(KindPrecondition, CodeStale, "it has changed since you read it; read it again and decide").With("position", now)
}
