package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/domain/backoff"
	"github.com/plugcast/plugcast/domain/isolate"
	"github.com/plugcast/plugcast/projections"
	"github.com/plugcast/plugcast/streams/claims"
	"github.com/plugcast/plugcast/streams/liveness"
	"github.com/plugcast/plugcast/streams/reactions"
	"github.com/plugcast/plugcast/transport/shelly"
	"github.com/plugcast/plugcast/transport/shelly/cloud"
	"github.com/plugcast/plugcast/transport/shelly/credential"
	"github.com/plugcast/plugcast/transport/shelly/outbound"
	"github.com/plugcast/plugcast/transport/shelly/switching"
)

// shellySide is what a process does for Shelly devices.
type shellySide struct {
	program    *Program
	liveness   *liveness.Registry
	dispatcher *switching.Dispatcher
	refusals   *shelly.Refusals
	outbound   *outbound.Server  // nil in a process that serves no clients
	cloud      *cloud.Supervisor // nil in a process that owns no partitions
}

// newShelly makes what the roles of the process need.
func (p *Program) newShelly() (*shellySide, error) {
	s := &shellySide{program: p, refusals: shelly.NewRefusals(p.Logger)}
	s.liveness = liveness.New(p.backend.log, p.Server.NodeName, p.Logger)
	store := shellyStore{p.backend, p.credentials}
	var holders []shelly.Holder
	var err error
	if p.has(roleGateway) {
		s.outbound, err = outbound.New(p.Server.Connections.outbound(), outbound.Parts{
			Credentials: store, Known: store, Devices: store, Events: p.backend.log, Heartbeats: s.liveness,
			Quota: p.quota, Refusals: s.refusals, Logger: p.Logger,
		})
		if err != nil {
			return nil, err
		}
		holders = append(holders, s.outbound)
		p.disconnects.shelly = append(p.disconnects.shelly, s.outbound)
	}
	if p.has(roleWorker) {
		s.cloud, err = cloud.New(cloud.Config{AllowHost: p.credentials.hosts.Lists, SilentAfter: p.Server.Connections.SilentAfter}, cloud.Parts{
			Store: cloudStore{store}, Known: store, Events: p.backend.log, Heartbeats: s.liveness,
			Quota: p.quota, Refusals: s.refusals, Logger: p.Logger,
		})
		if err != nil {
			return nil, err
		}
		holders = append(holders, s.cloud)
		p.disconnects.shelly = append(p.disconnects.shelly, cloudSockets{s.cloud})
	}
	s.dispatcher = switching.New(switching.Parts{
		Log: p.backend.log, Holders: holders, Partition: p.backend.log.Partition, Logger: p.Logger,
		Claims: claims.New(p.backend.log), Elsewhere: s.elsewhere,
		Recent: func(ctx context.Context, partition int, since time.Time) ([]domain.Event, error) {
			return recentSwitches(ctx, p.backend.log, partition, since)
		},
	})
	return s, nil
}

// elsewhere reports whether another deployment, to which there is a bridge, was the
// last to say something of a device that no process here holds: that one carries its
// commands out.
func (s *shellySide) elsewhere(ctx context.Context, d domain.DeviceRef) (bool, error) {
	if held, err := s.liveness.Held(ctx, d); held || err != nil {
		return false, err
	}
	known, err := s.program.backend.store.DevicesAt(ctx, d.System, []domain.DeviceID{d.Device}, domain.Position{})
	device := known[d.Device] // nil also when a bridge leaves out updates
	return err == nil && (device == nil || device.Origin != ""), err
}

// beat writes heartbeats until ctx ends.
func (s *shellySide) beat(ctx context.Context) error {
	if s.outbound == nil {
		return s.liveness.Run(ctx, nil)
	}
	return s.liveness.Run(ctx, s.outbound.Lost)
}

// jobs are what the owner of a partition does for its devices.
func (s *shellySide) jobs() []projections.Job {
	return []projections.Job{
		func(ctx context.Context, partition int) { s.liveness.Watch(ctx, partition, s.program.backend.store) },
		s.dispatcher.RunTimeouts,
		s.cloud.Run,
		s.lookAfter,
	}
}

// lookAfterEvery is how often an owner makes sure that somebody looks for every
// device that is said to be online.
const lookAfterEvery = 10 * time.Minute

// lookAfter awaits the devices of the partition's connections, now and then: the
// registry may have been lost with a Redis, and with it those that never come back.
// What is known of a device is not changed by that.
func (s *shellySide) lookAfter(ctx context.Context, partition int) {
	for ctx.Err() == nil {
		connections, err := s.program.backend.store.ConnectionsIn(ctx, partition)
		if err != nil && ctx.Err() == nil {
			s.program.Logger.Warn("cannot look which devices are awaited; trying again later", "partition", partition, "error", err)
		}
		var outbound []domain.ConnectionRef
		for _, c := range connections {
			if !c.Stopped && c.Kind == domain.ConnectionShellyOutbound {
				outbound = append(outbound, domain.ConnectionRef{System: c.System, ID: c.ConnectionID})
			}
		}
		eachApart(ctx, s.program.Logger, outbound, s.awaitDevices)
		_ = backoff.Sleep(ctx, lookAfterEvery)
	}
}

// lookAfterTime bounds how long one connection may take to be looked after.
const lookAfterTime = 10 * time.Second

// lookAfterAtOnce is how many systems are looked after at the same time.
const lookAfterAtOnce = 16

// eachApart looks after connections, those of one system one by one. One that fails,
// hangs or panics does not keep the others from their turn.
func eachApart(ctx context.Context, logger *slog.Logger, connections []domain.ConnectionRef, look func(context.Context, domain.ConnectionRef) error) {
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

func lookAfterOne(ctx context.Context, logger *slog.Logger, c domain.ConnectionRef, look func(context.Context, domain.ConnectionRef) error) {
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

// reactions are what every process does on hearing of devices and connections.
func (s *shellySide) reactions() map[domain.EventType]reactions.Reaction {
	on := map[domain.EventType]reactions.Reaction{
		domain.TypeRelaySwitchRequested: s.dispatcher.Requested,
		domain.TypeRelaySwitchCompleted: s.dispatcher.Completed,
		domain.TypeEnergyCorrected:      s.energyCorrected,
	}
	for _, t := range []domain.EventType{
		domain.TypeConnectionCreated, domain.TypeConnectionUpdated, domain.TypeConnectionStarted,
		domain.TypeConnectionRestarted, domain.TypeConnectionStopped, domain.TypeConnectionDeleted,
	} {
		on[t] = s.connectionChanged
	}
	return on
}

// energyCorrected passes the correction to the holders of the device in this process.
// Until they have it, the fold adds the correction to their updates.
func (s *shellySide) energyCorrected(ctx context.Context, e domain.Event) error {
	base, _, _ := strings.Cut(string(e.Device()), ":")
	rows, err := shellyStore{s.program.backend, s.program.credentials}.Channels(ctx, e.SystemID, domain.DeviceID(base))
	if err != nil {
		return err
	}
	for _, h := range s.dispatcher.Holders() {
		h.Correct(domain.DeviceRef{System: e.SystemID, Device: domain.DeviceID(base)}, rows)
	}
	return nil
}

// connectionChanged passes on what was commanded of a connection. Device sockets
// that are open are another event's matter: see disconnects.
func (s *shellySide) connectionChanged(ctx context.Context, e domain.Event) error {
	data, err := e.Decode()
	if err != nil || data == nil {
		return err // nil: of a later version
	}
	c := domain.ConnectionRef{System: e.SystemID, ID: connectionOf(data)}
	if s.outbound != nil {
		letIn(s.outbound, c, data, e.Position)
	}
	if s.cloud != nil {
		s.cloud.Changed(s.program.backend.log.Partition(e.SystemID), c, e.Type)
	}
	if _, started := data.(domain.ConnectionStarted); started {
		return s.started(ctx, c)
	}
	return nil
}

// started looks for the devices of a connection that was started: nobody did while
// it was stopped. Through an account of the Shelly Cloud, the cloud says who is
// there.
func (s *shellySide) started(ctx context.Context, c domain.ConnectionRef) error {
	connection, err := s.program.backend.store.ConnectionOf(ctx, c.System, c.ID)
	switch {
	case domain.HasCode(err, domain.CodeUnknownConnection):
		return nil // deleted since
	case err != nil:
		return err
	case connection.Kind != domain.ConnectionShellyOutbound, connection.Origin != "":
		return nil
	}
	return s.awaitDevices(ctx, c)
}

// connectionOf is the connection that a command is about.
func connectionOf(data domain.Data) domain.ConnectionID {
	switch d := data.(type) {
	case domain.ConnectionCreated:
		return d.ConnectionID
	case domain.ConnectionUpdated:
		return d.ConnectionID
	case domain.ConnectionStarted:
		return d.ConnectionID
	case domain.ConnectionRestarted:
		return d.ConnectionID
	case domain.ConnectionStopped:
		return d.ConnectionID
	case domain.ConnectionDeleted:
		return d.ConnectionID
	}
	return ""
}

// letIn tells the server whom to let in from here on.
func letIn(server *outbound.Server, id domain.ConnectionRef, command domain.Data, at domain.Position) {
	switch c := command.(type) {
	case domain.ConnectionCreated, domain.ConnectionStarted, domain.ConnectionRestarted:
		server.Allow(id, at)
	case domain.ConnectionStopped:
		server.Refuse(id, at)
	case domain.ConnectionDeleted:
		server.Remove(id, at)
	case domain.ConnectionUpdated:
		if c.Credential {
			server.Renew(id, at)
		}
	}
}

// awaitDevices gives the devices that came in through an outbound connection, and
// are said to be online, their time to be heard of: some may never dial in again.
func (s *shellySide) awaitDevices(ctx context.Context, c domain.ConnectionRef) error {
	devices, err := s.program.backend.store.DevicesOf(ctx, c.System, c.ID)
	if err != nil {
		return err
	}
	for _, d := range devices {
		if d.Online == nil || !*d.Online || d.Origin != "" {
			continue // another deployment holds it, and looks for it
		}
		s.liveness.Await(domain.DeviceRef{System: c.System, Device: d.DeviceID}, s.program.Server.Connections.SilentAfter)
	}
	return nil
}

// figures counts the device sockets of this process, and its connections to the
// Shelly Cloud by state.
func (s *shellySide) figures() (devices int, connections map[string]int) {
	connections = map[string]int{}
	if s.outbound != nil {
		devices = s.outbound.Stats().Sockets
	}
	if s.cloud != nil {
		for state, n := range s.cloud.Stats() {
			connections[string(state)] = n
		}
	}
	return devices, connections
}

// shutdown lets the devices go, who dial in elsewhere.
func (s *shellySide) shutdown(ctx context.Context) error {
	if s.outbound == nil {
		return nil
	}
	return s.outbound.Shutdown(ctx)
}

// cloudSockets are the sockets to the Shelly Cloud, as forced disconnects see
// them: there is one per connection, and it is opened anew only when the
// connection may have one.
type cloudSockets struct{ *cloud.Supervisor }

// Drop implements shellyDropper.
func (c cloudSockets) Drop(id domain.ConnectionRef, _ time.Time) int { return c.Supervisor.Drop(id) }

// shellyStore is what the Shelly side reads and writes in the database. Its reads
// have everything that was appended before them.
type shellyStore struct {
	backend     *backend
	credentials *credentials
}

// caughtUp returns when the read models have all of a system that is in the log.
func (s shellyStore) caughtUp(ctx context.Context, system domain.SystemID) error {
	newest, err := s.backend.log.Newest(ctx, system)
	if err != nil {
		return err
	}
	return s.backend.store.WaitForSystem(ctx, system, newest)
}

// Credential implements outbound.Credentials.
func (s shellyStore) Credential(ctx context.Context, id domain.ConnectionID, key credential.Secret) (outbound.Credential, error) {
	c, err := s.backend.store.OutboundCredential(ctx, id, credential.Hash(key), s.backend.log.Newest)
	if err != nil {
		return outbound.Credential{}, err
	}
	return outbound.Credential{
		ConnectionRef: domain.ConnectionRef{System: c.System, ID: id}, KeyHash: c.KeyHash, Stopped: c.Stopped, Position: c.Position,
	}, nil
}

// Channels implements shelly.Known.
func (s shellyStore) Channels(ctx context.Context, system domain.SystemID, base domain.DeviceID) ([]*domain.Device, error) {
	if err := s.caughtUp(ctx, system); err != nil {
		return nil, err
	}
	return s.backend.store.Channels(ctx, system, base)
}

// Count implements outbound.Devices.
func (s shellyStore) Count(ctx context.Context, c domain.ConnectionRef, most int) (int, error) {
	if err := s.caughtUp(ctx, c.System); err != nil {
		return 0, err
	}
	return s.backend.store.CountDevices(ctx, c.System, c.ID, most)
}

// cloudStore is [cloud.Store].
type cloudStore struct{ shellyStore }

// Connections implements cloud.Store.
func (s cloudStore) Connections(ctx context.Context, partition int) ([]cloud.Connection, error) {
	tail, err := s.backend.log.Tail(ctx, partition)
	if err == nil {
		err = s.backend.store.WaitFor(ctx, partition, tail)
	}
	if err != nil {
		return nil, err
	}
	rows, err := s.backend.store.ConnectionsIn(ctx, partition)
	if err != nil {
		return nil, err
	}
	connections := make([]cloud.Connection, 0, len(rows))
	for _, row := range rows {
		if row.Origin == "" {
			connections = append(connections, cloudConnection(row.System, row.Connection))
		}
	}
	return connections, nil
}

// Connection implements cloud.Store.
func (s cloudStore) Connection(ctx context.Context, system domain.SystemID, id domain.ConnectionID) (cloud.Connection, error) {
	if err := s.caughtUp(ctx, system); err != nil {
		return cloud.Connection{}, err
	}
	row, err := s.backend.store.ConnectionOf(ctx, system, id)
	if err != nil {
		return cloud.Connection{}, err
	}
	if row.Origin != "" {
		return cloud.Connection{}, domain.Fail(domain.KindNotFound, domain.CodeUnknownConnection, "the connection is another deployment's")
	}
	return cloudConnection(system, row), nil
}

func cloudConnection(system domain.SystemID, row *domain.Connection) cloud.Connection {
	return cloud.Connection{
		ConnectionRef: domain.ConnectionRef{System: system, ID: row.ConnectionID},
		Kind:          row.Kind, Name: row.Name, Stopped: row.Stopped, State: row.State,
	}
}

// Devices implements cloud.Store.
func (s cloudStore) Devices(ctx context.Context, system domain.SystemID, id domain.ConnectionID) ([]*domain.Device, error) {
	if err := s.caughtUp(ctx, system); err != nil {
		return nil, err
	}
	return s.backend.store.DevicesOf(ctx, system, id)
}

// Secret implements cloud.Store.
func (s cloudStore) Secret(ctx context.Context, c domain.ConnectionRef) (cloud.Secret, error) {
	secret, _, err := s.open(ctx, c)
	return secret, err
}

func (s cloudStore) open(ctx context.Context, c domain.ConnectionRef) (cloud.Secret, *projections.Secret, error) {
	plain, row, err := s.credentials.open(ctx, c.System, c.ID)
	if err != nil {
		return cloud.Secret{}, nil, err
	}
	var secret cloud.Secret
	if json.Unmarshal(plain, &secret) != nil { // whose error would show what it is about
		return cloud.Secret{}, nil, fmt.Errorf("what is kept for connection %s is no account", c.ID)
	}
	return secret, row, nil
}

// SaveSecret implements cloud.Store.
func (s cloudStore) SaveSecret(ctx context.Context, c domain.ConnectionRef, secret cloud.Secret) error {
	plain, err := json.Marshal(secret)
	if err != nil {
		return errors.New("an account cannot be written as JSON")
	}
	for {
		kept, row, err := s.open(ctx, c)
		if err != nil {
			return err
		}
		if kept.AuthCode != secret.AuthCode || kept.ClientID != secret.ClientID {
			return nil // replaced while it was being renewed
		}
		if err = s.credentials.save(ctx, row, plain); !domain.HasCode(err, domain.CodeContention) || ctx.Err() != nil {
			return err
		}
	}
}

// merged is all reactions of a process.
func merged(all ...map[domain.EventType]reactions.Reaction) map[domain.EventType]reactions.Reaction {
	on := map[domain.EventType]reactions.Reaction{}
	for _, some := range all {
		maps.Copy(on, some)
	}
	return on
}
