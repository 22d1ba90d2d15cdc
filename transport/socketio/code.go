package socketio

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/client"
	"github.com/plugcast/plugcast/transport/socketio/sio"
	"github.com/plugcast/plugcast/transport/strictjson"
)

// The codes of errors that only this face uses. Others come from sessions in package client
// and from the packages named there.
const (
	CodeUnknownEvent domain.Code = "unknown-event" // clients cannot send this event
	CodeInvalidEvent domain.Code = "invalid-event" // the event is known, but its arguments are invalid
	CodeBinary       domain.Code = "binary"        // no event accepts binary data; the connection is closed
)

// refusal returns an error in the form of a connect_error.
func refusal(err *domain.Error) *sio.Refusal {
	return &sio.Refusal{Message: err.Detail, Data: client.Problem(err)}
}

// shown returns a refusal for an error that the client caused. Other errors are returned
// unchanged: they make the client retry later.
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

// readArgument decodes the first argument of an event: a string into *text, or an object
// into into. Names are case-sensitive, and unknown names are refused: a join with a misspelt
// "after" would begin at the newest event, and its client would never learn that it missed
// events.
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
