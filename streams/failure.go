package streams

import (
	"errors"
	"fmt"
	"net"

	"github.com/redis/go-redis/v9"

	"github.com/plugcast/plugcast/domain"
)

var (
	// ErrTrimmed means that entries after the reader's position were trimmed. Continue
	// reading from the archive.
	ErrTrimmed = errors.New("streams: the log was trimmed beyond this position")
	// ErrRewound means that Redis was wiped or set back: the reader's last entry is not in
	// the log, and the reader may have had entries that no longer exist. Start again from
	// the archive.
	ErrRewound = errors.New("streams: the log was set back behind this position")
	// ErrClosed is returned once the log is closed.
	ErrClosed = errors.New("streams: the log is closed")
)

// errMissing means that the stream does not exist, and that nothing was appended.
var errMissing = errors.New("streams: the stream is missing")

// notReadyError refuses a connection on which nothing was sent yet. It does not unwrap: the
// client unwraps one layer and must find this one.
type notReadyError struct{ cause error }

func (e *notReadyError) Error() string { return "streams: not ready: " + e.cause.Error() }

// replyError is an error reply of Redis, in a raw reply.
type replyError string

func (e replyError) Error() string { return string(e) }

// RedisError makes it a [redis.Error].
func (e replyError) RedisError() {}

// unsent reports whether it is certain that Redis did nothing: it could not be reached, or it
// replied with an error. Our scripts check everything before they write, so an error reply of a
// script counts as well.
func unsent(err error) bool {
	var (
		reply    redis.Error
		op       *net.OpError
		notReady *notReadyError
	)
	switch {
	case errors.As(err, &reply), errors.As(err, &notReady):
		return true
	case errors.As(err, &op) && op.Op == "dial":
		return true
	}
	return errors.Is(err, redis.ErrPoolTimeout) || errors.Is(err, redis.ErrPoolExhausted) ||
		errors.Is(err, redis.ErrAutoPipelineQueueFull) || errors.Is(err, redis.ErrClosed) || errors.Is(err, ErrClosed)
}

// temporary reports whether an error for which [unsent] holds may soon be over: Redis is
// starting, or a failover is under way.
func temporary(err error) bool {
	var reply redis.Error
	if errors.As(err, &reply) {
		return redis.HasErrorPrefix(err, "LOADING") || redis.HasErrorPrefix(err, "READONLY") ||
			redis.HasErrorPrefix(err, "MASTERDOWN") || redis.HasErrorPrefix(err, "CLUSTERDOWN") ||
			redis.HasErrorPrefix(err, "TRYAGAIN")
	}
	return unsent(err) && !errors.Is(err, redis.ErrClosed) && !errors.Is(err, ErrClosed) &&
		!errors.Is(err, redis.ErrAutoPipelineQueueFull)
}

// appendFailure returns the error that a caller gets for a failed append.
func appendFailure(err error) error {
	var known *domain.Error
	var conflict *domain.ConflictError
	switch {
	case errors.As(err, &known), errors.As(err, &conflict):
		return err
	case unsent(err):
		return unavailable("append", err)
	default:
		return domain.Fail(domain.KindUnknownOutcome, domain.CodeUnknownOutcome,
			"the log broke off before it answered: the events may or may not have been appended; repeat with the same key").
			WithCause(fmt.Errorf("streams: append: %w", err))
	}
}

// unavailable returns the error that a caller gets for an operation that could not reach Redis.
func unavailable(operation string, err error) error {
	return domain.Fail(domain.KindUnavailable, domain.CodeUnavailable,
		"the log cannot be reached; nothing was appended; repeat in a moment").WithCause(fmt.Errorf("streams: %s: %w", operation, err))
}
