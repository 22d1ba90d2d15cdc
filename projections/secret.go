package projections

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/plugcast/plugcast/domain"
)

// Secret is what lets sockets of one connection in. It belongs to no read model,
// because no event has it: a rebuild leaves it alone. It may be there before its
// connection exists, as a reservation of the id, and after it was deleted; then
// it lets nobody in.
type Secret struct {
	ConnectionID domain.ConnectionID
	System       domain.SystemID
	Kind         domain.ConnectionKind
	KeyHash      []byte // SHA-256 of the key that devices dial in with, or nil
	KeyID        string // which key Sealed has been encrypted with, or ""
	Sealed       []byte // what a cloud account is reached with, or nil

	Revision  string    // another at each change; given by the database
	CreatedAt time.Time // given by the database
	ChangedAt time.Time // given by the database
}

// Secret returns what is kept for a connection of a system, or fails with
// [domain.CodeUnknownConnection].
func (s *Store) Secret(ctx context.Context, system domain.SystemID, id domain.ConnectionID) (*Secret, error) {
	secret := &Secret{System: system, ConnectionID: id}
	var keyID *string
	err := s.pool.QueryRow(ctx, `
		SELECT kind, key_hash, key_id, sealed, revision::text, created_at, changed_at
		  FROM connection_secrets WHERE system_id = $1 AND connection_id = $2`, system, id).
		Scan(&secret.Kind, &secret.KeyHash, &keyID, &secret.Sealed, &secret.Revision, &secret.CreatedAt, &secret.ChangedAt)
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

// PutSecret keeps a secret in the place of the one with the given Revision, or
// where there is none when that is empty, and returns the new revision. So of two
// who change what both have read, one fails, with [domain.CodeContention].
func (s *Store) PutSecret(ctx context.Context, secret Secret) (revision string, err error) {
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
		return revision, readError("keep a secret", err)
	}
	return "", domain.Fail(domain.KindUnavailable, domain.CodeContention, "somebody else changes the same connection; repeat in a moment")
}

// DeleteSecret removes what is kept for a connection, if it still has the revision.
// Otherwise it does nothing.
func (s *Store) DeleteSecret(ctx context.Context, system domain.SystemID, id domain.ConnectionID, revision string) error {
	_, err := s.pool.Exec(ctx,
		"DELETE FROM connection_secrets WHERE system_id = $1 AND connection_id = $2 AND revision::text = $3", system, id, revision)
	return readError("delete a secret", err)
}

// SealedWith returns the ids of the keys that kept secrets have been encrypted
// with, in order.
func (s *Store) SealedWith(ctx context.Context) ([]string, error) {
	rows, err := s.pool.Query(ctx, "SELECT DISTINCT key_id FROM connection_secrets WHERE key_id IS NOT NULL ORDER BY 1")
	if err != nil {
		return nil, readError("read the keys of secrets", err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	return ids, readError("read the keys of secrets", err)
}

// OutboundCredential is what a device that dials in is let in by.
type OutboundCredential struct {
	System   domain.SystemID
	Kind     domain.ConnectionKind
	KeyHash  []byte          // SHA-256 of the key
	Stopped  bool            // by command
	Position domain.Position // of the connection's row: what is known of it may be older than what a caller has heard
}

// OutboundCredential returns what is kept for the connection of that id whose key
// has the hash, if it exists, or fails with [domain.CodeUnknownConnection]. A device
// that dials in names no system: several may have a connection of that id, and the
// key, which is random, says which. A connection that was created a moment ago
// is waited for: when there is a secret and no row yet, until the read model has
// what newest, which asks the log, says is its system's newest position.
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

// outboundCredential reads both in one statement, so that they are of one moment.
func (s *Store) outboundCredential(ctx context.Context, id domain.ConnectionID, keyHash []byte) (
	c *OutboundCredential, exists bool, err error,
) {
	c = &OutboundCredential{}
	var stopped *bool
	var at place
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
