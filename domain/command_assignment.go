package domain

// AssignPlug assigns a plug to a piece of equipment. It replaces the plug's earlier assignment.
type AssignPlug struct {
	DeviceID    DeviceID
	EquipmentID EquipmentID
	Move        bool      // take the equipment from the plug that feeds it now
	IfMatch     *Position // if set, the position of the plug's current assignment must be equal; 0-0 if it has none
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

// Decide fails with [CodeUnknownDevice], [CodeUnknownEquipment] or [CodeStale]. If another plug feeds the equipment and
// Move is not set, it fails with [CodeEquipmentOccupied], whose parameter "deviceId" is that plug.
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
				"plug "+quote(string(holder))+" feeds equipment "+quote(string(c.EquipmentID))+"; repeat with move=true to take it over").
				With("deviceId", holder).With("equipmentId", c.EquipmentID)
		}
		event.PreviousDeviceID = &holder
	}
	return []Data{event}, nil
}

// ReleasePlug ends a plug's assignment.
type ReleasePlug struct {
	DeviceID DeviceID
	IfMatch  *Position // if set, the position of the plug's current assignment must be equal
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

// requireMatch checks the caller's condition on the current assignment, which may be nil.
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
