package projections

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/domain/isolate"
)

// readError says what failed. A database that cannot be reached, or is starting
// or stopping, is for the caller to try again, in words without addresses.
func readError(operation string, err error) error {
	if err == nil {
		return nil
	}
	if own := new(domain.Error); errors.As(err, &own) {
		return err
	}
	wrapped := fmt.Errorf("projections: %s: %w", operation, err)
	if unreachable(err) {
		return domain.Fail(domain.KindUnavailable, domain.CodeUnavailable,
			"the database cannot be reached; repeat in a moment").Because(wrapped)
	}
	return wrapped
}

// blame is where the reason of a failed transaction lies.
type blame int

const (
	ofCircumstance blame = iota // it passes, or an operator has to see to it; the same again may succeed
	ofContent                   // what was to be written; the same again fails
	ofUnknown                   // an error that nobody foresaw
)

// blameOf tells what failed for good from what may succeed when it is tried again.
func blameOf(err error) blame {
	panicked, unwritable, answer := new(isolate.PanicError), new(rowError), new(pgconn.PgError)
	switch {
	case errors.As(err, new(*pgconn.ConnectError)): // before the answer that it wraps: a pooler may give any
		return ofCircumstance
	case errors.As(err, &panicked), errors.As(err, &unwritable):
		return ofContent
	case errors.Is(err, ErrStaleOwner), errors.Is(err, errReplaced),
		errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), unreachable(err):
		return ofCircumstance
	case errors.As(err, &answer):
		return blameOfState(answer.Code)
	}
	return ofUnknown
}

// blameOfState judges by the class of Postgres' SQLSTATE.
func blameOfState(code string) blame {
	if len(code) != 5 {
		return ofUnknown
	}
	switch code[:2] {
	case "21", "22", "23", "54": // cardinality, data, constraints, limits
		return ofContent
	case "08", "25", "28", "3D", "40", "53", "55", "57", "58", // connections, roles, deadlocks, resources, the disk
		"3F", "42", // a table or a schema is away: a rebuild makes it again
		"XX": // the database is damaged, or has a fault of its own: an operator must see to it
		return ofCircumstance
	}
	return ofUnknown
}

// reasonOf says why something cannot be written, in words that name no address.
func reasonOf(err error) string {
	panicked, unwritable, answer, beyond := new(isolate.PanicError), new(rowError), new(pgconn.PgError), new(beyondError)
	switch {
	case errors.As(err, &beyond):
		return beyond.Error()
	case errors.As(err, &panicked):
		return "the code that folds it panicked"
	case errors.As(err, &unwritable):
		return unwritable.Error()
	case errors.As(err, &answer):
		return "the database refuses it: " + answer.Message + " (SQLSTATE " + answer.Code + ")"
	case unreachable(err):
		return "the database cannot be reached"
	}
	return "an unexpected error, which the log has"
}

// unreachable tells a database that is away from a question that is wrong.
func unreachable(err error) bool {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return false
	}
	if errors.As(err, new(*pgconn.ConnectError)) { // before the answer that it wraps
		return true
	}
	if answer := new(pgconn.PgError); errors.As(err, &answer) {
		switch {
		case strings.HasPrefix(answer.Code, "08"), // connection exceptions
			strings.HasPrefix(answer.Code, "57P"), // shutting down, starting, terminated
			answer.Code == "53300":                // too many connections
			return true
		}
		return false
	}
	broken := net.Error(nil)
	return pgconn.SafeToRetry(err) || errors.As(err, &broken) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, pgconn.ErrConnClosed)
}
