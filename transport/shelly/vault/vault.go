// Package vault keeps the secrets of Shelly connections: rows of a store, sealed with a
// keyring.
package vault

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/shelly/cloud"
	"github.com/plugcast/plugcast/transport/shelly/credential"
)

// Rows is where the secrets are kept.
type Rows interface {
	// Secret returns what is kept for a connection of a system, or fails with
	// [domain.CodeUnknownConnection].
	Secret(ctx context.Context, system domain.SystemID, id domain.ConnectionID) (*domain.ConnectionSecret, error)
	// PutSecret keeps a secret in the place of the one with the given Revision, or where
	// there is none when that is empty, and returns the new revision. It fails with
	// [domain.CodeContention] when something else is kept.
	PutSecret(ctx context.Context, secret domain.ConnectionSecret) (revision string, err error)
	// DeleteSecret removes what is kept for a connection, if it still has the revision.
	DeleteSecret(ctx context.Context, system domain.SystemID, id domain.ConnectionID, revision string) error
	// SealedWith returns the ids of the keys that kept secrets have been sealed with.
	SealedWith(ctx context.Context) ([]string, error)
}

// Vault is safe for concurrent use.
type Vault struct {
	rows  Rows
	ring  credential.Keyring
	hosts credential.Hosts // of cloud accounts, besides Shelly's
}

// New makes a Vault that seals with the keys of the ring. Cloud accounts may be on
// Shelly's servers and on the hosts.
func New(rows Rows, ring credential.Keyring, hosts credential.Hosts) *Vault {
	return &Vault{rows, ring, hosts}
}

// Make readies a new credential and keeps nothing yet: it only notes what is kept now.
// Errors: [credential.CodeNoSecretKey] when it would have to be sealed and there is no key
// for that, [domain.CodeInvalidCommand] when it is none. No error shows any of it.
func (v *Vault) Make(ctx context.Context, r credential.Request) (credential.New, error) {
	one := &made{rows: v.rows, next: domain.ConnectionSecret{ConnectionID: r.ConnectionID, System: r.System, Kind: r.Kind}}
	if r.Kind == domain.ConnectionShellyCloud {
		code, err := credential.ParseAuthCode(r.AuthCode.Reveal(), v.hosts)
		if err != nil {
			return nil, err
		}
		text, err := json.Marshal(cloud.Secret{AuthCode: r.AuthCode.Reveal(), ClientID: code.ClientID})
		if err != nil {
			return nil, fmt.Errorf("write an account: %w", err)
		}
		if err := v.seal(&one.next, text); err != nil {
			return nil, err
		}
	} else {
		one.key = credential.NewKey()
		one.next.KeyHash = credential.Hash(one.key)
	}
	var err error
	if one.before, err = v.kept(ctx, r.System, r.ConnectionID); err != nil {
		return nil, err
	}
	if one.before != nil {
		one.next.Revision = one.before.Revision
	}
	return one, nil
}

// kept is what a system keeps for a connection, or nil.
func (v *Vault) kept(ctx context.Context, system domain.SystemID, id domain.ConnectionID) (*domain.ConnectionSecret, error) {
	secret, err := v.rows.Secret(ctx, system, id)
	if domain.HasCode(err, domain.CodeUnknownConnection) {
		return nil, nil
	}
	return secret, err
}

// Removal readies the removal of what is kept for a connection now. Calling the answer
// does nothing when something else is kept by then.
func (v *Vault) Removal(ctx context.Context, system domain.SystemID, id domain.ConnectionID) (func(context.Context) error, error) {
	secret, err := v.kept(ctx, system, id)
	if err != nil || secret == nil {
		return func(context.Context) error { return nil }, err
	}
	return func(ctx context.Context) error { return v.rows.DeleteSecret(ctx, system, id, secret.Revision) }, nil
}

// seal puts a plain secret into the row, encrypted with the key that seals now.
func (v *Vault) seal(row *domain.ConnectionSecret, plain []byte) error {
	if v.ring.Empty() {
		return domain.Fail(domain.KindUnavailable, credential.CodeNoSecretKey,
			"credentials of Shelly Cloud accounts cannot be kept: this server has no PLUGCAST_SECRET_KEY")
	}
	sealed, err := v.ring.Seal(row.System, row.ConnectionID, plain)
	row.KeyID, row.Sealed = sealed.KeyID, sealed.Sealed
	return err
}

// open decrypts what is kept of a cloud account. The row is for save.
func (v *Vault) open(ctx context.Context, system domain.SystemID, id domain.ConnectionID) (
	plain []byte, row *domain.ConnectionSecret, err error,
) {
	if row, err = v.rows.Secret(ctx, system, id); err != nil {
		return nil, nil, err
	}
	plain, err = v.ring.Open(system, id, credential.Sealed{KeyID: row.KeyID, Sealed: row.Sealed})
	return plain, row, err
}

// save keeps what has become of a cloud account, such as renewed tokens, in the
// place of the row that was opened, and brings that row up to date. It is sealed
// with the newest key, and so moves to it by and by. It fails with
// [domain.CodeContention] if somebody has replaced the row since it was opened; the
// replacement is newer, and stays.
func (v *Vault) save(ctx context.Context, row *domain.ConnectionSecret, plain []byte) error {
	next := *row
	if err := v.seal(&next, plain); err != nil {
		return err
	}
	revision, err := v.rows.PutSecret(ctx, next)
	if err != nil {
		return err
	}
	next.Revision = revision
	*row = next
	return nil
}

// Warn logs which kept credentials cannot be read.
func (v *Vault) Warn(ctx context.Context, logger *slog.Logger) error {
	with, err := v.rows.SealedWith(ctx)
	if err != nil {
		return err
	}
	var unknown []string
	for _, id := range with {
		if !v.ring.Knows(id) {
			unknown = append(unknown, id)
		}
	}
	switch {
	case len(unknown) == 0:
	case v.ring.Empty():
		logger.Warn("there are Shelly Cloud accounts, and no key to read their credentials: set PLUGCAST_SECRET_KEY", "keyIds", unknown)
	default:
		logger.Warn("credentials of Shelly Cloud accounts were encrypted with keys that are not in PLUGCAST_SECRET_KEY", "keyIds", unknown)
	}
	return nil
}

// made is a [credential.New]. Its two rows take turns in the store.
type made struct {
	rows   Rows
	before *domain.ConnectionSecret // that was kept when it was made, or nil
	next   domain.ConnectionSecret
	key    credential.Secret
	kept   string // the revision under which next is kept, or ""
}

// Keep implements [credential.New].
func (m *made) Keep(ctx context.Context) (err error) {
	if m.kept == "" {
		m.kept, err = m.rows.PutSecret(ctx, m.next)
	}
	return err
}

// Undo implements [credential.New].
func (m *made) Undo(ctx context.Context) error {
	if m.kept == "" {
		return m.undoUnknown(ctx)
	}
	return m.undo(ctx, m.kept)
}

// undoUnknown undoes a Keep that failed, and may have been done all the same.
func (m *made) undoUnknown(ctx context.Context) error {
	now, err := m.rows.Secret(ctx, m.next.System, m.next.ConnectionID)
	if domain.HasCode(err, domain.CodeUnknownConnection) {
		return nil
	}
	if err != nil {
		return err
	}
	if !bytes.Equal(now.KeyHash, m.next.KeyHash) || !bytes.Equal(now.Sealed, m.next.Sealed) {
		return nil // hashes and seals are random: it is somebody else's
	}
	return m.undo(ctx, now.Revision)
}

func (m *made) undo(ctx context.Context, revision string) error {
	if m.before == nil {
		return m.rows.DeleteSecret(ctx, m.next.System, m.next.ConnectionID, revision)
	}
	back := *m.before
	back.Revision = revision
	_, err := m.rows.PutSecret(ctx, back)
	if domain.HasCode(err, domain.CodeContention) {
		return nil // replaced or removed by now
	}
	return err
}

// DialInKey implements [credential.New].
func (m *made) DialInKey() string { return m.key.Reveal() }

// Secret implements [cloud.Secrets].
func (v *Vault) Secret(ctx context.Context, of domain.ConnectionRef) (cloud.Secret, error) {
	secret, _, err := v.account(ctx, of)
	return secret, err
}

func (v *Vault) account(ctx context.Context, of domain.ConnectionRef) (cloud.Secret, *domain.ConnectionSecret, error) {
	plain, row, err := v.open(ctx, of.System, of.ID)
	if err != nil {
		return cloud.Secret{}, nil, err
	}
	var secret cloud.Secret
	if json.Unmarshal(plain, &secret) != nil { // whose error would show what it is about
		return cloud.Secret{}, nil, fmt.Errorf("what is kept for connection %s is no account", of.ID)
	}
	return secret, row, nil
}

// SaveSecret implements [cloud.Secrets].
func (v *Vault) SaveSecret(ctx context.Context, of domain.ConnectionRef, secret cloud.Secret) error {
	plain, err := json.Marshal(secret)
	if err != nil {
		return errors.New("an account cannot be written as JSON")
	}
	for {
		kept, row, err := v.account(ctx, of)
		if err != nil {
			return err
		}
		if kept.AuthCode != secret.AuthCode || kept.ClientID != secret.ClientID {
			return nil // replaced while it was being renewed
		}
		if err = v.save(ctx, row, plain); !domain.HasCode(err, domain.CodeContention) || ctx.Err() != nil {
			return err
		}
	}
}
