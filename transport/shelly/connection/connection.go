// Package connection carries out the commands on Shelly connections in each process: it tells
// the parts that hold devices which connections let devices in, and makes the heartbeats expect
// the devices of a connection that is started.
package connection

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/shelly"
)

// Store has what the platform knows of connections and devices.
type Store interface {
	// ConnectionsIn returns the connections of all systems of a partition.
	ConnectionsIn(ctx context.Context, partition int) ([]domain.SystemConnection, error)
	// ConnectionOf returns one, or an error with [domain.CodeUnknownConnection].
	ConnectionOf(ctx context.Context, system domain.SystemID, id domain.ConnectionID) (*domain.Connection, error)
	// DevicesOf returns the devices of a system that last came through a connection.
	DevicesOf(ctx context.Context, system domain.SystemID, id domain.ConnectionID) ([]*domain.Device, error)
	// DevicesAt returns those of a system's devices that are known, by id, as of the
	// position or later.
	DevicesAt(
		ctx context.Context, system domain.SystemID, ids []domain.DeviceID, atLeast domain.Position,
	) (map[domain.DeviceID]*domain.Device, error)
}

// Heartbeats knows which devices live.
type Heartbeats interface {
	// Held tells whether any process holds the device's socket.
	Held(ctx context.Context, d domain.DeviceRef) (bool, error)
	// Await gives a device that nobody holds the time within to be heard of.
	Await(d domain.DeviceRef, within time.Duration)
}

// Outbound is where devices dial in. Each method takes effect unless something later
// than the position was heard of the connection.
type Outbound interface {
	Allow(c domain.ConnectionRef, at domain.Position)  // lets devices in
	Refuse(c domain.ConnectionRef, at domain.Position) // while the connection is stopped
	Remove(c domain.ConnectionRef, at domain.Position) // for good
	Renew(c domain.ConnectionRef, at domain.Position)  // lets devices in by the new key alone
}

// Cloud holds the connections to the Shelly Cloud.
type Cloud interface {
	// Changed says that a command on a connection of the partition was heard.
	Changed(partition int, c domain.ConnectionRef, t domain.EventType)
}

// Config holds the parts that a [Reactor] works with. Outbound is nil in a process
// that serves no clients, and Cloud in one that owns no partitions.
type Config struct {
	Store       Store
	Known       shelly.Known
	Heartbeats  Heartbeats
	Outbound    Outbound
	Cloud       Cloud
	Holders     []shelly.Holder
	Partition   func(domain.SystemID) int
	SilentAfter time.Duration // how long a device that is expected may take to be heard of
	Logger      *slog.Logger
}

// Reactor has the reactions to commands on connections. It is safe for concurrent use.
type Reactor struct{ config Config }

// New makes a Reactor.
func New(config Config) *Reactor { return &Reactor{config} }

// Elsewhere reports whether another deployment, to which there is a bridge, was the
// last to say something of a device that no process here holds: that one carries its
// commands out.
func (r *Reactor) Elsewhere(ctx context.Context, d domain.DeviceRef) (bool, error) {
	if held, err := r.config.Heartbeats.Held(ctx, d); held || err != nil {
		return false, err
	}
	known, err := r.config.Store.DevicesAt(ctx, d.System, []domain.DeviceID{d.Device}, domain.Position{})
	device := known[d.Device] // nil also when a bridge leaves out updates
	return err == nil && (device == nil || device.Origin != ""), err
}

// Reactions are what every process does on hearing of connections and corrections.
func (r *Reactor) Reactions() map[domain.EventType]domain.Reaction {
	on := map[domain.EventType]domain.Reaction{
		domain.TypeEnergyCorrected: r.energyCorrected,
	}
	for _, t := range []domain.EventType{
		domain.TypeConnectionCreated, domain.TypeConnectionUpdated, domain.TypeConnectionStarted,
		domain.TypeConnectionRestarted, domain.TypeConnectionStopped, domain.TypeConnectionDeleted,
	} {
		on[t] = r.connectionChanged
	}
	return on
}

// energyCorrected passes the correction to the holders of the device in this process.
// Until they have it, the fold adds the correction to their updates.
func (r *Reactor) energyCorrected(ctx context.Context, e domain.Event) error {
	base, _, _ := strings.Cut(string(e.Device()), ":")
	rows, err := r.config.Known.Channels(ctx, e.SystemID, domain.DeviceID(base))
	if err != nil {
		return err
	}
	for _, h := range r.config.Holders {
		h.Correct(domain.DeviceRef{System: e.SystemID, Device: domain.DeviceID(base)}, rows)
	}
	return nil
}

// connectionChanged passes on what was commanded of a connection. Device sockets
// that are open are another event's matter: see package disconnect.
func (r *Reactor) connectionChanged(ctx context.Context, e domain.Event) error {
	data, err := e.Decode()
	if err != nil || data == nil {
		return err // nil: of a later version
	}
	c := domain.ConnectionRef{System: e.SystemID, ID: connectionOf(data)}
	if r.config.Outbound != nil {
		letIn(r.config.Outbound, c, data, e.Position)
	}
	if r.config.Cloud != nil {
		r.config.Cloud.Changed(r.config.Partition(e.SystemID), c, e.Type)
	}
	if _, started := data.(domain.ConnectionStarted); started {
		return r.started(ctx, c)
	}
	return nil
}

// started looks for the devices of a connection that was started: nobody did while
// it was stopped. Through an account of the Shelly Cloud, the cloud says who is
// there.
func (r *Reactor) started(ctx context.Context, c domain.ConnectionRef) error {
	connection, err := r.config.Store.ConnectionOf(ctx, c.System, c.ID)
	switch {
	case domain.HasCode(err, domain.CodeUnknownConnection):
		return nil // deleted since
	case err != nil:
		return err
	case connection.Kind != domain.ConnectionShellyOutbound, connection.Origin != "":
		return nil
	}
	return r.awaitDevices(ctx, c)
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
func letIn(server Outbound, id domain.ConnectionRef, command domain.Data, at domain.Position) {
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
