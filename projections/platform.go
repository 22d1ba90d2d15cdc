package projections

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/plugcast/plugcast/domain"
)

// Reads of the platform itself, on behalf of no actor. Unless its comment says so, a read does
// not wait for the projection: see [Store.WaitForSystem].

// ConnectionsIn returns the connections of all systems of a partition, in order of system and
// id.
func (s *Store) ConnectionsIn(ctx context.Context, partition int) ([]domain.SystemConnection, error) {
	rows, err := s.pool.Query(ctx, `
		SELECT c.system_id, c.document::text FROM projection.connections c JOIN heads h USING (system_id)
		 WHERE h.partition = $1 ORDER BY c.system_id, c.connection_id`, partition)
	if err != nil {
		return nil, readError("read the connections of a partition", err)
	}
	found, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (c domain.SystemConnection, err error) {
		var document string
		if err := row.Scan(&c.System, &document); err != nil {
			return c, err
		}
		c.Connection, err = readConnection(document)
		return c, err
	})
	return found, readError("read the connections of a partition", err)
}

// ConnectionOf returns one connection of a system, or fails with
// [domain.CodeUnknownConnection].
func (s *Store) ConnectionOf(ctx context.Context, system domain.SystemID, id domain.ConnectionID) (*domain.Connection, error) {
	found, err := systemRows(ctx, s, system, scanConnection, connectionQuery+" AND connection_id = $2", id)
	return single(found, err, domain.CodeUnknownConnection, "connection", string(id))
}

// DevicesOf returns the devices of a system whose last update came through a connection, in
// order of id.
func (s *Store) DevicesOf(ctx context.Context, system domain.SystemID, connection domain.ConnectionID) ([]*domain.Device, error) {
	return systemRows(ctx, s, system, scanDevice, deviceQuery+" AND connection_id = $2 ORDER BY device_id", connection)
}

// Channels returns the devices that are the channels of one physical device, in order of id:
// base itself, which is the first channel, and base:1, base:2, ….
func (s *Store) Channels(ctx context.Context, system domain.SystemID, base domain.DeviceID) ([]*domain.Device, error) {
	// In the order of bytes the semicolon follows the colon.
	return systemRows(ctx, s, system, scanDevice,
		deviceQuery+" AND (device_id = $2 OR device_id > $3 AND device_id < $4) ORDER BY device_id", base, base+":", base+";")
}

// CountDevices returns how many devices of the system had their last update through a
// connection. It counts no further than most.
func (s *Store) CountDevices(ctx context.Context, system domain.SystemID, connection domain.ConnectionID, most int) (int, error) {
	counts, err := systemRows(ctx, s, system, func(rows pgx.Rows) (*int, error) {
		var n int
		return &n, rows.Scan(&n)
	}, `SELECT count(*) FROM (
		SELECT 1 FROM projection.devices WHERE system_id = $1 AND connection_id = $2 LIMIT $3) AS counted`, connection, most)
	if err != nil {
		return 0, err
	}
	return *counts[0], nil
}

// FindDevices returns which of the devices the system has, and how many it has in all. It
// counts no further than most.
func (s *Store) FindDevices(ctx context.Context, system domain.SystemID, devices []domain.DeviceID, most int,
) (known []domain.DeviceID, count int, err error) {
	_, err = systemRows(ctx, s, system, func(rows pgx.Rows) (*int, error) { return &count, rows.Scan(&known, &count) }, `SELECT
		ARRAY(SELECT device_id::text FROM projection.devices WHERE system_id = $1 AND device_id = ANY ($2::text[])),
		(SELECT count(*) FROM (SELECT 1 FROM projection.devices WHERE system_id = $1 LIMIT $3) AS counted)`, devices, most)
	return known, count, err
}

// DevicesAt returns those of the given devices that exist, by id, as of the position or later.
// It waits for the position until ctx ends.
func (s *Store) DevicesAt(
	ctx context.Context, system domain.SystemID, ids []domain.DeviceID, atLeast domain.Position,
) (map[domain.DeviceID]*domain.Device, error) {
	if err := s.WaitForSystem(ctx, system, atLeast); err != nil {
		return nil, readError("wait for the projection", err)
	}
	rows, err := systemRows(ctx, s, system, scanDevice, deviceQuery+" AND device_id = ANY ($2::text[])", ids)
	if err != nil {
		return nil, err
	}
	devices := make(map[domain.DeviceID]*domain.Device, len(rows))
	for _, d := range rows {
		devices[d.DeviceID] = d
	}
	return devices, nil
}

// systemRows runs a query whose first argument is the system, within that system, and decodes
// each row.
func systemRows[T any](
	ctx context.Context, s *Store, system domain.SystemID, scan func(pgx.Rows) (*T, error), query string, args ...any,
) ([]*T, error) {
	var found []*T
	err := s.read(ctx, within(system), func(rows pgx.Rows) error {
		row, err := scan(rows)
		found = append(found, row)
		return err
	}, query, append([]any{system}, args...)...)
	return found, readError("read rows", err)
}
