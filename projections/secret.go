package projections

import (
	"context"
	"errors"
	"strconv"

	"github.com/jackc/pgx/v5"

	"github.com/plugcast/plugcast/domain"
)

// Secret returns the secret of a connection of a system, or fails with
// [domain.CodeUnknownConnection].
func (s *Store) Secret(ctx context.Context, system domain.SystemID, id domain.ConnectionID) (*domain.ConnectionSecret, error) {
	secret := &domain.ConnectionSecret{System: system, ConnectionID: id}
	var keyID *string
	err := s.pool.QueryRow(ctx, `
		SELECT kind, key_hash, key_id, sealed, revision::text
		  FROM connection_secrets WHERE system_id = $1 AND connection_id = $2`, system, id).
		Scan(&secret.Kind, &secret.KeyHash, &keyID, &secret.Sealed, &secret.Revision)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, unknownConnection(id)
	}
	if err != nil {
		return nil, readError("read a secret", err)
	}
	if keyID != nil {
		secret.KeyID = *keyID
	}
	return secret, nil
}

// PutSecret replaces the secret that has the given Revision, or adds one if Revision is empty,
// and returns the new revision. If two callers change the same revision, one of them fails with
// [domain.CodeContention].
func (s *Store) PutSecret(ctx context.Context, secret domain.ConnectionSecret) (revision string, err error) {
	statement := `
		INSERT INTO connection_secrets (connection_id, system_id, kind, key_hash, key_id, sealed)
		VALUES ($1, $2, $3, $4, NULLIF($5, ''), $6) ON CONFLICT (system_id, connection_id) DO NOTHING RETURNING revision::text`
	args := []any{secret.ConnectionID, secret.System, secret.Kind, secret.KeyHash, secret.KeyID, secret.Sealed}
	if secret.Revision != "" {
		statement = `
			UPDATE connection_secrets
			   SET kind = $3, key_hash = $4, key_id = NULLIF($5, ''), sealed = $6, revision = gen_random_uuid(), changed_at = now()
			 WHERE connection_id = $1 AND system_id = $2 AND revision::text = $7 RETURNING revision::text`
		args = append(args, secret.Revision)
	}
	err = s.pool.QueryRow(ctx, statement, args...).Scan(&revision)
	if !errors.Is(err, pgx.ErrNoRows) {
		return revision, readError("write a secret", err)
	}
	return "", domain.Fail(domain.KindUnavailable, domain.CodeContention, "another request changed the same connection; repeat in a moment")
}

// DeleteSecret removes the secret of a connection if it still has the revision. Otherwise it
// does nothing.
func (s *Store) DeleteSecret(ctx context.Context, system domain.SystemID, id domain.ConnectionID, revision string) error {
	_, err := s.pool.Exec(ctx,
		"DELETE FROM connection_secrets WHERE system_id = $1 AND connection_id = $2 AND revision::text = $3", system, id, revision)
	return readError("delete a secret", err)
}

// SealedWith returns the ids of the keys that encrypted the stored secrets, in order.
func (s *Store) SealedWith(ctx context.Context) ([]string, error) {
	rows, err := s.pool.Query(ctx, "SELECT DISTINCT key_id FROM connection_secrets WHERE key_id IS NOT NULL ORDER BY 1")
	if err != nil {
		return nil, readError("read the keys of secrets", err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	return ids, readError("read the keys of secrets", err)
}

// OutboundCredential is the credential that admits a device that dials in.
type OutboundCredential struct {
	System   domain.SystemID
	Kind     domain.ConnectionKind
	KeyHash  []byte          // SHA-256 of the key
	Stopped  bool            // by command
	Position domain.Position // of the connection's row, which may be older than the events that the caller has seen
}

// OutboundCredential returns the credential of the connection with that id whose key has the
// hash, or fails with [domain.CodeUnknownConnection]. A device that dials in names no system:
// several systems may have a connection with that id, and the key, which is random, identifies
// one of them. If there is a secret and no row yet, because the connection was created a moment
// ago, it waits until the read model has reached newest, which is called for the newest
// position of the system in the log.
func (s *Store) OutboundCredential(ctx context.Context, id domain.ConnectionID, keyHash []byte,
	newest func(context.Context, domain.SystemID) (domain.Position, error),
) (*OutboundCredential, error) {
	credential, exists, err := s.outboundCredential(ctx, id, keyHash)
	if err == nil && !exists {
		var at domain.Position
		if at, err = newest(ctx, credential.System); err == nil {
			err = s.WaitForSystem(ctx, credential.System, at)
		}
		if err == nil {
			credential, exists, err = s.outboundCredential(ctx, id, keyHash)
		}
	}
	if err == nil && !exists {
		err = unknownConnection(id)
	}
	if err != nil {
		return nil, readError("read a credential", err)
	}
	return credential, nil
}

// outboundCredential reads the secret and the row in one statement, so that both are as of one
// moment.
func (s *Store) outboundCredential(ctx context.Context, id domain.ConnectionID, keyHash []byte) (
	c *OutboundCredential, exists bool, err error,
) {
	c = &OutboundCredential{}
	var stopped *bool
	var at pos
	err = s.pool.QueryRow(ctx, `
		SELECT s.system_id, s.kind, s.key_hash, c.stopped, coalesce(c.position_ms, 0), coalesce(c.position_seq, 0)
		  FROM connection_secrets s LEFT JOIN projection.connections c USING (system_id, connection_id)
		 WHERE s.connection_id = $1 AND s.key_hash = $2`, id, keyHash).Scan(&c.System, &c.Kind, &c.KeyHash, &stopped, &at.ms, &at.n)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil, false, unknownConnection(id)
	case err != nil:
		return nil, false, err
	case stopped == nil:
		return c, false, nil
	}
	c.Stopped, c.Position = *stopped, at.position()
	return c, true, nil
}

func unknownConnection(id domain.ConnectionID) error {
	return domain.Fail(domain.KindNotFound, domain.CodeUnknownConnection, "there is no connection "+strconv.Quote(string(id)))
}
