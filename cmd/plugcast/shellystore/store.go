// Package shellystore reads from the database what the holders of Shelly devices ask for.
// Its reads have everything that was appended to the log before them.
package shellystore

import (
	"context"

	"github.com/plugcast/plugcast/cmd/plugcast/backend"
	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/shelly/cloud"
	"github.com/plugcast/plugcast/transport/shelly/credential"
	"github.com/plugcast/plugcast/transport/shelly/outbound"
)

// Store is safe for concurrent use.
type Store struct{ backend *backend.Backend }

// New makes a Store.
func New(b *backend.Backend) Store { return Store{b} }

// caughtUp returns when the read models have all of a system that is in the log.
func (s Store) caughtUp(ctx context.Context, system domain.SystemID) error {
	newest, err := s.backend.Log.Newest(ctx, system)
	if err != nil {
		return err
	}
	return s.backend.Store.WaitForSystem(ctx, system, newest)
}

// Credential implements [outbound.Credentials].
func (s Store) Credential(ctx context.Context, id domain.ConnectionID, key credential.Secret) (outbound.Credential, error) {
	c, err := s.backend.Store.OutboundCredential(ctx, id, credential.Hash(key), s.backend.Log.Newest)
	if err != nil {
		return outbound.Credential{}, err
	}
	return outbound.Credential{
		ConnectionRef: domain.ConnectionRef{System: c.System, ID: id}, KeyHash: c.KeyHash, Stopped: c.Stopped, Position: c.Position,
	}, nil
}

// Channels implements [shelly.Known].
func (s Store) Channels(ctx context.Context, system domain.SystemID, base domain.DeviceID) ([]*domain.Device, error) {
	if err := s.caughtUp(ctx, system); err != nil {
		return nil, err
	}
	return s.backend.Store.Channels(ctx, system, base)
}

// Count implements [outbound.Devices].
func (s Store) Count(ctx context.Context, c domain.ConnectionRef, most int) (int, error) {
	if err := s.caughtUp(ctx, c.System); err != nil {
		return 0, err
	}
	return s.backend.Store.CountDevices(ctx, c.System, c.ID, most)
}

// Connections implements [cloud.Store].
func (s Store) Connections(ctx context.Context, partition int) ([]cloud.Connection, error) {
	tail, err := s.backend.Log.Tail(ctx, partition)
	if err == nil {
		err = s.backend.Store.WaitFor(ctx, partition, tail)
	}
	if err != nil {
		return nil, err
	}
	rows, err := s.backend.Store.ConnectionsIn(ctx, partition)
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

// Connection implements [cloud.Store].
func (s Store) Connection(ctx context.Context, system domain.SystemID, id domain.ConnectionID) (cloud.Connection, error) {
	if err := s.caughtUp(ctx, system); err != nil {
		return cloud.Connection{}, err
	}
	row, err := s.backend.Store.ConnectionOf(ctx, system, id)
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

// Devices implements [cloud.Store].
func (s Store) Devices(ctx context.Context, system domain.SystemID, id domain.ConnectionID) ([]*domain.Device, error) {
	if err := s.caughtUp(ctx, system); err != nil {
		return nil, err
	}
	return s.backend.Store.DevicesOf(ctx, system, id)
}
