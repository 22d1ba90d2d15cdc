package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/url"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/projections"
	"github.com/plugcast/plugcast/transport/rest"
	"github.com/plugcast/plugcast/transport/shelly/cloud"
	"github.com/plugcast/plugcast/transport/shelly/credential"
	"github.com/plugcast/plugcast/transport/shelly/outbound"
)

// connectionFlags are about Shelly connections, as far as dev and serve share
// them.
type connectionFlags struct {
	PublicURL        string        `name:"public-url" group:"Shelly" help:"URL at which devices reach this server from outside. Default: the URL that the API caller used." placeholder:"https://plugcast.example.com"`
	SilentAfter      time.Duration `name:"silent-after" group:"Shelly" help:"How long a device counts as alive after its last message; longer if the device reports less often." default:"120s"`
	MaxDevices       int           `name:"max-devices" group:"Shelly" help:"How many devices may dial in over one connection; further devices are refused." default:"10000"`
	MaxSystemDevices int           `name:"max-system-devices" group:"Shelly" help:"How many devices a system may have, whichever way they come: dialled in, over the Shelly Cloud, published or over a bridge. Further devices are refused." default:"50000"`
	CloudHosts       []string      `name:"cloud-hosts" group:"Shelly" help:"HOST:PORT of further servers, besides *.shelly.cloud, that cloud accounts may use, for simulators; plain HTTP is allowed there." placeholder:"HOST:PORT"`
}

// outbound is the configuration of the server that devices dial into.
func (f *connectionFlags) outbound() outbound.Config {
	return outbound.Config{SilentAfter: f.SilentAfter, MaxDevices: f.MaxDevices}
}

func (f *connectionFlags) validate() error {
	if f.MaxDevices < 1 || f.MaxSystemDevices < 1 {
		return usage("--max-devices and --max-system-devices must be 1 or more, not %d and %d", f.MaxDevices, f.MaxSystemDevices)
	}
	return nil
}

// publicURL is nil when there is none.
func (f *connectionFlags) publicURL() (*url.URL, error) {
	if f.PublicURL == "" {
		return nil, nil
	}
	at, err := url.Parse(f.PublicURL)
	if err != nil || at.Scheme != "http" && at.Scheme != "https" || at.Host == "" || at.User != nil || at.RawQuery != "" || at.Fragment != "" {
		return nil, usage("--public-url must be such as https://plugcast.example.com, not %q", f.PublicURL)
	}
	return at, nil
}

// secretFlags hold the key that credentials are encrypted with.
type secretFlags struct {
	SecretKey string `name:"secret-key" group:"Shelly" help:"Encrypts credentials of Shelly Cloud accounts: 32 bytes in base64. Several, separated by commas: the first encrypts, all decrypt." placeholder:"KEY"`
}

func (f *secretFlags) keyring() (credential.Keyring, error) {
	ring, err := credential.ParseKeyring(f.SecretKey)
	if err != nil {
		return ring, usage("PLUGCAST_SECRET_KEY: %v", err)
	}
	return ring, nil
}

// credentials are the secrets of connections: rows of the store, sealed with the
// keyring.
type credentials struct {
	store *projections.Store
	ring  credential.Keyring
	hosts credential.Hosts // of cloud accounts, besides Shelly's
}

// Make implements rest.Credentials.
func (c *credentials) Make(ctx context.Context, n rest.NewCredential) (rest.Credential, error) {
	made := &madeCredential{store: c.store, next: projections.Secret{ConnectionID: n.ConnectionID, System: n.System, Kind: n.Kind}}
	if n.Kind == domain.ConnectionShellyCloud {
		code, err := credential.ParseAuthCode(string(n.AuthCode), c.hosts)
		if err != nil {
			return nil, err
		}
		text, err := json.Marshal(cloud.Secret{AuthCode: string(n.AuthCode), ClientID: code.ClientID})
		if err != nil {
			return nil, fmt.Errorf("write an account: %w", err)
		}
		if err := c.seal(&made.next, text); err != nil {
			return nil, err
		}
	} else {
		made.key = credential.NewKey()
		made.next.KeyHash = credential.Hash(made.key)
	}
	var err error
	if made.before, err = c.kept(ctx, n.System, n.ConnectionID); err != nil {
		return nil, err
	}
	if made.before != nil {
		made.next.Revision = made.before.Revision
	}
	return made, nil
}

// kept is what a system keeps for a connection, or nil.
func (c *credentials) kept(ctx context.Context, system domain.SystemID, id domain.ConnectionID) (*projections.Secret, error) {
	secret, err := c.store.Secret(ctx, system, id)
	if domain.HasCode(err, domain.CodeUnknownConnection) {
		return nil, nil
	}
	return secret, err
}

// Removal implements rest.Credentials.
func (c *credentials) Removal(ctx context.Context, system domain.SystemID, id domain.ConnectionID) (func(context.Context) error, error) {
	secret, err := c.kept(ctx, system, id)
	if err != nil || secret == nil {
		return func(context.Context) error { return nil }, err
	}
	return func(ctx context.Context) error { return c.store.DeleteSecret(ctx, system, id, secret.Revision) }, nil
}

// seal puts a plain secret into the row, encrypted with the key that seals now.
func (c *credentials) seal(row *projections.Secret, plain []byte) error {
	if c.ring.Empty() {
		return domain.Fail(domain.KindUnavailable, rest.CodeNoSecretKey,
			"credentials of Shelly Cloud accounts cannot be kept: this server has no PLUGCAST_SECRET_KEY")
	}
	sealed, err := c.ring.Seal(row.System, row.ConnectionID, plain)
	row.KeyID, row.Sealed = sealed.KeyID, sealed.Sealed
	return err
}

// open decrypts what is kept of a cloud account. The row is for save.
func (c *credentials) open(ctx context.Context, system domain.SystemID, id domain.ConnectionID) (
	plain []byte, row *projections.Secret, err error,
) {
	if row, err = c.store.Secret(ctx, system, id); err != nil {
		return nil, nil, err
	}
	plain, err = c.ring.Open(system, id, credential.Sealed{KeyID: row.KeyID, Sealed: row.Sealed})
	return plain, row, err
}

// save keeps what has become of a cloud account, such as renewed tokens, in the
// place of the row that was opened, and brings that row up to date. It is sealed
// with the newest key, and so moves to it by and by. It fails with
// [domain.CodeContention] when the row was replaced meanwhile: whoever replaced it
// knows better.
func (c *credentials) save(ctx context.Context, row *projections.Secret, plain []byte) error {
	next := *row
	if err := c.seal(&next, plain); err != nil {
		return err
	}
	revision, err := c.store.PutSecret(ctx, next)
	if err != nil {
		return err
	}
	next.Revision = revision
	*row = next
	return nil
}

// warn says once, at the start, which kept credentials cannot be read.
func (c *credentials) warn(ctx context.Context, logger *slog.Logger) error {
	with, err := c.store.SealedWith(ctx)
	if err != nil {
		return err
	}
	var unknown []string
	for _, id := range with {
		if !c.ring.Knows(id) {
			unknown = append(unknown, id)
		}
	}
	switch {
	case len(unknown) == 0:
	case c.ring.Empty():
		logger.Warn("there are Shelly Cloud accounts, and no key to read their credentials: set PLUGCAST_SECRET_KEY", "keyIds", unknown)
	default:
		logger.Warn("credentials of Shelly Cloud accounts were encrypted with keys that are not in PLUGCAST_SECRET_KEY", "keyIds", unknown)
	}
	return nil
}

// madeCredential is a [rest.Credential]. Its two rows take turns in the store.
type madeCredential struct {
	store  *projections.Store
	before *projections.Secret // that was kept when it was made, or nil
	next   projections.Secret
	key    credential.Secret
	kept   string // the revision under which next is kept, or ""
}

// Keep implements rest.Credential.
func (m *madeCredential) Keep(ctx context.Context) (err error) {
	if m.kept == "" {
		m.kept, err = m.store.PutSecret(ctx, m.next)
	}
	return err
}

// Undo implements rest.Credential.
func (m *madeCredential) Undo(ctx context.Context) error {
	if m.kept == "" {
		return m.undoUnknown(ctx)
	}
	return m.undo(ctx, m.kept)
}

// undoUnknown undoes a Keep that failed, and may have been done all the same.
func (m *madeCredential) undoUnknown(ctx context.Context) error {
	now, err := m.store.Secret(ctx, m.next.System, m.next.ConnectionID)
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

func (m *madeCredential) undo(ctx context.Context, revision string) error {
	if m.before == nil {
		return m.store.DeleteSecret(ctx, m.next.System, m.next.ConnectionID, revision)
	}
	back := *m.before
	back.Revision = revision
	_, err := m.store.PutSecret(ctx, back)
	if domain.HasCode(err, domain.CodeContention) {
		return nil // replaced or removed by now
	}
	return err
}

// DialInKey implements rest.Credential.
func (m *madeCredential) DialInKey() string { return m.key.Reveal() }
