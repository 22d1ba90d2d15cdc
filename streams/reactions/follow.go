package reactions

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/domain/isolate"
	"github.com/plugcast/plugcast/streams"
)

// Follow passes every event from now on, of all partitions, to the dispatcher, and runs the
// dispatcher until ctx ends, and then returns nil. It closes ready when an event appended from then on is certain to
// be handled.
func Follow(ctx context.Context, log *streams.Log, d *Dispatcher, ready chan<- struct{}) error {
	starts := make([]domain.Position, log.Partitions())
	for partition := range starts {
		var err error
		if starts[partition], err = log.Tail(ctx, partition); ctx.Err() != nil {
			return nil
		} else if err != nil {
			return fmt.Errorf("reactions: %w", err)
		}
		d.StartAt(partition, starts[partition])
	}
	close(ready)
	var running sync.WaitGroup
	for partition, at := range starts {
		running.Go(func() { isolate.Loop(ctx, d.logger, "reactions", func() { follow(ctx, log, d, partition, &at) }) })
	}
	err := d.Run(ctx)
	running.Wait()
	return err
}

// follow reads one partition after at, which it moves, until ctx ends or the log is closed.
func follow(ctx context.Context, log *streams.Log, d *Dispatcher, partition int, at *domain.Position) {
	for {
		err := log.Follow(ctx, partition, *at, func(events []domain.Event) error {
			*at = events[len(events)-1].Position
			d.Add(partition, events)
			return nil
		})
		if !errors.Is(err, streams.ErrTrimmed) && !errors.Is(err, streams.ErrRewound) {
			return
		}
		to, err := log.Nearest(ctx, partition, *at)
		if err != nil {
			return
		}
		d.logger.Error("reactions: missed part of the log", "partition", partition, "after", at.String(), "on from", to.String())
		*at = to
		d.StartAt(partition, to)
	}
}
