package socketio

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/socketio/sio"
	"github.com/plugcast/plugcast/transport/strictjson"
)

// The codes of errors that this face gives. Others come from the domain, from the
// authenticator and, as [rooms.CodeBanned] and [limit.CodeRateLimited], from
// packages rooms and limit.
const (
	CodeUnknownEvent domain.Code = "unknown-event" // none that clients send
	CodeInvalidEvent domain.Code = "invalid-event" // the event is known and its arguments are not right
	CodeBinary       domain.Code = "binary"        // binary data, which no event takes; then the connection is closed
	CodeNotJoined    domain.Code = "not-joined"    // to be left, a room has to be joined
	CodeTooManyRooms domain.Code = "too-many-rooms"
	CodeTokenExpired domain.Code = "token-expired" // then the connection is closed
)

// problem is an error as clients are shown it: its facts beside code and detail.
func problem(err *domain.Error) map[string]any {
	data := make(map[string]any, len(err.Params)+2)
	for key, value := range err.Params {
		data[key] = value
	}
	data["code"], data["detail"] = err.Code, err.Detail
	return data
}

// refusal is an error as the error of connect_error.
func refusal(err *domain.Error) *sio.Refusal {
	return &sio.Refusal{Message: err.Detail, Data: problem(err)}
}

// shown makes a refusal of an error that is the client's doing. Others pass: the
// client is sent away to try again.
func shown(err error) error {
	e := new(domain.Error)
	if errors.As(err, &e) {
		switch e.Kind {
		case domain.KindInternal, domain.KindUnavailable, domain.KindLimited:
		default:
			return refusal(e)
		}
	}
	return err
}

// public is an error as the answer to an event. What is not meant for clients is
// logged, and shown as something to try again.
func (s *Server) public(err error, doing string) *domain.Error {
	e := domain.AsError(err)
	if e.Kind == domain.KindInternal {
		s.parts.Logger.Warn("socketio: cannot "+doing, "error", err)
		return domain.Fail(domain.KindUnavailable, domain.CodeUnavailable, "this cannot be done now; try again in a moment")
	}
	return e
}

// readArgument reads the first argument of an event: a string into *text, or an
// object with the members that into has, to the letter, and no others: a join with
// a misspelt "after" would start from now, and its client would never learn what it
// missed.
func readArgument(e *sio.Event, text *string, into any) error {
	if len(e.Args) == 0 {
		return domain.Invalid(CodeInvalidEvent, fmt.Sprintf("%s needs an argument", e.Name))
	}
	if e.Args[0][0] == '"' {
		return json.Unmarshal(e.Args[0], text)
	}
	if e.Args[0][0] != '{' {
		return domain.Invalid(CodeInvalidEvent, fmt.Sprintf("the argument of %s is a string or an object", e.Name))
	}
	argument := strictjson.Reader{Whole: "the argument of " + e.Name, NullIsAbsent: true}
	if err := argument.Decode(e.Args[0], "", into); err != nil {
		return domain.Invalid(CodeInvalidEvent, err.Error())
	}
	return nil
}
