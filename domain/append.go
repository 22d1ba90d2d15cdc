package domain

import (
	"context"
	"fmt"
	"time"

	"github.com/plugcast/plugcast/domain/backoff"
)

// Appender is the log for those who only append. [Log] documents the method.
type Appender interface {
	Append(ctx context.Context, events []Event, opts AppendOptions) (Appended, error)
}

// The pauses of [AppendUntilDone]: the first and the longest.
const (
	firstAppendPause   = 100 * time.Millisecond
	longestAppendPause = 500 * time.Millisecond // a process that stops has a second for what it still has to append
)

// AppendUntilDone appends the events, and again after a pause that grows, until the
// log has them, refuses them or ctx ends. It repeats an append that was not done
// ([CodeUnavailable]) and one whose outcome is not known ([CodeUnknownOutcome]). With
// an idempotency key the events are appended once; without one they may be appended
// more than once, which suits events that are whole states.
//
// The log's refusal is returned as it is. When ctx ends, the error is ctx's and the
// log's last. failed, if not nil, is called with the first error that is repeated, and
// not when ctx has ended.
func AppendUntilDone(ctx context.Context, log Appender, events []Event, opts AppendOptions, failed func(error)) (Appended, error) {
	retry := backoff.Backoff{First: firstAppendPause, Max: longestAppendPause}
	for {
		appended, err := log.Append(ctx, events, opts)
		if err == nil {
			return appended, nil
		}
		if kind := AsError(err).Kind; kind != KindUnavailable && kind != KindUnknownOutcome {
			return Appended{}, err
		}
		if failed != nil && retry.Fresh() && ctx.Err() == nil {
			failed(err)
		}
		if ended := retry.Wait(ctx); ended != nil {
			return Appended{}, fmt.Errorf("%w: %w", ended, err)
		}
	}
}
