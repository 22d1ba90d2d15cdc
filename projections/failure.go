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

// unreachable tells a database that is away from a question that is wrong.
func unreachable(err error) bool {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return false
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
	if refused := new(pgconn.ConnectError); errors.As(err, &refused) {
		return true
	}
	broken := net.Error(nil)
	return pgconn.SafeToRetry(err) || errors.As(err, &broken) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, pgconn.ErrConnClosed)
}
