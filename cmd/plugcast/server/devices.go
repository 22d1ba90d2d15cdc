package server

import (
	"context"

	"github.com/plugcast/plugcast/cmd/plugcast/shellystore"
	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/projections"
	"github.com/plugcast/plugcast/streams/claims"
	"github.com/plugcast/plugcast/streams/liveness"
	"github.com/plugcast/plugcast/transport/disconnect"
	"github.com/plugcast/plugcast/transport/shelly"
	"github.com/plugcast/plugcast/transport/shelly/cloud"
	"github.com/plugcast/plugcast/transport/shelly/connection"
	"github.com/plugcast/plugcast/transport/shelly/outbound"
	"github.com/plugcast/plugcast/transport/shelly/switching"
)

// devices is what a process does for Shelly devices.
type devices struct {
	liveness    *liveness.Registry
	refusals    *shelly.Refusals
	outbound    *outbound.Server  // nil in a process that serves no clients
	cloud       *cloud.Supervisor // nil in a process that owns no partitions
	switching   *switching.Dispatcher
	connections *connection.Reactor
	holders     []holder // outbound and cloud, as far as there are
}

// holder holds the connections of devices: those that dialled in, or those of cloud accounts.
type holder interface {
	shelly.Holder
	disconnect.Devices
}

// newDevices makes what the roles of the process need.
func (s *Server) newDevices() (*devices, error) {
	c, log, store := &s.config, s.backend.Log, shellystore.New(s.backend)
	d := &devices{liveness: liveness.New(log, c.NodeName, c.Logger), refusals: shelly.NewRefusals(c.Logger)}
	connections := connection.Config{
		Store: s.backend.Store, Known: store, Heartbeats: d.liveness, Partition: log.Partition,
		SilentAfter: c.SilentAfter, Logger: c.Logger,
	}
	var err error
	if c.has(RoleGateway) {
		d.outbound, err = outbound.New(c.Outbound, outbound.Parts{
			Credentials: store, Known: store, Devices: store, Events: log, Heartbeats: d.liveness,
			Quota: s.quota, Refusals: d.refusals, Logger: c.Logger,
		})
		if err != nil {
			return nil, err
		}
		connections.Outbound, d.holders = d.outbound, append(d.holders, d.outbound)
	}
	if c.has(RoleWorker) {
		d.cloud, err = cloud.New(cloud.Config{AllowHost: c.CloudHosts.Lists, SilentAfter: c.SilentAfter}, cloud.Parts{
			Store: store, Secrets: s.vault, Known: store, Events: log, Heartbeats: d.liveness,
			Quota: s.quota, Refusals: d.refusals, Logger: c.Logger,
		})
		if err != nil {
			return nil, err
		}
		connections.Cloud, d.holders = d.cloud, append(d.holders, d.cloud)
	}
	for _, one := range d.holders {
		connections.Holders = append(connections.Holders, one)
	}
	d.connections = connection.New(connections)
	claimed := claims.New(log)
	d.switching = switching.New(switching.Parts{
		Log: log, Holders: connections.Holders, Partition: log.Partition, Logger: c.Logger,
		Claims: claimed, Recent: claimed.Recent, Elsewhere: d.connections.Elsewhere,
	})
	return d, nil
}

// run writes heartbeats until ctx ends.
func (d *devices) run(ctx context.Context) error {
	if d.outbound == nil {
		return d.liveness.Run(ctx, nil)
	}
	return d.liveness.Run(ctx, d.outbound.Lost)
}

// jobs are what the owner of a partition does for its devices.
func (d *devices) jobs(store *projections.Store) []projections.Job {
	return []projections.Job{
		func(ctx context.Context, partition int) { d.liveness.Watch(ctx, partition, store) },
		d.switching.RunTimeouts,
		d.cloud.Run,
		d.connections.LookAfter,
	}
}

// reactionsTo are the reactions to each type of event, in every process, whatever its
// roles. Bridges may not bring many of these at once: see
// [domain.EventType.TriggersReaction].
func reactionsTo(d *devices, e *disconnect.Enforcer) map[domain.EventType]domain.Reaction {
	on := d.connections.Reactions()
	on[domain.TypeRelaySwitchRequested] = d.switching.Requested
	on[domain.TypeRelaySwitchCompleted] = d.switching.Completed
	on[domain.TypeDisconnectRequested] = e.React
	return on
}
