package vault

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"log/slog"
	"os"
	"strings"
	"testing"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/migrations"
	"github.com/plugcast/plugcast/projections"
	"github.com/plugcast/plugcast/projections/pgserver/pgtest"
	"github.com/plugcast/plugcast/transport/shelly/cloud"
	"github.com/plugcast/plugcast/transport/shelly/credential"
	"github.com/plugcast/plugcast/transport/testpeer/shellycloud"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Run(m.Run)) }

func migrate(ctx context.Context, url string) error { return migrations.Apply(ctx, url, nil) }

// secretKey is a key of PLUGCAST_SECRET_KEY that differs by its letter.
func secretKey(letter string) string {
	return base64.StdEncoding.EncodeToString([]byte(strings.Repeat(letter, credential.KeySize)))
}

// newVault is the vault of a database of its own, with the keys.
func newVault(t *testing.T, keys ...string) *Vault {
	t.Helper()
	store, err := projections.Open(t.Context(), projections.Config{URL: pgtest.Database(t, migrate), MaxConns: 4})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	return New(store, credential.Keyring{}, nil).with(t, keys...)
}

// with is the same database under other keys.
func (v *Vault) with(t *testing.T, keys ...string) *Vault {
	t.Helper()
	ring, err := credential.ParseKeyring(strings.Join(keys, ","))
	if err != nil {
		t.Fatal(err)
	}
	return New(v.rows, ring, nil)
}

func (v *Vault) mustMake(t *testing.T, system domain.SystemID, id domain.ConnectionID) credential.New {
	t.Helper()
	made, err := v.Make(t.Context(), credential.Request{System: system, ConnectionID: id, Kind: domain.ConnectionShellyOutbound})
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func (v *Vault) mustKeep(t *testing.T, system domain.SystemID, id domain.ConnectionID) credential.New {
	t.Helper()
	made := v.mustMake(t, system, id)
	for range 2 { // a command that is decided again keeps it again
		if err := made.Keep(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return made
}

// matches reports whether a key is the one that is kept.
func (v *Vault) matches(t *testing.T, system domain.SystemID, id domain.ConnectionID, key string) bool {
	t.Helper()
	secret, err := v.rows.Secret(t.Context(), system, id)
	if err != nil {
		t.Fatal(err)
	}
	return credential.Match(secret.KeyHash, key)
}

// A process that dies between the secret and the event leaves a reservation, which
// its own system takes over. Another system's of the same id is another.
func TestReservation(t *testing.T) {
	t.Parallel()
	c := newVault(t)
	left := c.mustKeep(t, "sol", "acc1") // and here it died
	theirs := c.mustMake(t, "luna", "acc1")
	if err := theirs.Keep(t.Context()); err != nil || !c.matches(t, "luna", "acc1", theirs.DialInKey()) {
		t.Errorf("another system: %v", err)
	}
	if err := theirs.Undo(t.Context()); err != nil || !c.matches(t, "sol", "acc1", left.DialInKey()) {
		t.Errorf("another system's undo: %v", err)
	}
	again, late := c.mustMake(t, "sol", "acc1"), c.mustMake(t, "sol", "acc1")
	if err := again.Keep(t.Context()); err != nil {
		t.Error(err)
	}
	// Of two at once one is refused, and its undo leaves the other's alone.
	if err := late.Keep(t.Context()); !domain.HasCode(err, domain.CodeContention) {
		t.Errorf("the second of two: %v", err)
	}
	if err := late.Undo(t.Context()); err != nil {
		t.Error(err)
	}
	if !c.matches(t, "sol", "acc1", again.DialInKey()) || c.matches(t, "sol", "acc1", left.DialInKey()) ||
		again.DialInKey() == left.DialInKey() {
		t.Error("the wrong key is kept")
	}
}

func TestUndoPutsBackWhatWasKept(t *testing.T) {
	t.Parallel()
	c := newVault(t)
	fresh := c.mustKeep(t, "sol", "acc1")
	if err := fresh.Undo(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := c.rows.Secret(t.Context(), "sol", "acc1"); !domain.HasCode(err, domain.CodeUnknownConnection) {
		t.Errorf("a first one stays: %v", err)
	}
	old := c.mustKeep(t, "sol", "acc1")
	rotated := c.mustKeep(t, "sol", "acc1")
	if c.matches(t, "sol", "acc1", old.DialInKey()) || !c.matches(t, "sol", "acc1", rotated.DialInKey()) {
		t.Error("the old key works still")
	}
	if err := rotated.Undo(t.Context()); err != nil || !c.matches(t, "sol", "acc1", old.DialInKey()) {
		t.Errorf("the old key is not back: %v", err)
	}
	next := c.mustKeep(t, "sol", "acc1")
	if err := rotated.Undo(t.Context()); err != nil || !c.matches(t, "sol", "acc1", next.DialInKey()) {
		t.Errorf("an undo that comes late undoes somebody else's: %v", err)
	}
}

// A Keep whose answer got lost is undone like any other.
func TestUndoOfALostAnswer(t *testing.T) {
	t.Parallel()
	c := newVault(t)
	lost := c.mustKeep(t, "sol", "acc1").(*made)
	lost.kept = ""
	if err := lost.Undo(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := c.rows.Secret(t.Context(), "sol", "acc1"); !domain.HasCode(err, domain.CodeUnknownConnection) {
		t.Errorf("it stays: %v", err)
	}
}

func TestRemoval(t *testing.T) {
	t.Parallel()
	c := newVault(t)
	ctx := t.Context()
	first := c.mustKeep(t, "sol", "acc1")
	old, err := c.Removal(ctx, "sol", "acc1")
	if err != nil {
		t.Fatal(err)
	}
	second := c.mustKeep(t, "sol", "acc1")
	foreign, err := c.Removal(ctx, "luna", "acc1")
	if err != nil {
		t.Fatal(err)
	}
	for name, remove := range map[string]func(context.Context) error{"of what was replaced": old, "of another system's": foreign} {
		if err := remove(ctx); err != nil || !c.matches(t, "sol", "acc1", second.DialInKey()) || c.matches(t, "sol", "acc1", first.DialInKey()) {
			t.Errorf("%s: %v", name, err)
		}
	}
	remove, err := c.Removal(ctx, "sol", "acc1")
	if err == nil {
		err = remove(ctx)
	}
	if _, missing := c.rows.Secret(ctx, "sol", "acc1"); err != nil || !domain.HasCode(missing, domain.CodeUnknownConnection) {
		t.Errorf("%v, %v", err, missing)
	}
	if again, err := c.Removal(ctx, "sol", "acc1"); err != nil || again(ctx) != nil {
		t.Errorf("of nothing: %v", err)
	}
}

// What an old key sealed opens under a ring that has it still, and moves to the
// new one with the next change.
func TestSecretKeysRotate(t *testing.T) {
	t.Parallel()
	before := newVault(t, secretKey("a"))
	ctx := t.Context()
	peer := shellycloud.New(shellycloud.Config{})
	t.Cleanup(peer.Close)
	code := peer.AddAccount("6550", "https://shelly-1-eu.shelly.cloud").AuthCode()
	first, err := before.Make(ctx, credential.Request{
		System: "sol", ConnectionID: "acc1", Kind: domain.ConnectionShellyCloud, AuthCode: credential.Conceal(code)})
	if err == nil {
		err = first.Keep(ctx)
	}
	if err != nil || first.DialInKey() != "" {
		t.Fatal(err)
	}
	both := before.with(t, secretKey("b"), secretKey("a"))
	plain, row, err := both.open(ctx, "sol", "acc1")
	var kept cloud.Secret
	if err != nil || json.Unmarshal(plain, &kept) != nil || kept.AuthCode != code || both.ring.Seals(row.KeyID) {
		t.Fatalf("%v", err)
	}
	stale := *row
	if err := both.save(ctx, row, []byte(`{"authCode":"renewed"}`)); err != nil || !both.ring.Seals(row.KeyID) {
		t.Fatalf("%v", err)
	}
	if err := both.save(ctx, &stale, []byte(`{}`)); !domain.HasCode(err, domain.CodeContention) {
		t.Errorf("saved over what it had not seen: %v", err)
	}
	if err := both.save(ctx, row, []byte(`{"authCode":"renewed again"}`)); err != nil {
		t.Error(err)
	}
	after := before.with(t, secretKey("b"))
	if plain, _, err := after.open(ctx, "sol", "acc1"); err != nil || string(plain) != `{"authCode":"renewed again"}` {
		t.Errorf("%v", err)
	}
	if _, _, err := before.open(ctx, "sol", "acc1"); err == nil || !strings.Contains(err.Error(), row.KeyID) {
		t.Errorf("under the old key alone: %v", err)
	}
	for name, c := range map[string]struct {
		keys []string
		says string
	}{
		"no key": {nil, "no key to read"}, "the wrong key": {[]string{secretKey("c")}, "not in PLUGCAST_SECRET_KEY"},
		"the key": {[]string{secretKey("b")}, ""},
	} {
		var log strings.Builder
		if err := before.with(t, c.keys...).Warn(ctx, slog.New(slog.NewTextHandler(&log, nil))); err != nil ||
			!strings.Contains(log.String(), c.says) || c.says == "" && log.Len() > 0 {
			t.Errorf("%s: %v, %s", name, err, log.String())
		}
	}
	none := before.with(t)
	request := credential.Request{
		System: "sol", ConnectionID: "acc2", Kind: domain.ConnectionShellyCloud, AuthCode: credential.Conceal(code),
	}
	if _, err := none.Make(ctx, request); !domain.HasCode(err, credential.CodeNoSecretKey) {
		t.Errorf("%v", err)
	}
	none.mustKeep(t, "sol", "acc2") // a dial-in key needs no secret key
}
