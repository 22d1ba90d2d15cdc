package domain

import (
	"context"
	"errors"
)

// Reaction handles one event of the log. It may run again for the same event after an
// error, and runs in every process, so it must be safe to repeat. It must return when
// ctx ends.
type Reaction func(ctx context.Context, e Event) error

// Permanent marks an error of a [Reaction] that a retry cannot fix. The event becomes a dead
// letter at once.
func Permanent(err error) error { return &permanentError{err} }

// IsPermanent reports whether an error is marked by [Permanent].
func IsPermanent(err error) bool {
	var permanent *permanentError
	return errors.As(err, &permanent)
}

type permanentError struct{ error }

func (e *permanentError) Unwrap() error { return e.error }
