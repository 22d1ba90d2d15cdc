package projections_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/projections"
	"github.com/plugcast/plugcast/projections/pgserver/pgtest"
	"github.com/plugcast/plugcast/streams/redisserver/redistest"
	"github.com/plugcast/plugcast/transport/testpeer"
)

// A wait ends once the position is archived: by a projector of the same store, which reports
// it, or by another one, which a poll finds.
func TestWaitForAPosition(t *testing.T) {
	t.Parallel()
	b := setup(t)
	here, elsewhere := b.store, openStore(t, b.url)
	const system = domain.SystemID("wait-0")
	log := newScript()
	for n := range 20 {
		at := domain.Position{Ms: uint64(1000 + n)}
		waited := make(chan error, 2)
		for _, store := range []*projections.Store{here, elsewhere} {
			go func() {
				st, err := store.WholeState(t.Context(), staff, system, at)
				if err == nil && st.Cursor.Position.Before(at) {
					err = fmt.Errorf("state at %s, wanted %s", st.Cursor, at)
				}
				waited <- err
			}()
		}
		log.add(must(t, system, at.Ms, domain.DeviceUpdate{DeviceID: "d"}))
		projectAll(t, here, log)
		for range 2 {
			select {
			case err := <-waited:
				if err != nil {
					t.Fatal(err)
				}
			case <-time.After(patience):
				t.Fatal("the waiter was not woken")
			}
		}
	}
}

func TestWaitEndsWithItsContextAndWithTheStore(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ctx, cancel := context.WithCancel(t.Context())
	waited := make(chan error, 1)
	go func() { waited <- b.store.WaitFor(ctx, 0, domain.Position{Ms: 1}) }()
	cancel()
	if err := <-waited; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	store := openStore(t, b.url)
	go func() { waited <- store.WaitFor(t.Context(), 0, domain.Position{Ms: 1}) }()
	store.Close()
	if err := <-waited; err == nil {
		t.Error("the store is closed, and the wait succeeded")
	}
	if err := store.WaitFor(t.Context(), 0, domain.Position{Ms: 1}); err == nil {
		t.Error("a wait on a closed store succeeded")
	}
}

// A read without a position, and a read of a system without events, do not wait.
func TestStateOfNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	st, err := b.store.WholeState(t.Context(), staff, "nobody-0", domain.Position{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := diffStates(domain.NewState("nobody-0"), st); diff != "" {
		t.Error(diff)
	}
	if past, err := b.store.StateAt(t.Context(), staff, "nobody-0", domain.Position{Ms: 1 << 50}); err != nil || past.Cursor.Seq != 0 {
		t.Errorf("%v, %v", past, err)
	}
	head, hash, err := b.store.Head(t.Context(), staff, "nobody-0")
	if err != nil || head.Seq != 0 || hash != (domain.Hash{}) {
		t.Errorf("%+v, %v", head, err)
	}
	if result, err := b.store.Verify(t.Context(), staff, "nobody-0", nil); err != nil || result.Broken != nil {
		t.Errorf("%+v, %v", result, err)
	}
}

// While the database is down reads fail as unavailable. Once it is back everything continues.
func TestDatabaseDies(t *testing.T) {
	t.Parallel()
	server := pgtest.New(t)
	if err := migrate(t.Context(), server.URL()); err != nil {
		t.Fatal(err)
	}
	b := setupAt(t, server.URL())
	log := openLog(t, redistest.URL(t), b.store)
	worker := startWorker(t, b, log, newJobs())
	testpeer.Eventually(t, "it has all", func() bool { _, all := owners(worker); return all })
	append1(t, log, "dies-0", 0)
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	if _, err := b.store.WholeState(t.Context(), staff, "dies-0", domain.Position{}); !isUnavailable(err) {
		t.Errorf("state: %v", err)
	}
	if err := b.store.WaitFor(t.Context(), 0, domain.Position{Ms: 1 << 50}); !isUnavailable(err) {
		t.Errorf("wait: %v", err)
	}
	testpeer.Eventually(t, "it let go of all", func() bool { return len(worker.Owned()) == 0 })
	at := append1(t, log, "dies-0", 1)
	pgtest.Restart(t, server)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	testpeer.Eventually(t, "it is projected", func() bool {
		return b.store.WaitFor(ctx, log.Partition("dies-0"), at) == nil
	})
}

// A Redis that lost everything, with or without a projector at work, continues behind the
// checkpoint, and no event is counted twice or left out.
func TestRedisIsWiped(t *testing.T) {
	t.Parallel()
	b := setup(t)
	server := redistest.New(t)
	url := "redis://" + server.Addr()
	log := openLog(t, url, b.store)
	worker := startWorker(t, b, log, newJobs())
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	const system = domain.SystemID("wiped")
	for n := range 5 {
		at := append1(t, log, system, n)
		if err := b.store.WaitFor(ctx, log.Partition(system), at); err != nil {
			t.Fatal(err)
		}
		if n%2 == 0 {
			worker.stop()
		}
		if err := log.Client().FlushAll(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		if n%2 == 0 {
			worker = startWorker(t, b, log, newJobs())
		}
	}
	st, err := b.store.WholeState(ctx, staff, system, domain.Position{})
	if err != nil || st.Cursor.Seq != 5 {
		t.Fatalf("%s, %v", st.Cursor, err)
	}
	if result, err := b.store.Verify(ctx, staff, system, nil); err != nil || result.Broken != nil {
		t.Errorf("%+v, %v", result, err)
	}
}

// The lag of a partition without a projector is the age of its oldest event that is not
// archived.
func TestLagOfAPartitionThatStandsStill(t *testing.T) {
	t.Parallel()
	b := setup(t)
	hourAgo := uint64(time.Now().Add(-time.Hour).UnixMilli())
	log := newScript(must(t, "lag-0", hourAgo, domain.DeviceUpdate{DeviceID: "d"}))
	lags, err := b.store.Lags(t.Context(), log)
	if err != nil {
		t.Fatal(err)
	}
	for _, lag := range lags {
		if late := lag.Behind >= time.Hour; late != (lag.Partition == partitionOf("lag-0")) {
			t.Errorf("%+v", lag)
		}
	}
	projectAll(t, b.store, log)
	if lags, err = b.store.Lags(t.Context(), log); err != nil || lags[partitionOf("lag-0")].Behind != 0 {
		t.Errorf("%+v, %v", lags, err)
	}
}

// With more systems than a projector caches, it is slower, and still right.
func TestMoreSystemsThanAreRemembered(t *testing.T) {
	t.Parallel()
	b := setup(t)
	log := newScript()
	const systems = 1500
	for round := range uint64(3) {
		for n := range uint64(systems) {
			log.add(must(t, domain.SystemID(fmt.Sprintf("many-%d-0", n)), 1000+round*systems+n,
				domain.DeviceUpdate{DeviceID: "d", PowerW: domain.Some(float64(round))}))
		}
	}
	projectAll(t, b.store, log)
	found := 0
	for after := domain.SystemID(""); ; {
		page, err := b.store.Systems(t.Context(), staff, after, 400)
		if err != nil {
			t.Fatal(err)
		}
		for _, system := range page {
			if system.Head.Seq != 3 {
				t.Errorf("%s has %d events", system.SystemID, system.Head.Seq)
			}
			after = system.SystemID
			found++
		}
		if len(page) == 0 {
			break
		}
	}
	if found != systems {
		t.Errorf("%d systems", found)
	}
	naively(log.events[partitionOf("many-7-0")])["many-7-0"].check(t, b.store, domain.Position{Ms: 3000})
}
