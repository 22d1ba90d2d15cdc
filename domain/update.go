package domain

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
)

// MaxUpdatesPerBatch is the largest number of device updates that [Service.Publish] accepts at once.
const MaxUpdatesPerBatch = 1000

// SystemUpdate is a device update as a client publishes it: with the system of the device.
type SystemUpdate struct {
	SystemID SystemID `json:"systemId"`
	DeviceUpdate
}

// updateFields is the set of the field names of a published update. ParseSystemUpdate compares names exactly, because
// encoding/json would accept relayon as relayOn.
var updateFields = func() map[string]bool {
	names := map[string]bool{"systemId": true, "deviceId": true, "changed": true}
	for _, f := range DeviceFields {
		names[f.Name] = true
	}
	return names
}()

// ParseSystemUpdate parses and validates one published update. It rejects an unknown field, because a misspelt name
// would otherwise mean "unchanged". It also rejects a repeated field and text that cannot be stored, so that the log
// contains exactly what the client sent. It returns an [Error] that names the field, with [CodeInvalidUpdate] or the
// code of a malformed id.
func ParseSystemUpdate(raw []byte) (SystemUpdate, error) {
	var u SystemUpdate
	if err := CheckStorableJSON(raw); err != nil {
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
				"unknown field "+quote(name)+"; put your own fields under attributes")
		case slices.Contains(seen, name):
			return SystemUpdate{}, Invalid(CodeInvalidUpdate, "field "+quote(name)+" appears twice")
		}
		seen = append(seen, name)
	}
	err := u.Validate()
	return u, err
}

// Validate checks ids, sizes and ranges, and removes insignificant white space from the attributes. Its errors are those
// of [ParseSystemUpdate].
func (u *SystemUpdate) Validate() error {
	if _, err := ParseSystemID(string(u.SystemID)); err != nil {
		return err
	}
	if _, err := ParseDeviceID(string(u.DeviceID)); err != nil {
		return err
	}
	return u.DeviceUpdate.validate()
}

// invalidField returns an error that names the unreadable field of the update and the reason.
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
		return Invalid(CodeInvalidUpdate, fmt.Sprintf("field %s %s", quote(unquoteName(written)), detail)).WithCause(err)
	}
	return Invalid(CodeInvalidUpdate, "the update is not a JSON object").WithCause(err)
}
