package domain

import (
	"encoding/json"
	"errors"
	"fmt"
)

const (
	maxText   = 256  // bytes of a name, a kind, a source, and one error of a device
	maxReason = 1024 // bytes of a reason, and of what went wrong with a command
	maxList   = 32   // entries of errors and of changed
)

// boundedText is a text of typed data with its bound.
type boundedText struct {
	field, value string
	most         int
}

func short(field, value string) boundedText { return boundedText{field, value, maxText} }
func long(field, value string) boundedText  { return boundedText{field, value, maxReason} }

func optionalShort(field string, o Optional[string]) boundedText {
	value, _ := o.Get()
	return short(field, value)
}

func requireTexts(code Code, texts ...boundedText) error {
	for _, t := range texts {
		if err := requireText(code, t.field, t.value, t.most); err != nil {
			return err
		}
	}
	return nil
}

// checkBounds refuses data beyond the bounds of its type, whichever way they come.
// That their ids are well-formed is [Event.Decode]'s to say, where a row has
// them for its name.
func checkBounds(data Data) error {
	const code = CodeInvalidUpdate
	switch d := data.(type) {
	case DeviceUpdate:
		return d.validate()
	case DeviceOfflineStatus:
		return requireTexts(code, short("reason", string(d.Reason)))
	case EnergyCorrected:
		if err := checkCorrected(code, d.EnergyWh); err != nil {
			return err
		}
		return requireTexts(code, short("commandId", d.CommandID), long("reason", d.Reason))
	case AssignmentUpdated:
		return checkReferences(d.PreviousEquipmentID, d.PreviousDeviceID)
	case EquipmentRegistered:
		return d.validate(code)
	case EquipmentUpdated:
		return d.validate(code)
	case EquipmentRetired:
		return requireTexts(code, short("equipmentId", string(d.EquipmentID)), long("reason", d.Reason))
	case ConnectionCreated:
		return requireTexts(code, short("kind", string(d.Kind)), short("name", d.Name))
	case ConnectionUpdated:
		return requireTexts(code, short("connectionId", string(d.ConnectionID)), short("commandId", d.CommandID), optionalShort("name", d.Name))
	case ConnectionStarted:
		return d.validate(code)
	case ConnectionStopped:
		return d.validate(code)
	case ConnectionRestarted:
		return d.validate(code)
	case ConnectionDeleted:
		return d.validate(code)
	case ConnectionStateChanged:
		return requireTexts(code, short("connectionId", string(d.ConnectionID)), short("state", string(d.State)), long("reason", d.Reason))
	case RelaySwitchRequested:
		if !(d.ToggleAfterS >= 0 && d.ToggleAfterS <= MaxToggleAfter.Seconds()) {
			return Invalid(code, fmt.Sprintf("toggleAfterS must be 0 to %v", MaxToggleAfter.Seconds()))
		}
		return requireTexts(code, short("commandId", d.CommandID), short("deviceId", string(d.DeviceID)))
	case RelaySwitchCompleted:
		return requireTexts(code, short("commandId", d.CommandID), short("deviceId", string(d.DeviceID)), short("outcome", string(d.Outcome)),
			long("error", d.Error))
	case DisconnectRequested:
		return d.validate(code)
	case DisconnectCompleted:
		return requireTexts(code, short("commandId", d.CommandID), short("node", d.Node))
	}
	return nil
}

func checkReferences(equipment *EquipmentID, device *DeviceID) (err error) {
	if equipment != nil {
		_, err = ParseEquipmentID(string(*equipment))
	}
	if device != nil && err == nil {
		_, err = ParseDeviceID(string(*device))
	}
	return err
}

// validate checks all of an update but that its device has a well-formed id.
func (u *DeviceUpdate) validate() error {
	if err := checkTexts("changed", u.Changed); err != nil {
		return err
	}
	return u.checkFields()
}

func (d *EquipmentRegistered) validate(code Code) error {
	return checkEquipment(code, d.EquipmentID, Some(d.Name), Some(d.Kind), Some(d.Location), d.Attributes)
}

func (d *EquipmentUpdated) validate(code Code) error {
	return checkEquipment(code, d.EquipmentID, d.Name, d.Kind, d.Location, d.Attributes)
}

func checkEquipment(code Code, id EquipmentID, name, kind, location Optional[string], attributes json.RawMessage) error {
	if _, err := ParseEquipmentID(string(id)); err != nil {
		return err
	}
	if err := requireTexts(code, optionalShort("name", name), optionalShort("kind", kind), optionalShort("location", location)); err != nil {
		return err
	}
	if v, known := name.Get(); !name.IsZero() && (!known || v == "") {
		return Invalid(code, "name must not be empty")
	}
	_, err := freeObject(attributes, code)
	return err
}

func (c *ConnectionCommand) validate(code Code) error {
	return requireTexts(code, short("connectionId", string(c.ConnectionID)), short("commandId", c.CommandID), long("reason", c.Reason))
}

func (d *DisconnectRequested) validate(code Code) error {
	if d.TargetSystem != "" {
		if _, err := ParseSystemID(string(d.TargetSystem)); err != nil {
			return err
		}
	}
	if d.BanUntil != nil {
		if _, err := writable(*d.BanUntil); err != nil {
			return Invalid(code, "banUntil "+err.Error())
		}
	}
	return requireTexts(code, short("commandId", d.CommandID), short("socketId", d.SocketID), short("connectionId", string(d.ConnectionID)),
		boundedText{"subject", d.Subject, maxEnvelopeText}, short("role", string(d.Role)), long("reason", d.Reason))
}

// freeObject returns a free object of a publisher's in the form that events carry:
// token for token as it came, without insignificant white space. null stays, and
// so does nothing.
func freeObject(raw json.RawMessage, code Code) (json.RawMessage, error) {
	if raw == nil || string(raw) == "null" {
		return raw, nil
	}
	object, err := canonicalObject(raw)
	switch {
	case errors.Is(err, errNotObject):
		return nil, Invalid(code, "attributes must be a JSON object")
	case err != nil:
		return nil, Invalid(code, "attributes: "+err.Error())
	}
	if len(object) > maxAttributes {
		return nil, Invalid(code, "attributes are limited to 4 KiB")
	}
	return object, nil
}
