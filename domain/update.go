package domain

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
)

// Limits of a published device update.
const (
	MaxUpdates    = 1000 // in one batch
	maxAttributes = 4 << 10
)

// SystemUpdate is a device update on its way in: a DeviceUpdate and the system
// that it belongs to.
type SystemUpdate struct {
	SystemID SystemID `json:"systemId"`
	DeviceUpdate
}

// updateFields are the names of the fields of a published update. They are
// matched exactly: encoding/json would take relayon for relayOn.
var updateFields = func() map[string]bool {
	names := map[string]bool{"systemId": true, "deviceId": true, "changed": true}
	for _, f := range DeviceFields {
		names[f.Name] = true
	}
	return names
}()

// ParseSystemUpdate reads one published update. Unknown fields are refused, so
// that a misspelt one does not pass for "unchanged", and so are fields that are
// there twice and text that cannot be kept: what is in the log is what was sent.
// Errors are an [Error] with the code of the field that is wrong, or
// [CodeInvalidUpdate]; they name the field.
func ParseSystemUpdate(raw []byte) (SystemUpdate, error) {
	var u SystemUpdate
	if err := CheckJSON(raw); err != nil {
		return SystemUpdate{}, Invalid(CodeInvalidUpdate, err.Error())
	}
	if err := json.Unmarshal(raw, &u); err != nil {
		return SystemUpdate{}, invalidField(raw, err)
	}
	seen := make([]string, 0, 20)
	for written := range members(raw) {
		name := unquoteName(written)
		switch {
		case !updateFields[name]:
			return SystemUpdate{}, Invalid(CodeInvalidUpdate,
				"unknown field "+quote(name)+"; put fields of your own under attributes")
		case slices.Contains(seen, name):
			return SystemUpdate{}, Invalid(CodeInvalidUpdate, "field "+quote(name)+" appears twice")
		}
		seen = append(seen, name)
	}
	err := u.Validate()
	return u, err
}

// Validate checks ids, sizes and ranges, and takes insignificant white space out
// of the attributes.
func (u *SystemUpdate) Validate() error {
	if _, err := ParseSystemID(string(u.SystemID)); err != nil {
		return err
	}
	if _, err := ParseDeviceID(string(u.DeviceID)); err != nil {
		return err
	}
	return u.DeviceUpdate.validate()
}

// invalidField says which field of the update cannot be read, and why.
func invalidField(raw []byte, err error) error {
	for written, value := range members(raw) {
		alone := append(append(append(append([]byte(`{"`), written...), `":`...), value...), '}')
		wrong := json.Unmarshal(alone, new(SystemUpdate))
		if wrong == nil {
			continue
		}
		detail := wrong.Error()
		if kind := new(json.UnmarshalTypeError); errors.As(wrong, &kind) {
			detail = "cannot be " + kind.Value
		}
		return Invalid(CodeInvalidUpdate, fmt.Sprintf("field %s %s", quote(unquoteName(written)), detail)).Because(err)
	}
	return Invalid(CodeInvalidUpdate, "it is not a JSON object").Because(err)
}
