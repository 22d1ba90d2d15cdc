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

// DefaultTerm is how long a worker keeps its partitions when it does not answer.
const DefaultTerm = 3 * time.Second

// DefaultTrimEvery is how often an owner trims what is archived and old from the
// log.
const DefaultTrimEvery = time.Minute

// A Duty is what an owner does for a partition besides projecting it. It is
// called when the partition is acquired and goes on until ctx ends, which says
// that the partition is lost or to be given back. Nobody else gets the partition
// from this worker before the duty has returned; a worker that lost its session
// cannot wait, so for the moment it takes to notice, another may be on the same
// duty elsewhere. A duty that returns early is not called again for this tenure; one
// that panics is.
type Duty func(ctx context.Context, partition int)

// WorkerConfig says what a [Worker] works on. Store and Log are required.
type WorkerConfig struct {
	Store *Store
	Log   Log
	// Term is how long Postgres waits for a worker that does not answer before
	// its partitions are free for others; [DefaultTerm] when 0. A worker looks
	// around six times as often.
	Term time.Duration
	// TrimEvery is how often the log is trimmed; [DefaultTrimEvery] when 0.
	TrimEvery time.Duration
	// Duties run for each owned partition, each in a goroutine of its own.
	Duties []Duty
	// Logger gets which partitions are owned, at every change, and what fails. Nil
	// drops it.
	Logger *slog.Logger
}

// Worker owns partitions, its even share of them among all workers that live,
// and projects each.
type Worker struct {
	store  *Store
	log    Log
	term   time.Duration
	trim   time.Duration
	duties []Duty
	logger *slog.Logger

	mu      sync.Mutex
	tenures map[int]*tenure
}

// tenure is the ownership of one partition, from acquiring it until everything
// that ran for it has ended.
type tenure struct {
	leave context.CancelFunc
	left  bool          // leave was called
	ended chan struct{} // closed when nothing runs for it any more
}

// NewWorker makes a Worker. It does nothing until Run.
func NewWorker(cfg WorkerConfig) *Worker {
	w := &Worker{
		store: cfg.Store, log: cfg.Log, term: cfg.Term, trim: cfg.TrimEvery, duties: cfg.Duties, logger: cfg.Logger,
		tenures: map[int]*tenure{},
	}
	if w.term == 0 {
		w.term = DefaultTerm
	}
	if w.trim == 0 {
		w.trim = DefaultTrimEvery
	}
	if w.logger == nil {
		w.logger = slog.New(slog.DiscardHandler)
	}
	return w
}

// Owned lists the partitions that are owned now, in order.
func (w *Worker) Owned() []int {
	w.mu.Lock()
	defer w.mu.Unlock()
	owned := []int{}
	for partition, t := range w.tenures {
		if !t.left {
			owned = append(owned, partition)
		}
	}
	slices.Sort(owned)
	return owned
}

// Run works until ctx ends, and returns nil once everything has stopped and was
// given back. It goes on over losses of the database. It fails only when the
// database belongs to a deployment with another number of partitions.
func (w *Worker) Run(ctx context.Context) error {
	defer w.leaveAll()
	away := false
	for ctx.Err() == nil {
		err := w.hold(ctx, func() { away = false })
		w.leaveAll()
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

func (w *Worker) tick() time.Duration { return w.term / 6 }

// hold keeps a lease and the right number of partitions until it fails.
func (w *Worker) hold(ctx context.Context, working func()) error {
	if err := w.store.claimPartitions(ctx, w.log.Partitions()); err != nil {
		return err
	}
	l, err := takeLease(ctx, w.store.pool.Config().ConnConfig, w.term)
	if err != nil {
		return err
	}
	defer l.end()
	// Before the locks go, what runs under them is told to stop.
	defer w.leaveAll()
	working()
	var told []int
	for ctx.Err() == nil {
		if err := w.adjust(ctx, l); err != nil {
			return err
		}
		if owned := w.Owned(); !slices.Equal(owned, told) {
			w.logger.Info("partitions owned", "partitions", owned)
			told = owned
		}
		_ = backoff.Sleep(ctx, backoff.Jitter(w.tick()))
	}
	return ctx.Err()
}

// adjust compares what this worker has with what it should have. It never waits
// for what runs to stop, because the session must not idle.
func (w *Worker) adjust(ctx context.Context, l *lease) error {
	f, err := l.look(ctx, w.log.Partitions())
	if err != nil {
		return err
	}
	if err := w.giveBack(ctx, l); err != nil {
		return err
	}
	w.leaveSurplus(f)
	owned := len(w.Owned())
	start := rand.N(w.log.Partitions())
	for i := range w.log.Partitions() {
		partition := (start + i) % w.log.Partitions()
		if _, held := f.held[partition]; held || owned >= f.quota {
			continue
		}
		taken, err := l.try(ctx, partition)
		if err != nil {
			return fmt.Errorf("acquire partition %d: %w", partition, err)
		}
		if taken {
			w.enter(ctx, partition)
			owned++
		}
	}
	return nil
}

// giveBack frees the partitions for which nothing runs any more.
func (w *Worker) giveBack(ctx context.Context, l *lease) error {
	w.mu.Lock()
	var ended []int
	for partition, t := range w.tenures {
		if t.left && isClosed(t.ended) {
			ended = append(ended, partition)
			delete(w.tenures, partition)
		}
	}
	w.mu.Unlock()
	for _, partition := range ended {
		if err := l.give(ctx, partition); err != nil {
			return fmt.Errorf("release partition %d: %w", partition, err)
		}
		w.logger.Debug("partition released", "partition", partition)
	}
	return nil
}

// leaveSurplus begins to leave what is more than the quota, and what is not ours
// as Postgres sees it.
func (w *Worker) leaveSurplus(f field) {
	owned := w.Owned()
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, partition := range owned {
		if i >= f.quota || !f.held[partition] {
			w.tenures[partition].left = true
			w.tenures[partition].leave()
		}
	}
}

// enter begins a tenure.
func (w *Worker) enter(ctx context.Context, partition int) {
	ctx, cancel := context.WithCancel(ctx)
	t := &tenure{leave: cancel, ended: make(chan struct{})}
	w.mu.Lock()
	w.tenures[partition] = t
	w.mu.Unlock()
	w.logger.Debug("partition acquired", "partition", partition)
	var running sync.WaitGroup
	running.Go(func() { w.project(ctx, partition) })
	running.Go(func() { isolate.Loop(ctx, w.logger, "trimming the log", func() { w.expire(ctx, partition) }) })
	for _, duty := range w.duties {
		running.Go(func() { isolate.Loop(ctx, w.logger, "duty of a partition", func() { duty(ctx, partition) }) })
	}
	go func() {
		running.Wait()
		close(t.ended)
	}()
}

// leaveAll stops all that runs and waits for it.
func (w *Worker) leaveAll() {
	w.mu.Lock()
	tenures := w.tenures
	w.tenures = map[int]*tenure{}
	for _, t := range tenures {
		t.leave()
	}
	w.mu.Unlock()
	for _, t := range tenures {
		<-t.ended
	}
}

// Pauses between tries of a projector that fails.
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
		err := w.store.evict(ctx, partition)
		if err == nil {
			err = isolate.Run(w.logger, whereFold, func() error { return projector.Run(ctx) })
		}
		if ctx.Err() != nil {
			return
		}
		w.store.failing.note(partition, err)
		w.logger.Error("projecting failed; trying again from the checkpoint", "partition", partition, "error", err)
		if projector.at != last {
			last = projector.at
			retry.Reset()
		}
		_ = retry.Wait(ctx)
	}
}

// expire trims the log now and then until ctx ends.
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
			w.logger.Warn("trimming the log failed", "partition", partition, "error", err)
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
