package projections

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/plugcast/plugcast/domain"
)

// Bind notes that a physical device came in through a connection of a system. A
// device that came in through another connection of the same system moves. One
// that belongs to another system is refused with [domain.CodeForeignDevice], which
// does not say whose it is: its own word is all that a device is known by. Without
// a secret of that connection it fails with [domain.CodeUnknownConnection].
//
// The bindings of a connection go when its secret is deleted.
func (s *Store) Bind(ctx context.Context, device domain.DeviceID, system domain.SystemID, connection domain.ConnectionID) error {
	var bound bool
	err := s.pool.QueryRow(ctx,
		"SELECT true FROM device_bindings WHERE device_id = $1 AND system_id = $2 AND connection_id = $3", device, system, connection).Scan(&bound)
	if !errors.Is(err, pgx.ErrNoRows) {
		return readError("read a binding", err) // it is so already: nearly always
	}
	written, err := s.pool.Exec(ctx, `
		INSERT INTO device_bindings AS b (device_id, system_id, connection_id) VALUES ($1, $2, $3)
		ON CONFLICT (device_id) DO UPDATE SET connection_id = EXCLUDED.connection_id, bound_at = EXCLUDED.bound_at
		 WHERE b.system_id = EXCLUDED.system_id`, device, system, connection)
	if missing := new(pgconn.PgError); errors.As(err, &missing) && missing.Code == foreignKeyViolation {
		return unknownConnection(connection)
	}
	if err != nil {
		return readError("bind a device", err)
	}
	if written.RowsAffected() == 0 {
		return domain.Fail(domain.KindForbidden, domain.CodeForeignDevice, "the device belongs to another system")
	}
	return nil
}

// foreignKeyViolation is Postgres' code for it.
const foreignKeyViolation = "23503"
