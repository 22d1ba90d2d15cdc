package domain

import "bytes"

// The commands on plugs and equipment. A Decide looks at the state of one system
// and answers with the events that should follow, or with an [Error] that says
// why not. No events and no error means that things are already as asked. It does
// not change the state.

// AssignPlug ties a plug to a piece of equipment, replacing what the plug fed
// before.
type AssignPlug struct {
	DeviceID    DeviceID
	EquipmentID EquipmentID
	Move        bool      // take the equipment from the plug that feeds it now
	IfMatch     *Position // only if this is the position of the plug's present assignment
}

// Validate implements [Command].
func (c AssignPlug) Validate() error {
	if _, err := ParseDeviceID(string(c.DeviceID)); err != nil {
		return err
	}
	_, err := ParseEquipmentID(string(c.EquipmentID))
	return err
}

// Requires implements [Command].
func (c AssignPlug) Requires() Requirements {
	return Requirements{
		Action: ActionCommand, Aggregate: AggregateInventory,
		State: Needs{Devices: []DeviceID{c.DeviceID}, Equipment: []EquipmentID{c.EquipmentID}},
	}
}

// Decide fails with [CodeUnknownDevice], [CodeUnknownEquipment], [CodeStale] or,
// when another plug feeds the equipment and Move is not set,
// [CodeEquipmentOccupied] with the holder.
func (c AssignPlug) Decide(s *State, _ string) ([]Data, error) {
	if err := s.requireDevice(c.DeviceID); err != nil {
		return nil, err
	}
	if err := s.requireEquipment(c.EquipmentID); err != nil {
		return nil, err
	}
	now := s.Assignments[c.DeviceID]
	if err := requireMatch(now, c.IfMatch); err != nil {
		return nil, err
	}
	if now != nil && now.EquipmentID == c.EquipmentID {
		return nil, nil
	}
	event := AssignmentUpdated{DeviceID: c.DeviceID, EquipmentID: &c.EquipmentID}
	if now != nil {
		event.PreviousEquipmentID = &now.EquipmentID
	}
	if holder, held := s.Holder(c.EquipmentID); held {
		if !c.Move {
			return nil, Fail(KindConflict, CodeEquipmentOccupied,
				"equipment "+quote(string(c.EquipmentID))+" is fed by "+quote(string(holder))+"; repeat with move=true to take it over").
				With("deviceId", holder).With("equipmentId", c.EquipmentID)
		}
		event.PreviousDeviceID = &holder
	}
	return []Data{event}, nil
}

// ReleasePlug ends a plug's assignment.
type ReleasePlug struct {
	DeviceID DeviceID
	IfMatch  *Position // only if this is the position of the plug's present assignment
}

// Validate implements [Command].
func (c ReleasePlug) Validate() error {
	_, err := ParseDeviceID(string(c.DeviceID))
	return err
}

// Requires implements [Command].
func (c ReleasePlug) Requires() Requirements {
	return Requirements{
		Action: ActionCommand, Aggregate: AggregateInventory,
		State: Needs{Devices: []DeviceID{c.DeviceID}},
	}
}

// Decide fails with [CodeUnknownDevice], [CodeStale] or [CodeNotAssigned].
func (c ReleasePlug) Decide(s *State, _ string) ([]Data, error) {
	if err := s.requireDevice(c.DeviceID); err != nil {
		return nil, err
	}
	now := s.Assignments[c.DeviceID]
	if err := requireMatch(now, c.IfMatch); err != nil {
		return nil, err
	}
	if now == nil {
		return nil, Fail(KindNotFound, CodeNotAssigned, "device "+quote(string(c.DeviceID))+" is not assigned to any equipment")
	}
	return []Data{AssignmentUpdated{DeviceID: c.DeviceID, PreviousEquipmentID: &now.EquipmentID}}, nil
}

// RegisterEquipment adds a piece of equipment.
type RegisterEquipment struct{ EquipmentRegistered }

// Validate fails with [CodeInvalidEquipmentID] or [CodeInvalidCommand].
func (c RegisterEquipment) Validate() error {
	return c.validate(CodeInvalidCommand)
}

// Requires implements [Command].
func (c RegisterEquipment) Requires() Requirements {
	return Requirements{
		Action: ActionCommand, Aggregate: AggregateInventory,
		State: Needs{Equipment: []EquipmentID{c.EquipmentID}},
	}
}

// Decide fails with [CodeEquipmentExists]. The id of retired equipment is not
// used again.
func (c RegisterEquipment) Decide(s *State, _ string) ([]Data, error) {
	if s.Equipment[c.EquipmentID] != nil {
		return nil, Fail(KindConflict, CodeEquipmentExists, "there is equipment "+quote(string(c.EquipmentID))+" already")
	}
	return []Data{c.EquipmentRegistered}, nil
}

// UpdateEquipment changes the fields that are present.
type UpdateEquipment struct {
	EquipmentUpdated
	IfMatch *Position // only if this is the equipment's present position
}

// Validate fails with [CodeInvalidEquipmentID] or [CodeInvalidCommand].
func (c UpdateEquipment) Validate() error {
	return c.validate(CodeInvalidCommand)
}

// Requires implements [Command].
func (c UpdateEquipment) Requires() Requirements {
	return Requirements{
		Action: ActionCommand, Aggregate: AggregateInventory,
		State: Needs{Equipment: []EquipmentID{c.EquipmentID}},
	}
}

// Decide fails with [CodeUnknownEquipment] or [CodeStale].
func (c UpdateEquipment) Decide(s *State, _ string) ([]Data, error) {
	if err := s.requireEquipment(c.EquipmentID); err != nil {
		return nil, err
	}
	now := s.Equipment[c.EquipmentID]
	if err := requirePosition(now.Position, c.IfMatch); err != nil {
		return nil, err
	}
	var err error
	if c.Attributes, err = freeObject(c.Attributes, CodeInvalidCommand); err != nil {
		return nil, err
	}
	same := (c.Attributes == nil || bytes.Equal(c.Attributes, now.Attributes)) &&
		isSame(c.Name, now.Name) && isSame(c.Kind, now.Kind) && isSame(c.Location, now.Location)
	if same {
		return nil, nil
	}
	return []Data{c.EquipmentUpdated}, nil
}

func isSame(change Optional[string], now string) bool {
	v, _ := change.Get()
	return change.IsZero() || v == now
}

// RetireEquipment takes a piece of equipment out of use and releases its plug.
type RetireEquipment struct {
	EquipmentRetired
	IfMatch *Position // only if this is the equipment's present position
}

// Validate implements [Command].
func (c RetireEquipment) Validate() error {
	if _, err := ParseEquipmentID(string(c.EquipmentID)); err != nil {
		return err
	}
	return requireTexts(CodeInvalidCommand, long("reason", c.Reason))
}

// Requires implements [Command].
func (c RetireEquipment) Requires() Requirements {
	return Requirements{
		Action: ActionCommand, Aggregate: AggregateInventory,
		State: Needs{Equipment: []EquipmentID{c.EquipmentID}},
	}
}

// Decide fails with [CodeUnknownEquipment] or [CodeStale].
func (c RetireEquipment) Decide(s *State, _ string) ([]Data, error) {
	if err := s.requireEquipment(c.EquipmentID); err != nil {
		return nil, err
	}
	if err := requirePosition(s.Equipment[c.EquipmentID].Position, c.IfMatch); err != nil {
		return nil, err
	}
	var events []Data
	if holder, held := s.Holder(c.EquipmentID); held {
		events = append(events, AssignmentUpdated{DeviceID: holder, PreviousEquipmentID: &c.EquipmentID})
	}
	return append(events, c.EquipmentRetired), nil
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

func requireMatch(now *Assignment, want *Position) error {
	if now == nil {
		return requirePosition(Position{}, want)
	}
	err := requirePosition(now.Position, want)
	if err != nil {
		err.(*Error).With("equipmentId", now.EquipmentID)
	}
	return err
}

func requirePosition(now Position, want *Position) error {
	if want == nil || *want == now {
		return nil
	}
	return Fail(KindPrecondition, CodeStale, "it has changed since: look again and decide").With("position", now)
}
