package domain

import "errors"

// Kind says what a caller can do about an [Error]. Each face maps it to its own
// words: an HTTP status, a close code.
type Kind int

// The kinds of error.
const (
	KindInternal        Kind = iota // a fault of ours; the detail stays inside
	KindInvalid                     // the request is wrong; the same request will fail again
	KindUnauthenticated             // no token, or not a valid one
	KindForbidden                   // a valid token that may not do this
	KindNotFound                    // the thing named does not exist
	KindConflict                    // the state forbids it; look again and decide
	KindPrecondition                // the caller's condition (If-Match) does not hold
	KindTooLarge                    // the request is over a documented size
	KindLimited                     // too many requests; wait and repeat
	KindUnavailable                 // a part is down and nothing was done; repeat
	KindUnknownOutcome              // it may or may not have been done; repeat with the same Idempotency-Key
)

// Code is the stable name of an error on every face. Codes are never renamed.
type Code string

// The codes that come from the domain. Faces add codes for what only they can
// see (a bad frame, a bad token).
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
	CodeKeyReused           Code = "idempotency-key-reused"
	CodeTooManyKeys         Code = "too-many-idempotency-keys"
	CodeUnavailable         Code = "unavailable"
	CodeUnknownOutcome      Code = "outcome-unknown"
)

// Error is an answer for the caller: a stable code, what to do, in words that
// may leave the process. An internal cause may hang behind it for the log.
type Error struct {
	Kind   Kind
	Code   Code
	Detail string
	// Params are further facts for the caller, shown beside the detail, such as
	// the current holder in a conflict.
	Params map[string]any

	cause error
}

// Error returns the code and the detail, and never the cause.
func (e *Error) Error() string { return string(e.Code) + ": " + e.Detail }

// Unwrap returns the internal cause, or nil.
func (e *Error) Unwrap() error { return e.cause }

// With adds a fact for the caller and returns e.
func (e *Error) With(key string, value any) *Error {
	if e.Params == nil {
		e.Params = map[string]any{}
	}
	e.Params[key] = value
	return e
}

// Because hangs the internal cause behind e and returns e.
func (e *Error) Because(cause error) *Error {
	e.cause = cause
	return e
}

// Fail makes an [Error].
func Fail(kind Kind, code Code, detail string) *Error {
	return &Error{Kind: kind, Code: code, Detail: detail}
}

// Invalid makes an [Error] of [KindInvalid].
func Invalid(code Code, detail string) *Error { return Fail(KindInvalid, code, detail) }

// AsError finds the [Error] in err's chain. Anything else becomes a
// [KindInternal] one that hides err's text from the caller.
func AsError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return Fail(KindInternal, CodeInternal, "something went wrong on our side; it is in the server's log").Because(err)
}

// HasCode reports whether err carries the given code.
func HasCode(err error, code Code) bool {
	var e *Error
	return errors.As(err, &e) && e.Code == code
}
