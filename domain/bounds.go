package domain

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	maxText       = 256     // bytes of a name, a kind, a source, or one error of a device
	maxReason     = 1024    // bytes of a reason, or of the error of a command
	maxList       = 32      // entries of errors, of changed, or of counterFalls
	maxAttributes = 4 << 10 // bytes of attributes, without insignificant white space
)

// checkBounds rejects data beyond the bounds of its type, regardless of the face or bridge that it came through.
// [Event.Decode] checks the ids that name a row.
func checkBounds(data Data) error {
	const code = CodeInvalidUpdate
	switch d := data.(type) {
	case DeviceUpdate:
		return d.validate()
	case DeviceOfflineStatus:
		return requireTexts(code, shortText("reason", string(d.Reason)))
	case EnergyCorrected:
		if err := checkCorrectedEnergy(code, d.EnergyWh); err != nil {
			return err
		}
		return requireTexts(code, shortText("commandId", d.CommandID), longText("reason", d.Reason))
	case AssignmentUpdated:
		return checkReferences(d.PreviousEquipmentID, d.PreviousDeviceID)
	case EquipmentRegistered:
		return d.validate(code)
	case EquipmentUpdated:
		return d.validate(code)
	case EquipmentRetired:
		return requireTexts(code, shortText("equipmentId", string(d.EquipmentID)), longText("reason", d.Reason))
	case ConnectionCreated:
		return requireTexts(code, shortText("kind", string(d.Kind)), shortText("name", d.Name))
	case ConnectionUpdated:
		return requireTexts(code, shortText("connectionId", string(d.ConnectionID)), shortText("commandId", d.CommandID),
			optionalText("name", d.Name))
	case ConnectionStarted:
		return d.validate(code)
	case ConnectionStopped:
		return d.validate(code)
	case ConnectionRestarted:
		return d.validate(code)
	case ConnectionDeleted:
		return d.validate(code)
	case ConnectionStateChanged:
		return requireTexts(code, shortText("connectionId", string(d.ConnectionID)), shortText("state", string(d.State)),
			longText("reason", d.Reason))
	case RelaySwitchRequested:
		if !(d.ToggleAfterS >= 0 && d.ToggleAfterS <= MaxToggleAfter.Seconds()) { // also rejects NaN
			return Invalid(code, fmt.Sprintf("toggleAfterS must be 0 to %v", MaxToggleAfter.Seconds()))
		}
		return requireTexts(code, shortText("commandId", d.CommandID), shortText("deviceId", string(d.DeviceID)))
	case RelaySwitchCompleted:
		return requireTexts(code, shortText("commandId", d.CommandID), shortText("deviceId", string(d.DeviceID)),
			shortText("outcome", string(d.Outcome)), longText("error", d.Error))
	case DisconnectRequested:
		return d.validate(code)
	case DisconnectCompleted:
		return requireTexts(code, shortText("commandId", d.CommandID), shortText("node", d.Node))
	}
	return nil
}

// checkIDs rejects data whose subject has a malformed id: no row can have it as its name.
func checkIDs(data Data) (err error) {
	switch d := data.(type) {
	case DeviceUpdate:
		_, err = ParseDeviceID(string(d.DeviceID))
	case DeviceOfflineStatus:
		_, err = ParseDeviceID(string(d.DeviceID))
	case EnergyCorrected:
		_, err = ParseDeviceID(string(d.DeviceID))
	case AssignmentUpdated:
		if _, err = ParseDeviceID(string(d.DeviceID)); err == nil && d.EquipmentID != nil {
			_, err = ParseEquipmentID(string(*d.EquipmentID))
		}
	case EquipmentRegistered:
		_, err = ParseEquipmentID(string(d.EquipmentID))
	case ConnectionCreated:
		_, err = ParseConnectionID(string(d.ConnectionID))
	}
	return err
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

// validate checks everything but the device's id, which [Event.Decode] and [SystemUpdate.Validate] check.
func (u *DeviceUpdate) validate() error {
	if err := checkStrings("changed", u.Changed); err != nil {
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
	if err := requireTexts(code, optionalText("name", name), optionalText("kind", kind), optionalText("location", location)); err != nil {
		return err
	}
	if v, known := name.Get(); !name.IsZero() && (!known || v == "") {
		return Invalid(code, "name must not be empty")
	}
	_, err := freeObject(attributes, code)
	return err
}

func (c *ConnectionCommand) validate(code Code) error {
	return requireTexts(code, shortText("connectionId", string(c.ConnectionID)), shortText("commandId", c.CommandID),
		longText("reason", c.Reason))
}

func (d *DisconnectRequested) validate(code Code) error {
	if d.TargetSystem != "" {
		if _, err := ParseSystemID(string(d.TargetSystem)); err != nil {
			return err
		}
	}
	if d.BanUntil != nil {
		if _, err := representable(*d.BanUntil); err != nil {
			return Invalid(code, "banUntil "+err.Error())
		}
	}
	return requireTexts(code, shortText("commandId", d.CommandID), shortText("socketId", d.SocketID),
		shortText("connectionId", string(d.ConnectionID)), limitedText{"subject", d.Subject, maxEnvelopeText},
		shortText("role", string(d.Role)), longText("reason", d.Reason))
}

// freeObject returns a publisher's free object in the form that events carry: the same tokens without insignificant
// white space. It returns nil and null unchanged.
func freeObject(raw json.RawMessage, code Code) (json.RawMessage, error) {
	if raw == nil || string(raw) == "null" {
		return raw, nil
	}
	object, err := CompactJSON(raw)
	switch {
	case errors.Is(err, errNotObject):
		return nil, Invalid(code, "attributes must be a JSON object")
	case err != nil:
		return nil, Invalid(code, "attributes: "+err.Error())
	}
	if len(object) > maxAttributes {
		return nil, Invalid(code, fmt.Sprintf("attributes are limited to %d bytes", maxAttributes))
	}
	return object, nil
}

func checkConnectionID(_ string, id ConnectionID) error {
	_, err := ParseConnectionID(string(id))
	return err
}

func checkChannel(name string, n int) error {
	if n < 0 || n > 255 {
		return Invalid(CodeInvalidUpdate, name+" must be 0 to 255")
	}
	return nil
}

func checkTime(name string, at time.Time) error {
	if _, err := representable(at); err != nil {
		return Invalid(CodeInvalidUpdate, name+" "+err.Error())
	}
	return nil
}

func checkString(name, text string) error {
	return requireText(CodeInvalidUpdate, name, text, maxText)
}

func checkStrings(name string, texts []string) error {
	if len(texts) > maxList {
		return Invalid(CodeInvalidUpdate, fmt.Sprintf("%s holds at most %d entries", name, maxList))
	}
	for _, text := range texts {
		if err := checkString("each of "+name, text); err != nil {
			return err
		}
	}
	return nil
}

// limitedText is a text of typed data with its limit in bytes.
type limitedText struct {
	field, value string
	limit        int
}

func shortText(field, value string) limitedText { return limitedText{field, value, maxText} }
func longText(field, value string) limitedText  { return limitedText{field, value, maxReason} }

func optionalText(field string, o Optional[string]) limitedText {
	value, _ := o.Get()
	return shortText(field, value)
}

func requireTexts(code Code, texts ...limitedText) error {
	for _, t := range texts {
		if err := requireText(code, t.field, t.value, t.limit); err != nil {
			return err
		}
	}
	return nil
}

// requireText rejects a text that cannot be stored or has more than limit bytes.
func requireText(code Code, field, s string, limit int) error {
	switch {
	case len(s) > limit:
		return Invalid(code, fmt.Sprintf("%s is limited to %d bytes", field, limit))
	case !utf8.ValidString(s):
		return Invalid(code, field+" is not UTF-8")
	case strings.IndexByte(s, 0) >= 0:
		return Invalid(code, field+" "+faultNUL)
	}
	return nil
}
