package projections_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/projections"
	"github.com/plugcast/plugcast/transport/testpeer"
)

// fill projects random histories, so that every kind of row exists.
func fill(t testing.TB, b *bundle) *script {
	t.Helper()
	log := newScript()
	for i := range 30 {
		log.add(genHistory().Example(i)...)
	}
	projectAll(t, b.store, log)
	return log
}

// A rebuild brings back the same rows, whichever of them were dropped.
func TestRebuildBringsTheSameRows(t *testing.T) {
	t.Parallel()
	for _, loss := range []struct {
		name, statement string
		rebuild         []string
	}{
		{"nothing", "SELECT", nil},
		{"rows", "TRUNCATE projection.devices, projection.equipment", nil},
		{"rows of one", "DELETE FROM projection.assignments", []string{"assignments"}},
		{"every table", "DROP TABLE projection.devices, projection.equipment, projection.assignments, projection.connections", nil},
		{"the schema", "DROP SCHEMA projection CASCADE", nil},
		{"a table, after a rebuild died",
			"DROP TABLE projection.devices; SELECT create_read_models('projection_next'); CREATE SCHEMA projection_old", nil},
	} {
		t.Run(loss.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			log := fill(t, b)
			tables := append([]string{"history", "heads"}, readModels...)
			before := b.tables(t, tables...)
			b.exec(t, loss.statement)
			var done, total uint64
			if _, err := b.store.Rebuild(t.Context(), loss.rebuild, func(d, n uint64) { done, total = d, n }); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(before, b.tables(t, tables...)); diff != "" {
				t.Errorf("(-before +after)\n%s", diff)
			}
			if done == 0 || done != total {
				t.Errorf("told of %d of %d events", done, total)
			}
			var schemas int
			if err := b.owner.QueryRow(t.Context(),
				"SELECT count(*) FROM pg_namespace WHERE nspname IN ('projection_next', 'projection_old')").Scan(&schemas); err != nil || schemas != 0 {
				t.Errorf("%d schemas are left, %v", schemas, err)
			}
			// Projecting continues, and so do reads within an actor's systems.
			system := domain.SystemID("after-0")
			log.add(must(t, system, 1_900_000_000_000, domain.DeviceUpdate{DeviceID: "d", Online: domain.Some(true)}))
			projectAll(t, b.store, log)
			viewer := domain.Actor{Systems: []domain.SystemID{system}}
			st, _, err := b.store.DevicePage(t.Context(), viewer, system, "", 0)
			if err != nil || len(st.Devices) != 1 {
				t.Errorf("%v, %v", st, err)
			}
		})
	}
}

// During a rebuild under load projectors continue, and readers never see an older state, nor
// rows and a cursor of different moments.
func TestRebuildUnderLoad(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const system = domain.SystemID("load-0")
	log := newScript()
	log.batch = func() int { return 1 + rand.IntN(20) }
	var next uint64 = 1000
	add := func(n int) {
		for range n {
			next++
			log.add(must(t, system, next, domain.DeviceUpdate{DeviceID: "d", PowerW: domain.Some(float64(next))}))
		}
	}
	add(5000)
	projectAll(t, b.store, log)

	ctx, stop := context.WithCancel(t.Context())
	var others sync.WaitGroup
	var written, read atomic.Int64
	others.Go(func() { // the owner
		projector := projections.NewProjector(b.store, log, partitionOf(system))
		for ctx.Err() == nil {
			add(50)
			if err := projector.Run(ctx); !errors.Is(err, errEnd) && ctx.Err() == nil {
				t.Error(err)
			}
			written.Add(50)
		}
	})
	for range 2 {
		others.Go(func() { // a reader
			var last domain.Position
			for ctx.Err() == nil {
				st, err := b.store.WholeState(ctx, staff, system, domain.Position{})
				if ctx.Err() != nil {
					return
				}
				if err != nil {
					t.Error(err)
					return
				}
				device := st.Devices["d"]
				if device == nil || device.Position.Before(last) || device.Position != st.Cursor.Position {
					t.Errorf("after %s: device %+v at %s", last, device, st.Cursor)
					return
				}
				last = device.Position
				read.Add(1)
			}
		})
	}
	for range 6 {
		if _, err := b.store.Rebuild(ctx, nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	others.Wait()
	if written.Load() == 0 || read.Load() == 0 {
		t.Errorf("%d events written and %d states read during the rebuild", written.Load(), read.Load())
	}
	t.Logf("%d events written and %d states read during the rebuild", written.Load(), read.Load())
	projectAll(t, b.store, log)
	naively(log.events[partitionOf(system)])[system].check(t, b.store, domain.Position{Ms: 3000})
}

// A killed rebuild leaves the live read models alone, and the next one starts clean.
func TestKilledRebuild(t *testing.T) {
	t.Parallel()
	b := setup(t)
	fill(t, b)
	before := b.tables(t, readModels...)
	kill := func(done, _ uint64) {
		b.exec(t, `SELECT pg_terminate_backend(l.pid) FROM pg_locks l JOIN pg_stat_activity a USING (pid)
			WHERE l.locktype = 'advisory' AND a.datname = current_database()`)
	}
	if _, err := b.store.Rebuild(t.Context(), nil, kill); !isUnavailable(err) {
		t.Fatalf("got %v", err)
	}
	if diff := cmp.Diff(before, b.tables(t, readModels...)); diff != "" {
		t.Errorf("the live ones changed (-before +after)\n%s", diff)
	}
	testpeer.Eventually(t, "the lock is free", func() bool {
		_, err := b.store.Rebuild(t.Context(), nil, nil)
		if err != nil && !errors.Is(err, projections.ErrRebuilding) {
			t.Fatal(err)
		}
		return err == nil
	})
	if diff := cmp.Diff(before, b.tables(t, readModels...)); diff != "" {
		t.Errorf("(-before +after)\n%s", diff)
	}
}

func isUnavailable(err error) bool { return domain.HasCode(err, domain.CodeUnavailable) }

func TestOneRebuildAtATime(t *testing.T) {
	t.Parallel()
	b := setup(t)
	fill(t, b)
	var second error
	_, err := b.store.Rebuild(t.Context(), nil, func(done, _ uint64) {
		if second == nil {
			_, second = openStore(t, b.url).Rebuild(t.Context(), nil, nil)
		}
	})
	if err != nil || !errors.Is(second, projections.ErrRebuilding) {
		t.Errorf("first %v, second %v", err, second)
	}
}

func TestRebuildRefusesUnknownNames(t *testing.T) {
	t.Parallel()
	b := setup(t)
	if _, err := b.store.Rebuild(t.Context(), []string{"history"}, nil); !domain.HasCode(err, domain.CodeInvalidCommand) {
		t.Errorf("got %v", err)
	}
}

// A reader that keeps a live table locked makes the swap try again, not fail.
func TestSwapWaitsForReaders(t *testing.T) {
	t.Parallel()
	b := setup(t)
	fill(t, b)
	tx, err := b.owner.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "LOCK TABLE projection.devices IN ACCESS SHARE MODE"); err != nil {
		t.Fatal(err)
	}
	rebuilt := make(chan error, 1)
	go func() {
		_, err := b.store.Rebuild(t.Context(), nil, nil)
		rebuilt <- err
	}()
	// since returns the start of the transaction that waits for the table, if there is one.
	since := func() (began time.Time) {
		err := b.owner.QueryRow(t.Context(), `SELECT a.xact_start FROM pg_locks l JOIN pg_stat_activity a USING (pid)
			WHERE NOT l.granted AND l.mode = 'AccessExclusiveLock' AND a.datname = current_database()`).Scan(&began)
		if err != nil && !errors.Is(err, pgx.ErrNoRows) {
			t.Fatal(err)
		}
		return began
	}
	var first time.Time
	testpeer.Eventually(t, "the swap waits", func() bool { first = since(); return !first.IsZero() })
	testpeer.Eventually(t, "the swap gave up and tries again", func() bool { return since().After(first) })
	if err := tx.Rollback(t.Context()); err != nil && !errors.Is(err, pgx.ErrTxClosed) {
		t.Fatal(err)
	}
	if err := <-rebuilt; err != nil {
		t.Error(err)
	}
}
