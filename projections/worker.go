package projections

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/domain/backoff"
	"github.com/plugcast/plugcast/domain/isolate"
)

// DefaultLeaseTimeout is, by default, how long a worker keeps its partitions without sending
// Postgres a statement.
const DefaultLeaseTimeout = 3 * time.Second

// DefaultTrimEvery is the default interval at which an owner trims archived and old entries
// from the log.
const DefaultTrimEvery = time.Minute

// A Job is work that the owner of a partition does besides projecting it. The worker calls it
// when it acquires the partition. The job runs until ctx ends, which means that the partition
// is lost or to be given back. This worker gives the partition to no other worker before the
// job has returned. A worker that lost its session cannot wait for that, so the same job may
// run elsewhere until this worker notices. A job that returns early is not called again until
// the partition is acquired again; a job that panics is.
type Job func(ctx context.Context, partition int)

// WorkerConfig holds the settings of a [Worker]. Store and Log are required.
type WorkerConfig struct {
	Store *Store
	Log   Log
	// LeaseTimeout is how long a worker keeps its partitions without sending Postgres a
	// statement; [DefaultLeaseTimeout] if 0. A running worker sends about six in that time.
	LeaseTimeout time.Duration
	// TrimEvery is the interval at which the log is trimmed; [DefaultTrimEvery] if 0.
	TrimEvery time.Duration
	// Jobs run for each owned partition, each in a goroutine of its own.
	Jobs []Job
	// Logger gets the owned partitions at every change, and failures. Nil discards them.
	Logger *slog.Logger
}

// Worker owns its even share of the partitions among all live workers, and projects each of
// them.
type Worker struct {
	store        *Store
	log          Log
	leaseTimeout time.Duration
	trim         time.Duration
	jobs         []Job
	logger       *slog.Logger

	mu    sync.Mutex
	terms map[int]*leaseTerm
}

// leaseTerm is the ownership of one partition, from acquiring it until everything that ran for
// it has ended.
type leaseTerm struct {
	stop     context.CancelFunc
	stopping bool          // stop was called
	done     chan struct{} // closed once nothing runs for it any more
}

// NewWorker returns a Worker. It starts nothing.
func NewWorker(cfg WorkerConfig) *Worker {
	w := &Worker{
		store: cfg.Store, log: cfg.Log, leaseTimeout: cfg.LeaseTimeout, trim: cfg.TrimEvery, jobs: cfg.Jobs, logger: cfg.Logger,
		terms: map[int]*leaseTerm{},
	}
	if w.leaseTimeout == 0 {
		w.leaseTimeout = DefaultLeaseTimeout
	}
	if w.trim == 0 {
		w.trim = DefaultTrimEvery
	}
	if w.logger == nil {
		w.logger = slog.New(slog.DiscardHandler)
	}
	return w
}

// Owned returns the partitions that are owned now, in order.
func (w *Worker) Owned() []int {
	w.mu.Lock()
	defer w.mu.Unlock()
	owned := []int{}
	for partition, t := range w.terms {
		if !t.stopping {
			owned = append(owned, partition)
		}
	}
	slices.Sort(owned)
	return owned
}

// Run owns and projects partitions until ctx ends, and returns nil once everything has stopped
// and is given back. It survives losses of the database. It fails only if the database belongs
// to a deployment with another number of partitions.
func (w *Worker) Run(ctx context.Context) error {
	defer w.stopAll()
	away := false
	for ctx.Err() == nil {
		err := w.holdLease(ctx, func() { away = false })
		w.stopAll()
		if mismatch := new(partitionsError); errors.As(err, &mismatch) {
			return err
		}
		if ctx.Err() == nil && !away {
			w.logger.Warn("lost the session that holds the partitions; stopped, and trying again", "error", err)
			away = true
		}
		_ = backoff.Sleep(ctx, backoff.Jitter(w.tick()))
	}
	return nil
}

func (w *Worker) tick() time.Duration { return w.leaseTimeout / 6 }

// holdLease keeps a lease and the right number of partitions until an error. It calls working
// once it has the lease.
func (w *Worker) holdLease(ctx context.Context, working func()) error {
	if err := w.store.claimPartitions(ctx, w.log.Partitions()); err != nil {
		return err
	}
	l, err := openLease(ctx, w.store.pool.Config().ConnConfig, w.leaseTimeout)
	if err != nil {
		return err
	}
	defer l.close()
	// Everything that runs under the locks must stop before they are released.
	defer w.stopAll()
	working()
	var logged []int
	for ctx.Err() == nil {
		if err := w.rebalance(ctx, l); err != nil {
			return err
		}
		if owned := w.Owned(); !slices.Equal(owned, logged) {
			w.logger.Info("partitions owned", "partitions", owned)
			logged = owned
		}
		_ = backoff.Sleep(ctx, backoff.Jitter(w.tick()))
	}
	return ctx.Err()
}

// rebalance compares the owned partitions with this worker's share, and stops, releases and acquires
// partitions. It never waits for running work to stop, because the session must not idle.
func (w *Worker) rebalance(ctx context.Context, l *lease) error {
	o, err := l.inspect(ctx, w.log.Partitions())
	if err != nil {
		return err
	}
	if err := w.releaseStopped(ctx, l); err != nil {
		return err
	}
	w.stopSurplus(o)
	owned := len(w.Owned())
	start := rand.N(w.log.Partitions())
	for i := range w.log.Partitions() {
		partition := (start + i) % w.log.Partitions()
		if _, held := o.held[partition]; held || owned >= o.share {
			continue
		}
		acquired, err := l.acquire(ctx, partition)
		if err != nil {
			return fmt.Errorf("acquire partition %d: %w", partition, err)
		}
		if acquired {
			w.start(ctx, partition)
			owned++
		}
	}
	return nil
}

// releaseStopped releases the partitions for which nothing runs any more.
func (w *Worker) releaseStopped(ctx context.Context, l *lease) error {
	w.mu.Lock()
	var ended []int
	for partition, t := range w.terms {
		if t.stopping && isClosed(t.done) {
			ended = append(ended, partition)
			delete(w.terms, partition)
		}
	}
	w.mu.Unlock()
	for _, partition := range ended {
		if err := l.release(ctx, partition); err != nil {
			return fmt.Errorf("release partition %d: %w", partition, err)
		}
		w.logger.Debug("partition released", "partition", partition)
	}
	return nil
}

// stopSurplus stops the work for partitions beyond the share, and for those that this worker no
// longer owns according to Postgres.
func (w *Worker) stopSurplus(o ownership) {
	owned := w.Owned()
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, partition := range owned {
		if i >= o.share || !o.held[partition] {
			w.terms[partition].stopping = true
			w.terms[partition].stop()
		}
	}
}

// start starts the work for an acquired partition.
func (w *Worker) start(ctx context.Context, partition int) {
	ctx, cancel := context.WithCancel(ctx)
	t := &leaseTerm{stop: cancel, done: make(chan struct{})}
	w.mu.Lock()
	w.terms[partition] = t
	w.mu.Unlock()
	w.logger.Debug("partition acquired", "partition", partition)
	var running sync.WaitGroup
	running.Go(func() { w.project(ctx, partition) })
	running.Go(func() { isolate.Loop(ctx, w.logger, "trimming the log", func() { w.expire(ctx, partition) }) })
	for _, job := range w.jobs {
		running.Go(func() { isolate.Loop(ctx, w.logger, "job of a partition", func() { job(ctx, partition) }) })
	}
	go func() {
		running.Wait()
		close(t.done)
	}()
}

// stopAll stops all work and waits for it.
func (w *Worker) stopAll() {
	w.mu.Lock()
	terms := w.terms
	w.terms = map[int]*leaseTerm{}
	for _, t := range terms {
		t.stop()
	}
	w.mu.Unlock()
	for _, t := range terms {
		<-t.done
	}
}

// The shortest and the longest pause between attempts of a projector that fails.
const (
	firstRetry = 100 * time.Millisecond
	lastRetry  = 5 * time.Second
)

// project runs the projector, and again after each failure, until ctx ends.
func (w *Worker) project(ctx context.Context, partition int) {
	projector := NewProjector(w.store, w.log, partition)
	retry := backoff.Backoff{First: firstRetry, Max: lastRetry}
	defer w.store.failing.clear(partition)
	var last domain.Position
	for {
		err := w.store.endStaleTransaction(ctx, partition)
		if err == nil {
			err = isolate.Run(w.logger, foldName, func() error { return projector.Run(ctx) })
		}
		if ctx.Err() != nil {
			return
		}
		w.store.failing.note(partition, err)
		w.logger.Error("cannot project; trying again from the checkpoint", "partition", partition, "error", err)
		if projector.at != last {
			last = projector.at
			retry.Reset()
		}
		_ = retry.Wait(ctx)
	}
}

// expire trims the log at intervals until ctx ends.
func (w *Worker) expire(ctx context.Context, partition int) {
	for {
		if backoff.Sleep(ctx, backoff.Jitter(w.trim)) != nil {
			return
		}
		archived, err := w.store.Checkpoint(ctx, partition)
		if err == nil {
			err = w.log.Expire(ctx, partition, archived, time.Now())
		}
		if err != nil && ctx.Err() == nil {
			w.logger.Warn("cannot trim the log", "partition", partition, "error", err)
		}
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
