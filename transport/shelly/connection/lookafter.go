package connection

import (
	"context"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/domain/backoff"
	"github.com/plugcast/plugcast/domain/isolate"
)

// lookAfterEvery is how often an owner makes sure that somebody looks for every
// device that is said to be online.
const lookAfterEvery = 10 * time.Minute

// LookAfter is a job of the partition's owner: it awaits the devices of the partition's
// connections, now and then, until ctx ends: the registry may have been lost with a Redis,
// and with it those that never come back. What is known of a device is not changed by that.
func (r *Reactor) LookAfter(ctx context.Context, partition int) {
	for ctx.Err() == nil {
		connections, err := r.config.Store.ConnectionsIn(ctx, partition)
		if err != nil && ctx.Err() == nil {
			r.config.Logger.Warn("cannot look which devices are awaited; trying again later", "partition", partition, "error", err)
		}
		var outbound []domain.ConnectionRef
		for _, c := range connections {
			if !c.Stopped && c.Kind == domain.ConnectionShellyOutbound {
				outbound = append(outbound, domain.ConnectionRef{System: c.System, ID: c.ConnectionID})
			}
		}
		eachApart(ctx, r.config.Logger, outbound, r.awaitDevices)
		_ = backoff.Sleep(ctx, lookAfterEvery)
	}
}

// lookAfterTime bounds how long one connection may take to be looked after.
const lookAfterTime = 10 * time.Second

// lookAfterAtOnce is how many systems are looked after at the same time.
const lookAfterAtOnce = 16

// eachApart looks after connections, those of one system one by one. One that fails,
// hangs or panics does not keep the others from their turn.
func eachApart(ctx context.Context, logger *slog.Logger, connections []domain.ConnectionRef,
	look func(context.Context, domain.ConnectionRef) error,
) {
	systems := map[domain.SystemID][]domain.ConnectionRef{}
	for _, c := range connections {
		systems[c.System] = append(systems[c.System], c)
	}
	var group errgroup.Group
	group.SetLimit(lookAfterAtOnce)
	for _, own := range systems {
		group.Go(func() error {
			for _, c := range own {
				lookAfterOne(ctx, logger, c, look)
			}
			return nil
		})
	}
	_ = group.Wait() // each has reported its own trouble
}

func lookAfterOne(ctx context.Context, logger *slog.Logger, c domain.ConnectionRef,
	look func(context.Context, domain.ConnectionRef) error,
) {
	err := isolate.Run(logger, "look after devices", func() error {
		ctx, cancel := context.WithTimeout(ctx, lookAfterTime)
		defer cancel()
		return look(ctx, c)
	})
	if err != nil && ctx.Err() == nil {
		logger.Warn("cannot look up the expected devices of a connection; trying again later",
			"system", c.System, "connection", c.ID, "error", err)
	}
}

// awaitDevices gives the devices that came in through an outbound connection, and
// are said to be online, their time to be heard of: some may never dial in again.
func (r *Reactor) awaitDevices(ctx context.Context, c domain.ConnectionRef) error {
	devices, err := r.config.Store.DevicesOf(ctx, c.System, c.ID)
	if err != nil {
		return err
	}
	for _, d := range devices {
		if d.Online == nil || !*d.Online || d.Origin != "" {
			continue // another deployment holds it, and looks for it
		}
		r.config.Heartbeats.Await(domain.DeviceRef{System: c.System, Device: d.DeviceID}, r.config.SilentAfter)
	}
	return nil
}
