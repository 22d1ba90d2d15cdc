package domain

import "bytes"

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

// Decide fails with [CodeEquipmentExists], also if equipment with this id is retired.
func (c RegisterEquipment) Decide(s *State, _ string) ([]Data, error) {
	if s.Equipment[c.EquipmentID] != nil {
		return nil, Fail(KindConflict, CodeEquipmentExists, "equipment "+quote(string(c.EquipmentID))+" already exists")
	}
	return []Data{c.EquipmentRegistered}, nil
}

// UpdateEquipment changes the fields that are present.
type UpdateEquipment struct {
	EquipmentUpdated
	IfMatch *Position // if set, the equipment's current position must be equal
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
	unchanged := (c.Attributes == nil || bytes.Equal(c.Attributes, now.Attributes)) &&
		leavesUnchanged(c.Name, now.Name) && leavesUnchanged(c.Kind, now.Kind) && leavesUnchanged(c.Location, now.Location)
	if unchanged {
		return nil, nil
	}
	return []Data{c.EquipmentUpdated}, nil
}

// leavesUnchanged reports whether applying the change to now gives now.
func leavesUnchanged(change Optional[string], now string) bool {
	v, _ := change.Get()
	return change.IsZero() || v == now
}

// RetireEquipment takes a piece of equipment out of use and releases its plug.
type RetireEquipment struct {
	EquipmentRetired
	IfMatch *Position // if set, the equipment's current position must be equal
}

// Validate implements [Command].
func (c RetireEquipment) Validate() error {
	if _, err := ParseEquipmentID(string(c.EquipmentID)); err != nil {
		return err
	}
	return requireTexts(CodeInvalidCommand, longText("reason", c.Reason))
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
