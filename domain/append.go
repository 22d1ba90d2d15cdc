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

// AppendUntilDone appends the events. After [KindUnavailable] and [KindUnknownOutcome] it pauses for 0.1 s, later for up to
// 0.5 s, and retries, until the log accepts or refuses the events or ctx ends. With an idempotency key it appends the events
// once. Without one it may append them more than once, which does no harm if each event is a whole state.
//
// It returns the log's refusal unchanged. If ctx ends, the error wraps both ctx's error and the log's last one. If failed is
// not nil, AppendUntilDone calls it once, before the first retry, with the error; it does not if ctx has ended.
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
