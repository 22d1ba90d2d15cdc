package domain

import (
	"errors"
	"fmt"
	"maps"
)

// ErrorKind tells the caller what to do about an [Error]. Each face maps it to its own terms, such as an HTTP status
// or a close code.
type ErrorKind int

// The kinds of error.
const (
	KindInternal        ErrorKind = iota // a bug or fault in plugcast; the cause stays inside the process
	KindInvalid                          // the request is wrong; the same request will fail again
	KindUnauthenticated                  // no token, or an invalid one
	KindForbidden                        // the token is valid and does not allow this
	KindNotFound                         // the named resource does not exist
	KindConflict                         // the current state forbids it; read the state and decide again
	KindPrecondition                     // the caller's condition (If-Match) does not hold
	KindTooLarge                         // the request exceeds a documented size
	KindLimited                          // too many requests; wait and retry
	KindUnavailable                      // a component is down and nothing was done; retry
	KindUnknownOutcome                   // it may or may not have been done; retry with the same Idempotency-Key
)

// Code is the stable name of an error on every face. Codes are never renamed.
type Code string

// The codes of the domain. Faces add codes for errors that only they can detect, such as a bad frame or a bad token.
const (
	CodeInternal            Code = "internal"
	CodeInvalidSystemID     Code = "invalid-system-id"
	CodeInvalidDeviceID     Code = "invalid-device-id"
	CodeInvalidEquipmentID  Code = "invalid-equipment-id"
	CodeInvalidConnectionID Code = "invalid-connection-id"
	CodeInvalidPosition     Code = "invalid-position"
	CodeInvalidFilter       Code = "invalid-filter"
	CodeInvalidUpdate       Code = "invalid-update"
	CodeInvalidCommand      Code = "invalid-command"
	CodeInvalidDeployment   Code = "invalid-deployment"
	CodeBatchTooLarge       Code = "batch-too-large"
	CodeForbidden           Code = "forbidden"
	CodeBanned              Code = "banned" // the error has retryAfterMs
	CodeUnknownDevice       Code = "unknown-device"
	CodeUnknownEquipment    Code = "unknown-equipment"
	CodeUnknownConnection   Code = "unknown-connection"
	CodeNotAssigned         Code = "not-assigned"
	CodeContention          Code = "contention"
	CodeEquipmentOccupied   Code = "equipment-occupied"
	CodeEquipmentExists     Code = "equipment-exists"
	CodeConnectionExists    Code = "connection-exists"
	CodeAmbiguousConnection Code = "ambiguous-connection"
	CodeStale               Code = "stale"
	CodeBridgeBehind        Code = "bridge-behind"
	CodeTooManySources      Code = "too-many-sources"
	CodeTooManyDevices      Code = "too-many-devices"
	CodeKeyReused           Code = "idempotency-key-reused"
	CodeTooManyKeys         Code = "too-many-idempotency-keys"
	CodeUnavailable         Code = "unavailable"
	CodeUnknownOutcome      Code = "outcome-unknown"
)

// Error is an error that a face may show to its caller: a kind, a stable code, and a text. It may have an internal
// cause, which is for the log only.
type Error struct {
	Kind   ErrorKind
	Code   Code
	Detail string // for people; not stable
	// Params are further facts for the caller, shown next to the detail, such as the current holder in a conflict.
	Params map[string]any

	cause error
}

// Error returns the code and the detail, never the cause.
func (e *Error) Error() string { return string(e.Code) + ": " + e.Detail }

// Unwrap returns the internal cause, or nil.
func (e *Error) Unwrap() error { return e.cause }

// With adds a fact to e's Params and returns e.
func (e *Error) With(key string, value any) *Error {
	if e.Params == nil {
		e.Params = map[string]any{}
	}
	e.Params[key] = value
	return e
}

// WithCause sets the internal cause of e and returns e.
func (e *Error) WithCause(cause error) *Error {
	e.cause = cause
	return e
}

// Fail returns a new [Error].
func Fail(kind ErrorKind, code Code, detail string) *Error {
	return &Error{Kind: kind, Code: code, Detail: detail}
}

// Invalid returns a new [Error] of [KindInvalid].
func Invalid(code Code, detail string) *Error { return Fail(KindInvalid, code, detail) }

// AsError returns the [Error] in err's chain. If there is none, it returns a new Error of [KindInternal] that hides
// err's text from the caller and has err as its cause.
func AsError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return Fail(KindInternal, CodeInternal, "internal error; the server's log has the details").WithCause(err)
}

// AtIndex returns err as an [Error] that names the index of the batch item that it is about, in its detail and as the
// parameter "index". It does not change err.
func AtIndex(err error, index int) error {
	e := *AsError(err)
	e.Detail = fmt.Sprintf("item %d: %s", index, e.Detail)
	e.Params = maps.Clone(e.Params)
	return (&e).With("index", index)
}

// HasCode reports whether the [Error] in err's chain has the code.
func HasCode(err error, code Code) bool {
	var e *Error
	return errors.As(err, &e) && e.Code == code
}
