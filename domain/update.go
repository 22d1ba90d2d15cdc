package domain

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Limits of a published device update.
const (
	MaxUpdates    = 1000 // in one batch
	maxAttributes = 4 << 10
	maxText       = 256 // characters of name and source, and of one error
	maxList       = 32  // entries of errors and of changed
)

// SystemUpdate is a device update on its way in: a DeviceUpdate and the system
// that it belongs to.
type SystemUpdate struct {
	SystemID SystemID `json:"systemId"`
	DeviceUpdate
}

// ParseSystemUpdate reads one published update. Unknown fields are refused, so
// that a misspelt one does not pass for "unchanged". Errors are an [Error] with
// the code of the field that is wrong, or [CodeInvalidUpdate].
func ParseSystemUpdate(raw []byte) (SystemUpdate, error) {
	var u SystemUpdate
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&u); err != nil {
		return SystemUpdate{}, invalidJSON(err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return SystemUpdate{}, Invalid(CodeInvalidUpdate, "there is more after the object")
	}
	return u, u.Validate()
}

// Validate checks ids, sizes and ranges.
func (u *SystemUpdate) Validate() error {
	if _, err := ParseSystemID(string(u.SystemID)); err != nil {
		return err
	}
	if _, err := ParseDeviceID(string(u.DeviceID)); err != nil {
		return err
	}
	if id, ok := u.ConnectionID.Get(); ok {
		if _, err := ParseConnectionID(string(id)); err != nil {
			return err
		}
	}
	if channel, ok := u.Channel.Get(); ok && (channel < 0 || channel > 255) {
		return Invalid(CodeInvalidUpdate, "channel must be 0 to 255")
	}
	name, _ := u.Name.Get()
	source, _ := u.Source.Get()
	faults, _ := u.Errors.Get()
	if len(faults) > maxList || len(u.Changed) > maxList {
		return Invalid(CodeInvalidUpdate, fmt.Sprintf("errors and changed hold at most %d entries", maxList))
	}
	for _, text := range append([]string{name, source}, append(faults, u.Changed...)...) {
		if len(text) > maxText {
			return Invalid(CodeInvalidUpdate, fmt.Sprintf("texts are limited to %d bytes", maxText))
		}
	}
	return requireObject(u.Attributes, CodeInvalidUpdate, maxAttributes)
}

// invalidJSON turns a decoder's error into words for the caller.
func invalidJSON(err error) error {
	var (
		syntax *json.SyntaxError
		kind   *json.UnmarshalTypeError
		own    *Error
	)
	detail := "it is not valid JSON"
	switch {
	case errors.As(err, &own):
		return own
	case errors.As(err, &syntax):
		detail = fmt.Sprintf("it is not valid JSON at byte %d: %v", syntax.Offset, syntax)
	case errors.As(err, &kind):
		detail = fmt.Sprintf("field %s cannot be a %s", quote(kind.Field), kind.Value)
	case strings.HasPrefix(err.Error(), "json: unknown field "):
		detail = "unknown field " + strings.TrimPrefix(err.Error(), "json: unknown field ") + "; put fields of your own under attributes"
	case strings.HasPrefix(err.Error(), "parsing time "):
		detail = "a time is not RFC 3339"
	}
	return Invalid(CodeInvalidUpdate, detail).Because(err)
}
