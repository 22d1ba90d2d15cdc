package projections_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/migrations"
	"github.com/plugcast/plugcast/projections"
	"github.com/plugcast/plugcast/projections/pgserver/pgtest"
	"github.com/plugcast/plugcast/streams"
	"github.com/plugcast/plugcast/streams/redisserver/redistest"
)

func TestMain(m *testing.M) {
	if url := os.Getenv(childPostgres); url != "" {
		fmt.Fprintln(os.Stderr, beChild(url, os.Getenv(childRedis)))
		os.Exit(1)
	}
	os.Exit(redistest.Run(func() int { return pgtest.Run(m.Run) }))
}

// patience bounds every wait.
const patience = 30 * time.Second

// staff may read everything.
var staff = domain.Actor{Subject: "test", Role: domain.RoleStaff}

func migrate(ctx context.Context, url string) error { return migrations.Apply(ctx, url, nil) }

// bundle is a migrated database with a store on it.
type bundle struct {
	url   string
	store *projections.Store
	owner *pgxpool.Pool // bypasses the store
}

func setup(t testing.TB) *bundle {
	t.Helper()
	return setupAt(t, pgtest.Database(t, migrate))
}

func setupAt(t testing.TB, url string) *bundle {
	t.Helper()
	owner, err := pgxpool.New(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(owner.Close)
	return &bundle{url: url, store: openStore(t, url), owner: owner}
}

// testPartitions is the number of partitions of the tests' logs.
const testPartitions = 4

// partitionOf spreads the tests' systems evenly: their ids end with a digit.
func partitionOf(system domain.SystemID) int {
	return int(system[len(system)-1]) % testPartitions
}

func openStore(t testing.TB, url string) *projections.Store {
	t.Helper()
	store, err := projections.Open(t.Context(), projections.Config{URL: url, Partition: partitionOf, MaxConns: 8, Logger: testLogger(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	return store
}

// testLogger shows logged lines only if PLUGCAST_TEST_LOG is set: the lines of tests that kill
// things would hide the failures.
func testLogger(testing.TB) *slog.Logger {
	if os.Getenv("PLUGCAST_TEST_LOG") != "" {
		return slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	return slog.New(slog.DiscardHandler)
}

// script is a log whose events and batches are set by a test. Follow ends with errEnd after the
// last batch.
type script struct {
	mu      sync.Mutex
	events  map[int][]domain.Event
	batch   func() int
	ensured map[int]domain.Position
	expired map[int]domain.Position
}

var errEnd = errors.New("the script has ended")

func newScript(events ...domain.Event) *script {
	s := &script{
		events: map[int][]domain.Event{}, batch: func() int { return 1000 },
		ensured: map[int]domain.Position{}, expired: map[int]domain.Position{},
	}
	s.add(events...)
	return s
}

func (s *script) add(events ...domain.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range events {
		partition := 0
		if e.SystemID != "" {
			partition = partitionOf(e.SystemID)
		}
		s.events[partition] = append(s.events[partition], e)
	}
}

func (s *script) Partitions() int { return testPartitions }

func (s *script) next(partition int, after domain.Position) []domain.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	events := s.events[partition]
	for len(events) > 0 && !events[0].Position.After(after) {
		events = events[1:]
	}
	// A copy, because readers of one log must not see each other's writes.
	return append([]domain.Event(nil), events[:min(len(events), s.batch())]...)
}

func (s *script) Follow(ctx context.Context, partition int, after domain.Position, fn func([]domain.Event) error) error {
	for ctx.Err() == nil {
		events := s.next(partition, after)
		if len(events) == 0 {
			return errEnd
		}
		if err := fn(events); err != nil {
			return err
		}
		after = events[len(events)-1].Position
	}
	return ctx.Err()
}

func (s *script) Read(_ context.Context, partition int, after domain.Position, _ int) ([]domain.Event, error) {
	return s.next(partition, after), nil
}

func (s *script) Tail(_ context.Context, partition int) (domain.Position, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if events := s.events[partition]; len(events) > 0 {
		return events[len(events)-1].Position, nil
	}
	return domain.Position{}, nil
}

func (s *script) Ensure(_ context.Context, partition int, floor domain.Position) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ensured[partition] = floor
	return nil
}

func (s *script) Expire(_ context.Context, partition int, archived domain.Position, _ time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expired[partition] = archived
	return nil
}

// projectAll projects the script to its end.
func projectAll(t fataler, store *projections.Store, log *script) {
	for partition := range testPartitions {
		if err := projections.NewProjector(store, log, partition).Run(context.Background()); !errors.Is(err, errEnd) {
			t.Fatalf("partition %d: %v", partition, err)
		}
	}
}

type fataler interface {
	Helper()
	Fatalf(string, ...any)
}

// must returns an event of a system at a position.
func must(t fataler, system domain.SystemID, ms uint64, data domain.Data) domain.Event {
	t.Helper()
	e, err := domain.NewEvent(system, data, domain.Cause{Actor: "maria", CorrelationID: "c-1"})
	if err != nil {
		t.Fatalf("%v", err)
	}
	e.ID, e.Position = fmt.Sprintf("%s-%d", system, ms), domain.Position{Ms: ms}
	e.Time = time.UnixMilli(int64(ms)).UTC()
	return e
}

// openLog opens a real log.
func openLog(t testing.TB, url string, store *projections.Store) *streams.Log {
	t.Helper()
	log, err := streams.Open(t.Context(), streams.Config{URL: url, Partitions: testPartitions, Floor: store.Checkpoint, Logger: testLogger(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := log.Close(); err != nil {
			t.Error(err)
		}
	})
	return log
}

func diffStates(a, b *domain.State) string {
	return cmp.Diff(a, b, cmpopts.IgnoreUnexported(domain.State{}), cmpopts.EquateEmpty())
}

// tables returns the whole content of tables as text, for comparisons.
func (b *bundle) tables(t fataler, names ...string) map[string][]string {
	t.Helper()
	content := map[string][]string{}
	for _, name := range names {
		columns := "x"
		if name == "history" {
			columns = "(system_id, position_ms, position_seq, seq, id, type, version, time, actor, correlation_id, causation_id, " +
				"device_id, data, hash, fault)"
		}
		rows, err := b.owner.Query(context.Background(), "SELECT "+columns+"::text FROM "+name+" x ORDER BY 1")
		if err != nil {
			t.Fatalf("%v", err)
		}
		if content[name], err = pgx.CollectRows(rows, pgx.RowTo[string]); err != nil {
			t.Fatalf("%v", err)
		}
	}
	return content
}

var readModels = []string{
	"projection.devices", "projection.equipment", "projection.assignments", "projection.connections",
}

func (b *bundle) exec(t fataler, statement string, args ...any) {
	t.Helper()
	if _, err := b.owner.Exec(context.Background(), statement, args...); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}
