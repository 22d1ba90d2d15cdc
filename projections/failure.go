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

// readError wraps the error of an operation. If the database cannot be reached, or is starting
// or stopping, it returns a [domain.Error] by which the caller may try again, without
// addresses.
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
			"the database cannot be reached; repeat in a moment").WithCause(wrapped)
	}
	return wrapped
}

// cause is the kind of reason for which a transaction failed.
type cause int

const (
	causeEnvironment cause = iota // temporary, or for an operator to fix: a retry may succeed
	causeContent                  // the content of the batch: a retry fails
	causeUnknown                  // an unforeseen error
)

// causeOf tells a permanent failure from one that a retry may solve.
func causeOf(err error) cause {
	panicked, unwritable, answer := new(isolate.PanicError), new(rowError), new(pgconn.PgError)
	switch {
	case errors.As(err, new(*pgconn.ConnectError)): // first, because it wraps the error of a pooler, which may be any
		return causeEnvironment
	case errors.As(err, &panicked), errors.As(err, &unwritable):
		return causeContent
	case errors.Is(err, ErrStaleOwner), errors.Is(err, errReplaced),
		errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), unreachable(err):
		return causeEnvironment
	case errors.As(err, &answer):
		return causeOfState(answer.Code)
	}
	return causeUnknown
}

// causeOfState classifies by the class of Postgres' SQLSTATE.
func causeOfState(code string) cause {
	if len(code) != 5 {
		return causeUnknown
	}
	switch code[:2] {
	case "21", "22", "23", "54": // cardinality, data, constraints, limits
		return causeContent
	case "08", "25", "28", "3D", "40", "53", "55", "57", "58", // connections, roles, deadlocks, resources, the disk
		"3F", "42", // a table or a schema is missing: a rebuild restores it
		"XX": // the database is damaged or has an internal error: for an operator to fix
		return causeEnvironment
	}
	return causeUnknown
}

// reasonOf returns the reason for which something could not be written, without addresses.
func reasonOf(err error) string {
	panicked, unwritable, answer, overflow := new(isolate.PanicError), new(rowError), new(pgconn.PgError), new(overflowError)
	switch {
	case errors.As(err, &overflow):
		return overflow.Error()
	case errors.As(err, &panicked):
		return "the fold panicked"
	case errors.As(err, &unwritable):
		return unwritable.Error()
	case errors.As(err, &answer):
		return "the database refused it: " + answer.Message + " (SQLSTATE " + answer.Code + ")"
	case unreachable(err):
		return "the database cannot be reached"
	}
	return "an unexpected error; see the server's log"
}

// unreachable tells a database that cannot be reached from a query that is wrong.
func unreachable(err error) bool {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return false
	}
	if errors.As(err, new(*pgconn.ConnectError)) { // first, because it wraps the server's error
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
