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

// The codes of errors that only this face gives. Others come from sessions in package
// client and from what those name.
const (
	CodeUnknownEvent domain.Code = "unknown-event" // none that clients send
	CodeInvalidEvent domain.Code = "invalid-event" // the event is known and its arguments are not right
	CodeBinary       domain.Code = "binary"        // binary data, which no event takes; then the connection is closed
)

// refusal is an error as the error of connect_error.
func refusal(err *domain.Error) *sio.Refusal {
	return &sio.Refusal{Message: err.Detail, Data: client.Problem(err)}
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
