package reactions

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/domain/isolate"
	"github.com/plugcast/plugcast/streams"
)

// placePause is about how long Follow waits until it looks again where to read on.
const placePause = time.Second

// Follow gives the dispatcher what happens from now on, in all partitions, and
// runs it until ctx ends. ready is closed when the first event can be heard.
func Follow(ctx context.Context, log *streams.Log, d *Dispatcher, ready chan<- struct{}) error {
	starts := make([]domain.Position, log.Partitions())
	for partition := range starts {
		var err error
		if starts[partition], err = log.Tail(ctx, partition); err != nil {
			return fmt.Errorf("reactions: %w", err)
		}
		d.Begin(partition, starts[partition])
	}
	close(ready)
	group, ctx := errgroup.WithContext(ctx)
	for partition, at := range starts {
		group.Go(func() error {
			isolate.Loop(ctx, d.logger, "reactions", func() { follow(ctx, log, d, partition, &at) })
			return ctx.Err()
		})
	}
	group.Go(func() error { return d.Run(ctx) })
	return group.Wait()
}

// follow reads one partition after at, which it moves, until ctx ends or the log
// is closed.
func follow(ctx context.Context, log *streams.Log, d *Dispatcher, partition int, at *domain.Position) {
	for {
		err := log.Follow(ctx, partition, *at, func(events []domain.Event) error {
			*at = events[len(events)-1].Position
			d.Hear(partition, events)
			return nil
		})
		if !errors.Is(err, streams.ErrTrimmed) && !errors.Is(err, streams.ErrRewound) {
			return
		}
		to, err := relocate(ctx, log, partition, *at, d.logger)
		if err != nil {
			return
		}
		d.logger.Error("reactions: missed a part of the log", "partition", partition, "after", at.String(), "on from", to.String())
		*at = to
		d.Begin(partition, to)
	}
}

// relocate finds where to read on; it fails when ctx ends.
func relocate(ctx context.Context, log *streams.Log, partition int, at domain.Position, logger *slog.Logger) (domain.Position, error) {
	for {
		to, err := nearest(ctx, log, partition, at)
		if err == nil {
			return to, nil
		}
		logger.Debug("reactions: the log does not say where to read on; trying again", "partition", partition, "error", err)
		select {
		case <-time.After(placePause/2 + rand.N(placePause)):
		case <-ctx.Done():
			return at, ctx.Err()
		}
	}
}
