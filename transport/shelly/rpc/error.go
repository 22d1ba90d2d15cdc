package rpc

import (
	"encoding/json"
	"strconv"

	"github.com/plugcast/plugcast/domain"
)

// The error codes that this package uses (RPC, CommonErrors).
const (
	CodeUnauthorized = 401 // its message is JSON in a string: a challenge
	CodeNoHandler    = 404
)

// Error is a device's refusal of a request.
type Error struct {
	Code    int
	Message string // the device's words, cut to a length that an event may have
}

// Error implements error, with a text for people.
func (e *Error) Error() string {
	if e.Code == CodeUnauthorized {
		return "the device asks for a password"
	}
	if e.Message == "" {
		return "the device answered with error " + strconv.Itoa(e.Code)
	}
	return "the device answered: " + e.Message
}

// maxMessage bounds a device's words, in bytes.
const maxMessage = 200

// decodeError decodes an error leniently, because every shape means that the device
// refused the request.
func decodeError(raw json.RawMessage) *Error {
	var w struct {
		Code    json.Number     `json:"code"`
		Message json.RawMessage `json:"message"`
	}
	_ = json.Unmarshal(raw, &w) // members that cannot be decoded stay empty
	e := &Error{}
	if code, err := strconv.ParseFloat(w.Code.String(), 64); err == nil && code > -1e6 && code < 1e6 {
		e.Code = int(code)
	}
	if json.Unmarshal(w.Message, &e.Message) != nil {
		e.Message = ""
	}
	e.Message = domain.TruncateLine(e.Message, maxMessage)
	return e
}
