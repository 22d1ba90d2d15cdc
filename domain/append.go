package domain

import (
	"context"
	"fmt"
	"time"

	"github.com/plugcast/plugcast/domain/backoff"
)

// The first and the longest pause of [AppendUntilDone].
const (
	firstAppendPause   = 100 * time.Millisecond
	longestAppendPause = 500 * time.Millisecond // a stopping process has one second for its last appends
)

// AppendUntilDone appends the events and retries, after growing pauses of 0.1 to 0.5 s, until the log has them or refuses
// them, or ctx ends. It retries after [KindUnavailable] and [KindUnknownOutcome]. With an idempotency key it appends the
// events once. Without one it may append them more than once, which is fine for events that are whole states.
//
// It returns the log's refusal unchanged. If ctx ends, the error wraps both ctx's error and the log's last one. It calls
// failed, unless that is nil, with the first error after which it retries, but not after ctx has ended.
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
		if failed != nil && retry.IsReset() && ctx.Err() == nil {
			failed(err)
		}
		if ended := retry.Wait(ctx); ended != nil {
			return Appended{}, fmt.Errorf("%w: %w", ended, err)
		}
	}
}
