package projections_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plugcast/plugcast/domain"
)

// keep adds a secret and returns its revision.
func (b *bundle) keep(t fataler, system domain.SystemID, id domain.ConnectionID, hash string) string {
	t.Helper()
	revision, err := b.store.PutSecret(context.Background(), domain.ConnectionSecret{
		ConnectionID: id, System: system, Kind: domain.ConnectionShellyOutbound, KeyHash: []byte(hash),
	})
	if err != nil {
		t.Fatalf("%v", err)
	}
	return revision
}

// unasked fails the test if the log is asked.
func unasked(context.Context, domain.SystemID) (domain.Position, error) {
	return domain.Position{}, errors.New("the log was asked")
}

func TestSecrets(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ctx := t.Context()
	if _, err := b.store.Secret(ctx, "sol-1", "acc1"); !domain.HasCode(err, domain.CodeUnknownConnection) {
		t.Errorf("nothing kept: %v", err)
	}
	first := domain.ConnectionSecret{ConnectionID: "acc1", System: "sol-1", Kind: domain.ConnectionShellyCloud, KeyID: "0a1b2c3d",
		Sealed: []byte("sealed")}
	revision, err := b.store.PutSecret(ctx, first)
	if err != nil {
		t.Fatal(err)
	}
	got, err := b.store.Secret(ctx, "sol-1", "acc1")
	if err != nil || got.System != "sol-1" || got.Kind != first.Kind || got.KeyID != first.KeyID || !bytes.Equal(got.Sealed, first.Sealed) ||
		got.KeyHash != nil || got.Revision != revision {
		t.Errorf("%+v, %v", got, err)
	}
	if with, err := b.store.SealedWith(ctx); err != nil || !cmp.Equal(with, []string{"0a1b2c3d"}) {
		t.Errorf("%v, %v", with, err)
	}
	// A reservation is replaced by its own system, once per revision.
	second := domain.ConnectionSecret{ConnectionID: "acc1", System: "sol-1", Kind: domain.ConnectionShellyOutbound,
		KeyHash: []byte("hash"), Revision: revision}
	newer, err := b.store.PutSecret(ctx, second)
	if err != nil || newer == revision {
		t.Fatalf("%s, %v", newer, err)
	}
	for name, s := range map[string]domain.ConnectionSecret{
		"an old revision": second,
		"none seen":       {ConnectionID: "acc1", System: "sol-1", Kind: second.Kind},
		"one that is not": {ConnectionID: "acc2", System: "sol-1", Kind: second.Kind, Revision: revision},
		"no revision":     {ConnectionID: "acc1", System: "sol-1", Kind: second.Kind, Revision: "x"},
	} {
		if _, err := b.store.PutSecret(ctx, s); !domain.HasCode(err, domain.CodeContention) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Another system may use the same id, without effect on this one.
	theirs := domain.ConnectionSecret{ConnectionID: "acc1", System: "luna-2", Kind: second.Kind, KeyHash: []byte("theirs"), Revision: newer}
	if _, err := b.store.PutSecret(ctx, theirs); !domain.HasCode(err, domain.CodeContention) {
		t.Errorf("in the place of another system's: %v", err)
	}
	theirs.Revision = ""
	if theirs.Revision, err = b.store.PutSecret(ctx, theirs); err != nil {
		t.Errorf("beside another system's: %v", err)
	}
	if err := b.store.DeleteSecret(ctx, "luna-2", "acc1", newer); err != nil {
		t.Error(err)
	}
	got, err = b.store.Secret(ctx, "sol-1", "acc1")
	if err != nil || got.System != "sol-1" || string(got.KeyHash) != "hash" || got.KeyID != "" || got.Sealed != nil || got.Revision != newer {
		t.Errorf("%+v, %v", got, err)
	}
	if err := b.store.DeleteSecret(ctx, "sol-1", "acc1", revision); err != nil {
		t.Error(err)
	}
	if _, err := b.store.Secret(ctx, "sol-1", "acc1"); err != nil {
		t.Errorf("deleting an old revision: %v", err)
	}
	if err := b.store.DeleteSecret(ctx, "sol-1", "acc1", newer); err != nil {
		t.Error(err)
	}
	if _, err := b.store.Secret(ctx, "sol-1", "acc1"); !domain.HasCode(err, domain.CodeUnknownConnection) {
		t.Errorf("deleted: %v", err)
	}
	if got, err := b.store.Secret(ctx, "luna-2", "acc1"); err != nil || got.Revision != theirs.Revision {
		t.Errorf("another system's is there: %+v, %v", got, err)
	}
}

// Of many concurrent changes to the same revision, one succeeds.
func TestSecretsAreChangedByOne(t *testing.T) {
	t.Parallel()
	b := setup(t)
	revision := b.keep(t, "sol-1", "acc1", "hash")
	var changers sync.WaitGroup
	results := make(chan error, 8)
	for range cap(results) {
		changers.Go(func() {
			_, err := b.store.PutSecret(t.Context(), domain.ConnectionSecret{ConnectionID: "acc1", System: "sol-1", Kind: "k", Revision: revision})
			results <- err
		})
	}
	changers.Wait()
	close(results)
	changed := 0
	for err := range results {
		if err == nil {
			changed++
		} else if !domain.HasCode(err, domain.CodeContention) {
			t.Error(err)
		}
	}
	if changed != 1 {
		t.Errorf("%d changed it", changed)
	}
}

func TestOutboundCredential(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ctx := t.Context()
	b.keep(t, "sol-1", "acc1", "hash")
	log := newScript(must(t, "sol-1", 1000, domain.ConnectionCreated{ConnectionID: "acc1", Kind: domain.ConnectionShellyOutbound}))

	// A secret without a connection is a reservation: the log has nothing more.
	if _, err := b.store.OutboundCredential(ctx, "acc1", []byte("hash"), func(context.Context, domain.SystemID) (domain.Position, error) {
		return domain.Position{}, nil
	}); !domain.HasCode(err, domain.CodeUnknownConnection) {
		t.Errorf("a reservation: %v", err)
	}
	// A connection that was created a moment ago is waited for.
	asked := make(chan struct{})
	answer := make(chan error, 1)
	go func() {
		newest := func(_ context.Context, system domain.SystemID) (domain.Position, error) {
			close(asked)
			if system != "sol-1" {
				t.Errorf("asked for %s", system)
			}
			return domain.Position{Ms: 1000}, nil
		}
		got, err := b.store.OutboundCredential(ctx, "acc1", []byte("hash"), newest)
		if err == nil && (got.System != "sol-1" || string(got.KeyHash) != "hash" || got.Stopped || got.Position != domain.Position{Ms: 1000} ||
			got.Kind != domain.ConnectionShellyOutbound) {
			t.Errorf("%+v", got)
		}
		answer <- err
	}()
	<-asked
	projectAll(t, b.store, log)
	if err := <-answer; err != nil {
		t.Error(err)
	}
	log.add(must(t, "sol-1", 2000, domain.ConnectionStopped{ConnectionCommand: domain.ConnectionCommand{ConnectionID: "acc1"}}))
	projectAll(t, b.store, log)
	if got, err := b.store.OutboundCredential(ctx, "acc1", []byte("hash"), unasked); err != nil || !got.Stopped ||
		got.Position != (domain.Position{Ms: 2000}) {
		t.Errorf("stopped: %+v, %v", got, err)
	}
	if _, err := b.store.OutboundCredential(ctx, "acc2", []byte("hash"), unasked); !domain.HasCode(err, domain.CodeUnknownConnection) {
		t.Errorf("nothing kept: %v", err)
	}
	// The key identifies one of two systems.
	b.keep(t, "luna-2", "acc1", "theirs")
	log.add(must(t, "luna-2", 2500, domain.ConnectionCreated{ConnectionID: "acc1", Kind: domain.ConnectionShellyOutbound}))
	projectAll(t, b.store, log)
	for hash, system := range map[string]domain.SystemID{"hash": "sol-1", "theirs": "luna-2"} {
		if got, err := b.store.OutboundCredential(ctx, "acc1", []byte(hash), unasked); err != nil || got.System != system ||
			got.Stopped != (system == "sol-1") {
			t.Errorf("%s: %+v, %v", hash, got, err)
		}
	}
	if _, err := b.store.OutboundCredential(ctx, "acc1", []byte("none"), unasked); !domain.HasCode(err, domain.CodeUnknownConnection) {
		t.Errorf("nobody's key: %v", err)
	}
	// A connection with the same id in another system has no effect.
	log.add(must(t, "luna-2", 3000, domain.ConnectionCreated{ConnectionID: "acc2"}))
	b.keep(t, "sol-1", "acc2", "hash")
	projectAll(t, b.store, log)
	if _, err := b.store.OutboundCredential(ctx, "acc2", []byte("hash"), func(context.Context, domain.SystemID) (domain.Position, error) {
		return domain.Position{Ms: 2000}, nil
	}); !domain.HasCode(err, domain.CodeUnknownConnection) {
		t.Errorf("another system's connection: %v", err)
	}
	down := errors.New("down")
	if _, err := b.store.OutboundCredential(ctx, "acc2", []byte("hash"), func(context.Context, domain.SystemID) (domain.Position, error) {
		return domain.Position{}, down
	}); !errors.Is(err, down) {
		t.Errorf("a log that does not answer: %v", err)
	}
}

var secretTables = []string{"connection_secrets"}

// Secrets stay when the read models are dropped, and match the rebuilt ones.
func TestRebuildLeavesSecretsAlone(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.keep(t, "sol-1", "acc1", "hash")
	projectAll(t, b.store, newScript(must(t, "sol-1", 1000, domain.ConnectionCreated{ConnectionID: "acc1",
		Kind: domain.ConnectionShellyOutbound})))
	before := b.tables(t, secretTables...)
	for _, loss := range []string{"SELECT", "TRUNCATE projection.connections", "DROP SCHEMA projection CASCADE"} {
		b.exec(t, loss)
		if _, err := b.store.Rebuild(t.Context(), nil, nil); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(before, b.tables(t, secretTables...)); diff != "" || len(before["connection_secrets"]) != 1 {
			t.Errorf("after %s (-before +after)\n%s", loss, diff)
		}
		if got, err := b.store.OutboundCredential(t.Context(), "acc1", []byte("hash"), unasked); err != nil || string(got.KeyHash) != "hash" {
			t.Errorf("after %s: %+v, %v", loss, got, err)
		}
	}
}

// History that is replayed into empty tables finds the stored secrets.
func TestReplayMeetsKeptSecrets(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.keep(t, "sol-1", "acc1", "hash")
	log := newScript(
		must(t, "sol-1", 1000, domain.ConnectionCreated{ConnectionID: "acc1", Kind: domain.ConnectionShellyOutbound}),
		must(t, "sol-1", 2000, domain.ConnectionUpdated{ConnectionID: "acc1", Credential: true}),
	)
	projectAll(t, b.store, log)
	b.exec(t, "TRUNCATE history, heads, checkpoints, projection.connections")
	again := openStore(t, b.url)
	projectAll(t, again, log)
	if got, err := again.OutboundCredential(t.Context(), "acc1", []byte("hash"), unasked); err != nil ||
		got.Position != (domain.Position{Ms: 2000}) {
		t.Errorf("%+v, %v", got, err)
	}
}

// The reader's role sees no secret, in any scope.
func TestReaderSeesNoSecrets(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.keep(t, "sol-1", "acc1", "hash")
	for _, table := range secretTables {
		for _, statement := range []string{"SELECT FROM " + table, "SELECT count(*) FROM " + table, "DELETE FROM " + table} {
			tx, err := b.owner.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := tx.Exec(t.Context(), "SET LOCAL ROLE plugcast_reader; SET LOCAL plugcast.systems = '**'"); err != nil {
				t.Fatal(err)
			}
			if _, err := tx.Exec(t.Context(), statement); err == nil || !strings.Contains(err.Error(), "42501") {
				t.Errorf("%s: %v", statement, err)
			}
			_ = tx.Rollback(t.Context())
		}
	}
}
