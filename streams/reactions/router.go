// Package reactions runs what a process does when it reads certain events: it
// hears them from the log itself, one at a time and in order, through a
// Watermill Router.
package reactions

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/message/router/middleware"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/streams"
)

// Reaction handles one event. It may run again for the same event after an
// error, and runs in every process, so it must be safe to repeat. ctx ends with
// the process.
type Reaction func(ctx context.Context, e domain.Event) error

// Retries of a reaction that fails, before the event is passed over and logged.
const (
	retries      = 3
	firstPause   = 100 * time.Millisecond
	longestPause = 2 * time.Second
	closeTimeout = 5 * time.Second
)

// Run calls the reactions for what happens from now on, in all partitions, until
// ctx ends. A reaction that panics or keeps failing is logged and passed over:
// one bad event must not silence those behind it. ready is closed when the first
// event can be heard.
func Run(ctx context.Context, log *streams.Log, on map[domain.EventType]Reaction, logger *slog.Logger, ready chan<- struct{}) error {
	types := make([]domain.EventType, 0, len(on))
	for t := range on {
		types = append(types, t)
	}
	subscriber := streams.NewSubscriber(log, streams.SubscriberConfig{Types: types})
	defer subscriber.Close()
	router, err := message.NewRouter(message.RouterConfig{CloseTimeout: closeTimeout}, watermill.NewSlogLogger(quiet(logger)))
	if err != nil {
		return fmt.Errorf("reactions: %w", err)
	}
	router.AddMiddleware(
		passOver(logger),
		middleware.Retry{MaxRetries: retries, InitialInterval: firstPause, MaxInterval: longestPause, Multiplier: 2}.Middleware,
		middleware.Recoverer,
	)
	for partition := range log.Partitions() {
		topic := log.Topic(partition)
		router.AddConsumerHandler(topic, topic, subscriber, func(msg *message.Message) error {
			e, err := streams.MessageEvent(msg)
			if err != nil {
				return err
			}
			return on[e.Type](msg.Context(), e)
		})
	}
	ctx, cancel := context.WithCancel(ctx)
	var announcing sync.WaitGroup
	defer announcing.Wait()
	defer cancel()
	announcing.Go(func() {
		select {
		case <-router.Running():
			close(ready)
		case <-ctx.Done():
		}
	})
	if err := router.Run(ctx); err != nil && ctx.Err() == nil {
		return fmt.Errorf("reactions: %w", err)
	}
	return ctx.Err()
}

// passOver acknowledges what failed for good, after saying so.
func passOver(logger *slog.Logger) message.HandlerMiddleware {
	return func(handle message.HandlerFunc) message.HandlerFunc {
		return func(msg *message.Message) ([]*message.Message, error) {
			out, err := handle(msg)
			if err != nil && msg.Context().Err() == nil {
				logger.Error("reactions: an event was passed over", "id", msg.UUID,
					"position", msg.Metadata.Get(streams.MetadataPosition), "error", err)
				return nil, nil
			}
			return out, err
		}
	}
}

// quiet keeps Watermill's own chatter out of the log at the usual level.
func quiet(logger *slog.Logger) *slog.Logger {
	return slog.New(warnings{logger.Handler()})
}

// warnings passes on what is a warning or worse.
type warnings struct{ slog.Handler }

// Enabled overrides the handler's.
func (w warnings) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelWarn && w.Handler.Enabled(ctx, level)
}

// WithAttrs overrides the handler's, which would return one that is not quiet.
func (w warnings) WithAttrs(attrs []slog.Attr) slog.Handler {
	return warnings{w.Handler.WithAttrs(attrs)}
}

// WithGroup overrides the handler's, as WithAttrs does.
func (w warnings) WithGroup(name string) slog.Handler { return warnings{w.Handler.WithGroup(name)} }
