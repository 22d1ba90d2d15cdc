package domain

import (
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"unicode/utf8"
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
// there twice and text that is not UTF-8: what is in the log is what was sent.
// Errors are an [Error] with the code of the field that is wrong, or
// [CodeInvalidUpdate].
func ParseSystemUpdate(raw []byte) (SystemUpdate, error) {
	if !utf8.Valid(raw) {
		return SystemUpdate{}, Invalid(CodeInvalidUpdate, "it is not UTF-8")
	}
	var u SystemUpdate
	if err := json.Unmarshal(raw, &u); err != nil {
		return SystemUpdate{}, invalidJSON(err)
	}
	seen := make([]string, 0, 20)
	for name := range memberNames(raw) {
		switch {
		case !updateFields[string(name)]:
			return SystemUpdate{}, Invalid(CodeInvalidUpdate,
				"unknown field "+quote(string(name))+"; put fields of your own under attributes")
		case slices.Contains(seen, string(name)):
			return SystemUpdate{}, Invalid(CodeInvalidUpdate, "field "+quote(string(name))+" is there twice")
		}
		seen = append(seen, string(name))
	}
	return u, u.Validate()
}

// memberNames yields the names of an object's members as they are written,
// without those of objects inside it. raw is valid JSON.
func memberNames(raw []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		depth, name := 0, false // name: a string that comes now is one
		for i := 0; i < len(raw); i++ {
			switch raw[i] {
			case '{', '[':
				depth++
				name = depth == 1
			case '}', ']':
				depth--
			case ',':
				name = depth == 1
			case '"':
				start := i + 1
				for i++; raw[i] != '"'; i++ {
					if raw[i] == '\\' {
						i++
					}
				}
				if name && !yield(raw[start:i]) {
					return
				}
				name = false
			}
		}
	}
}

// Validate checks ids, sizes and ranges.
func (u *SystemUpdate) Validate() error {
	if _, err := ParseSystemID(string(u.SystemID)); err != nil {
		return err
	}
	if _, err := ParseDeviceID(string(u.DeviceID)); err != nil {
		return err
	}
	if err := checkTexts("changed", u.Changed); err != nil {
		return err
	}
	return u.checkFields()
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
		field := kind.Field[strings.LastIndexByte(kind.Field, '.')+1:] // without the names of our types
		detail = fmt.Sprintf("field %s cannot be %s", quote(field), kind.Value)
	case strings.HasPrefix(err.Error(), "parsing time "):
		detail = "a time is not RFC 3339"
	}
	return Invalid(CodeInvalidUpdate, detail).Because(err)
}
