package projections_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/projections"
	"github.com/plugcast/plugcast/streams"
	"github.com/plugcast/plugcast/streams/redisserver/redistest"
	"github.com/plugcast/plugcast/transport/testpeer"
)

// running is a worker with its own store.
type running struct {
	*projections.Worker
	stop func()
	seen *jobs
}

// jobs records for which partitions jobs run.
type jobs struct {
	mu     sync.Mutex
	now    map[int]int
	twice  bool // two jobs ran at once for a partition, among all workers that share this
	starts int
}

func (d *jobs) run(ctx context.Context, partition int) {
	d.mu.Lock()
	d.now[partition]++
	d.starts++
	d.twice = d.twice || d.now[partition] > 1
	d.mu.Unlock()
	<-ctx.Done()
	d.mu.Lock()
	d.now[partition]--
	d.mu.Unlock()
}

func startWorker(t testing.TB, b *bundle, log projections.Log, seen *jobs) *running {
	t.Helper()
	w := projections.NewWorker(projections.WorkerConfig{
		Store: openStore(t, b.url), Log: log, Logger: testLogger(t), Jobs: []projections.Job{seen.run},
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return &running{w, stop, seen}
}

func newJobs() *jobs { return &jobs{now: map[int]int{}} }

func append1(t testing.TB, log *streams.Log, system domain.SystemID, n int) domain.Position {
	t.Helper()
	e, err := domain.NewEvent(system, domain.DeviceUpdate{DeviceID: "d1", PowerW: domain.Some(float64(n))}, domain.Cause{Actor: "test"})
	if err != nil {
		t.Fatal(err)
	}
	appended, err := log.Append(t.Context(), []domain.Event{e}, domain.AppendOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return appended.Last()
}

// Events go from a real log into the database, and a wait for their position ends.
func TestWorkerProjectsTheLog(t *testing.T) {
	t.Parallel()
	b := setup(t)
	log := openLog(t, redistest.URL(t), b.store)
	store, err := projections.Open(t.Context(), projections.Config{URL: b.url, Partition: log.Partition})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	startWorker(t, b, log, newJobs())
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for n := range 20 {
		system := domain.SystemID(fmt.Sprint("clinica-", n))
		at := append1(t, log, system, n)
		st, err := store.WholeState(ctx, staff, system, at)
		if err != nil {
			t.Fatal(err)
		}
		if st.Cursor != (domain.Cursor{Position: at, Seq: 1}) || *st.Devices["d1"].PowerW != float64(n) {
			t.Errorf("%s: %s", system, st.Cursor)
		}
	}
	lags, err := store.Lags(ctx, log)
	if err != nil || len(lags) != testPartitions {
		t.Fatal(lags, err)
	}
	for _, lag := range lags {
		if lag.Behind != 0 || lag.Checkpoint != lag.Tail {
			t.Errorf("%+v", lag)
		}
	}
}

func owners(workers ...*running) (counts []int, distinct bool) {
	var all []int
	for _, w := range workers {
		owned := w.Owned()
		counts = append(counts, len(owned))
		all = append(all, owned...)
	}
	slices.Sort(all)
	return counts, slices.Equal(all, []int{0, 1, 2, 3})
}

// Workers share the partitions evenly as they come and go.
func TestWorkersShareEvenly(t *testing.T) {
	t.Parallel()
	b := setup(t)
	log := openLog(t, redistest.URL(t), b.store)
	seen := newJobs()
	first := startWorker(t, b, log, seen)
	testpeer.Eventually(t, "one has all", func() bool { _, all := owners(first); return all })
	second := startWorker(t, b, log, seen)
	testpeer.Eventually(t, "two have two each", func() bool {
		counts, all := owners(first, second)
		return all && slices.Equal(counts, []int{2, 2})
	})
	third := startWorker(t, b, log, seen)
	testpeer.Eventually(t, "three have one or two each", func() bool {
		counts, all := owners(first, second, third)
		return all && !slices.Contains(counts, 0)
	})
	first.stop()
	testpeer.Eventually(t, "the two that are left have two each", func() bool {
		counts, all := owners(second, third)
		return all && slices.Equal(counts, []int{2, 2})
	})
	seen.mu.Lock()
	defer seen.mu.Unlock()
	if seen.twice {
		t.Error("a job ran twice at once for a partition")
	}
}

// A worker that loses its session stops, and another one continues with its partitions.
func TestOwnershipMoves(t *testing.T) {
	t.Parallel()
	b := setup(t)
	log := openLog(t, redistest.URL(t), b.store)
	first, second := startWorker(t, b, log, newJobs()), startWorker(t, b, log, newJobs())
	testpeer.Eventually(t, "two each", func() bool {
		counts, all := owners(first, second)
		return all && slices.Equal(counts, []int{2, 2})
	})
	starts := func(d *jobs) int {
		d.mu.Lock()
		defer d.mu.Unlock()
		return d.starts
	}
	before := starts(first.seen) + starts(second.seen)
	b.exec(t, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "+
		"WHERE datname = current_database() AND application_name = 'plugcast worker'")
	testpeer.Eventually(t, "all are owned again", func() bool {
		counts, all := owners(first, second)
		return all && slices.Equal(counts, []int{2, 2}) && starts(first.seen)+starts(second.seen) >= before+testPartitions
	})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for n := range 8 {
		system := domain.SystemID(fmt.Sprint("moved-", n))
		at := append1(t, log, system, n)
		if err := b.store.WaitFor(ctx, log.Partition(system), at); err != nil {
			t.Fatal(err)
		}
	}
}

// A process that freezes or is killed loses its partitions. A process that wakes up again
// writes nothing any more.
func TestFrozenAndKilledProcess(t *testing.T) {
	t.Parallel()
	for _, blow := range []syscall.Signal{syscall.SIGSTOP, syscall.SIGKILL} {
		t.Run(blow.String(), func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			redisURL := redistest.URL(t)
			log := openLog(t, redisURL, b.store)
			child := exec.Command(os.Args[0], "-test.run=^$")
			child.Env = append(os.Environ(), childPostgres+"="+b.url, childRedis+"="+redisURL)
			child.Stderr = os.Stderr
			if err := child.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() {
				_ = child.Process.Kill()
				_ = child.Wait()
			}()
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			project := func(n int) {
				for i := range 4 {
					system := domain.SystemID(fmt.Sprint("frozen-", i))
					at := append1(t, log, system, n)
					if err := b.store.WaitFor(ctx, log.Partition(system), at); err != nil {
						t.Fatal(err)
					}
				}
			}
			project(1)
			// A busy process is most likely in a transaction.
			flood(t, log)
			if err := child.Process.Signal(blow); err != nil {
				t.Fatal(err)
			}
			struck := time.Now()
			heir := startWorker(t, b, log, newJobs())
			testpeer.Eventually(t, "the other has all", func() bool { _, all := owners(heir); return all })
			t.Logf("moved after %v", time.Since(struck).Round(time.Millisecond))
			_ = child.Process.Signal(syscall.SIGCONT)
			project(2)
			for i := range 4 {
				system := domain.SystemID(fmt.Sprint("frozen-", i))
				verified, err := b.store.Verify(ctx, staff, system, nil)
				if err != nil || verified.Broken != nil || verified.Checked != 2+floodOf {
					t.Errorf("%+v, %v", verified, err)
				}
			}
		})
	}
}

// floodOf is how many events of each system flood appends.
const floodOf = 5000

func flood(t *testing.T, log *streams.Log) {
	t.Helper()
	for i := range 4 {
		system := domain.SystemID(fmt.Sprint("frozen-", i))
		events := make([]domain.Event, floodOf/5)
		for n := range events {
			var err error
			if events[n], err = domain.NewEvent(system, domain.DeviceUpdate{DeviceID: "d2", PowerW: domain.Some(float64(n))},
				domain.Cause{}); err != nil {
				t.Fatal(err)
			}
		}
		for range 5 {
			if _, err := log.Append(t.Context(), events, domain.AppendOptions{}); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// An owner that hangs in the middle of a transaction, which no timeout ends while Postgres
// waits for its data, does not delay the next owner.
func TestHangingTransactionIsEnded(t *testing.T) {
	t.Parallel()
	b := setup(t)
	log := openLog(t, redistest.URL(t), b.store)
	const system = domain.SystemID("hanging")
	partition := log.Partition(system)
	b.exec(t, "INSERT INTO checkpoints (partition) VALUES ($1)", partition)
	hanging, err := b.owner.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer hanging.Rollback(context.Background())
	for _, statement := range []string{
		"SELECT pg_advisory_xact_lock(x'706c756a'::int, $1)", "UPDATE checkpoints SET position_ms = 7 WHERE partition = $1",
	} {
		if _, err := hanging.Exec(t.Context(), statement, partition); err != nil {
			t.Fatal(err)
		}
	}
	startWorker(t, b, log, newJobs())
	at := append1(t, log, system, 1)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	st, err := b.store.WholeState(ctx, staff, system, domain.Position{})
	for err == nil && st.Cursor.Position != at {
		if err = b.store.WaitFor(ctx, partition, at); err == nil {
			st, err = b.store.WholeState(ctx, staff, system, domain.Position{})
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := hanging.Commit(t.Context()); err == nil {
		t.Error("the hanging transaction was committed after all")
	}
}

// These variables make the test binary a process that is a worker only.
const (
	childPostgres = "PLUGCAST_TEST_CHILD_POSTGRES"
	childRedis    = "PLUGCAST_TEST_CHILD_REDIS"
)

// beChild runs a worker until it is killed.
func beChild(postgresURL, redisURL string) error {
	ctx := context.Background()
	store, err := projections.Open(ctx, projections.Config{URL: postgresURL})
	if err != nil {
		return err
	}
	log, err := streams.Open(ctx, streams.Config{URL: redisURL, Partitions: testPartitions, Floor: store.Checkpoint})
	if err != nil {
		return err
	}
	return projections.NewWorker(projections.WorkerConfig{Store: store, Log: log}).Run(ctx)
}

// The owner trims archived and old entries.
func TestWorkerTrimsTheLog(t *testing.T) {
	t.Parallel()
	b := setup(t)
	log, err := streams.Open(t.Context(), streams.Config{
		URL: redistest.URL(t), Partitions: testPartitions, Floor: b.store.Checkpoint, Retention: time.Nanosecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	w := projections.NewWorker(projections.WorkerConfig{Store: b.store, Log: log, TrimEvery: 20 * time.Millisecond, Logger: testLogger(t)})
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	const system = domain.SystemID("trim")
	at := append1(t, log, system, 0)
	testpeer.Eventually(t, "the log begins behind what is archived", func() bool {
		origin, err := log.Origin(t.Context(), log.Partition(system))
		return err == nil && origin == at
	})
	at = append1(t, log, system, 1)
	waiting, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := b.store.WaitFor(waiting, log.Partition(system), at); err != nil {
		t.Error(err)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestWorkerRefusesAnotherNumberOfPartitions(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.exec(t, "INSERT INTO deployment (partitions) VALUES (7)")
	err := projections.NewWorker(projections.WorkerConfig{Store: b.store, Log: newScript()}).Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "7 partitions") {
		t.Errorf("got %v", err)
	}
}

// owning collects the owned partitions that a worker logs, one entry for each line at level
// info.
type owning struct {
	slog.Handler
	mu    sync.Mutex
	lines []string
}

func (o *owning) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelInfo }

func (o *owning) Handle(_ context.Context, r slog.Record) error {
	line := r.Message
	r.Attrs(func(a slog.Attr) bool { line += fmt.Sprint(" ", a.Value); return true })
	o.mu.Lock()
	defer o.mu.Unlock()
	o.lines = append(o.lines, line)
	return nil
}

func (o *owning) said() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.lines)
}

// The start of a worker is logged in one line, for any number of partitions, and so is each
// change.
func TestWorkerSaysWhatItOwnsOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	log := openLog(t, redistest.URL(t), b.store)
	said := &owning{Handler: slog.DiscardHandler}
	w := projections.NewWorker(projections.WorkerConfig{Store: b.store, Log: log, Logger: slog.New(said)})
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	defer func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	testpeer.Eventually(t, "it says that it owns something", func() bool { return len(said.said()) > 0 })
	if lines := said.said(); !slices.Equal(lines, []string{"partitions owned [0 1 2 3]"}) {
		t.Errorf("said at the start: %q", lines)
	}
	startWorker(t, b, log, newJobs())
	testpeer.Eventually(t, "it owns half and says so", func() bool {
		lines := said.said()
		owned := w.Owned()
		return len(owned) == testPartitions/2 && lines[len(lines)-1] == fmt.Sprint("partitions owned ", owned)
	})
	if lines := said.said(); len(lines) != 2 {
		t.Errorf("said of one change: %q", lines)
	}
}
