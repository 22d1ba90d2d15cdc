package reactions

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/domain/isolate"
	"github.com/plugcast/plugcast/streams"
)

// Limits bound the resources that reactions use. Fields that are 0 take their default.
type Limits struct {
	// Workers is the most reactions that may run within their first QuickTime; default 16.
	// QuickTime is 50 ms by default. A reaction that takes longer frees its worker, so that
	// systems that begin to hang together do not delay the rest. MaxRunning bounds all running
	// reactions; default 16 times Workers. Systems whose last event failed or was slow get at
	// most half of Workers and of MaxRunning.
	Workers, MaxRunning int
	QuickTime           time.Duration
	// QueueEvents and QueueBytes bound the queue of one system; defaults 256 and 256 KiB.
	// Events beyond them are read from the log later.
	QueueEvents, QueueBytes int
	// TotalBytes bounds all queues together; default 16 MiB.
	TotalBytes int
	// Time bounds one run of a reaction; default 15 s.
	Time time.Duration
	// Slow is the duration from which on a run makes its system count as failing; default 1 s.
	Slow time.Duration
	// Tries is how often an event is tried; default 6. The pause after the first failure is
	// FirstPause, default 100 ms, and doubles up to LongestPause, default 2 s. No try begins
	// later than GiveUpAfter, default 20 s, after the first.
	Tries                                 int
	FirstPause, LongestPause, GiveUpAfter time.Duration
}

func (l Limits) withDefaults() Limits {
	set := func(value *int, to int) {
		if *value == 0 {
			*value = to
		}
	}
	setTime := func(value *time.Duration, to time.Duration) {
		if *value == 0 {
			*value = to
		}
	}
	set(&l.Workers, 16)
	set(&l.MaxRunning, 16*l.Workers)
	setTime(&l.QuickTime, 50*time.Millisecond)
	set(&l.QueueEvents, 256)
	set(&l.QueueBytes, 256<<10)
	set(&l.TotalBytes, 16<<20)
	set(&l.Tries, 6)
	setTime(&l.Time, 15*time.Second)
	setTime(&l.Slow, time.Second)
	setTime(&l.FirstPause, 100*time.Millisecond)
	setTime(&l.LongestPause, 2*time.Second)
	setTime(&l.GiveUpAfter, 20*time.Second)
	return l
}

const (
	// pageSize is the most entries of one page that is read for a system that is behind.
	pageSize = 1000
	// readTimeout bounds the reading of one page.
	readTimeout = 10 * time.Second
	// deadLetterTimeout bounds the writing of a dead letter.
	deadLetterTimeout = 2 * time.Second
)

// Log is the log as the dispatcher reads it for a system that is behind: a [streams.Log].
type Log interface {
	Read(ctx context.Context, partition int, after domain.Position, limit int) ([]domain.Event, error)
	Nearest(ctx context.Context, partition int, at domain.Position) (domain.Position, error)
}

// Config holds the reactions of a [Dispatcher] and what it works with. DeadLetters and Logger
// may be nil.
type Config struct {
	// On has the reactions by type of event. The context of each run ends after [Limits.Time].
	// A panic counts as a permanent error: see [domain.Permanent].
	On  map[domain.EventType]domain.Reaction
	Log Log
	// DeadLetters stores the events whose reaction was given up.
	DeadLetters interface {
		Put(ctx context.Context, letter domain.DeadLetter) error
	}
	Node   string // the name of this process, for dead letters
	Limits Limits
	Logger *slog.Logger
}

// Stats are figures of a [Dispatcher].
type Stats struct {
	Queued  int    // events in memory
	Behind  int    // systems with further events in the log that did not fit in memory
	Paused  int    // systems that wait before their first event is tried again
	Failed  uint64 // runs of reactions that failed, since the start
	Dead    uint64 // events that were given up, since the start
	Handled uint64 // events that were handled, since the start
}

// Dispatcher runs reactions. [Dispatcher.Add] takes events at any time; [Dispatcher.Run] works
// on them. It is safe for concurrent use.
type Dispatcher struct {
	config Config
	logger *slog.Logger

	mu     sync.Mutex
	wake   *sync.Cond // there may be a job, or ending was set
	queues *queues
	ending bool
	stats  Stats

	reading chan struct{} // semaphore that bounds the pages in memory
}

// New returns a Dispatcher. It starts nothing.
func New(c Config) *Dispatcher {
	c.Limits = c.Limits.withDefaults()
	d := &Dispatcher{config: c, logger: c.Logger, queues: newQueues(c.Limits, c.On), reading: make(chan struct{}, c.Limits.Workers)}
	if d.logger == nil {
		d.logger = slog.New(slog.DiscardHandler)
	}
	d.wake = sync.NewCond(&d.mu)
	return d
}

// StartAt sets the position from which on Add gets the events of the partition. It must be
// called before the first Add of a partition, and again if events are left out.
func (d *Dispatcher) StartAt(partition int, at domain.Position) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.queues.startAt(partition, at)
}

// Add takes the next events of a partition, in order. It never blocks.
func (d *Dispatcher) Add(partition int, events []domain.Event) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.queues.add(partition, events)
	d.wake.Broadcast()
}

// Stats returns the current figures.
func (d *Dispatcher) Stats() Stats {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.stats
	s.Paused = len(d.queues.paused)
	for _, queue := range d.queues.systems {
		s.Queued += len(queue.events)
		if queue.behind {
			s.Behind++
		}
	}
	return s
}

// Run runs reactions until ctx ends, each job in a goroutine of its own, waits for them, and
// returns nil. It is called once: the events that it leaves are read again after a start.
func (d *Dispatcher) Run(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.ending = true
		d.wake.Broadcast()
	})()
	var jobs sync.WaitGroup
	isolate.Loop(ctx, d.logger, "reactions", func() {
		for {
			j, ok := d.next()
			if !ok {
				return
			}
			jobs.Go(func() { isolate.Do(d.logger, "reactions", func() { d.work(ctx, j) }) })
		}
	})
	jobs.Wait()
	return nil
}

// work does a job.
func (d *Dispatcher) work(ctx context.Context, j job) {
	if j.event == nil {
		var ok bool
		if j, ok = d.refill(ctx, j); !ok {
			return
		}
	}
	d.react(ctx, j)
}

// next waits for a job. ok is false once the dispatcher is ending.
func (d *Dispatcher) next() (j job, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for !d.ending {
		now := time.Now()
		if j, ok := d.queues.next(now); ok {
			return j, true
		}
		d.waitForJob(now)
	}
	return job{}, false
}

// waitForJob waits until the queues change or may have a job without a change. The caller holds
// d.mu.
func (d *Dispatcher) waitForJob(now time.Time) {
	if at := d.queues.wakeAt(); !at.IsZero() {
		defer time.AfterFunc(at.Sub(now), func() { d.change(func(*queues) {}) }).Stop()
	}
	d.wake.Wait()
}

// change changes the queues and wakes Run.
func (d *Dispatcher) change(f func(q *queues)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f(d.queues)
	d.wake.Broadcast()
}

// wakeAfterPause wakes Run when the pause of a system ends.
func (d *Dispatcher) wakeAfterPause(s *queue) {
	time.AfterFunc(time.Until(s.until), func() { d.change(func(*queues) {}) })
}

// refill reads a page for a system that is behind, and returns the job of its first event.
func (d *Dispatcher) refill(ctx context.Context, j job) (next job, ok bool) {
	reading, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	partition := j.queue.partition
	var page []domain.Event
	err := isolate.Run(d.logger, "reactions", func() (err error) {
		select {
		case d.reading <- struct{}{}:
			defer func() { <-d.reading }()
		case <-reading.Done():
			return reading.Err()
		}
		page, err = d.config.Log.Read(reading, partition, j.after, pageSize)
		return err
	})
	if errors.Is(err, streams.ErrTrimmed) || errors.Is(err, streams.ErrRewound) {
		var to domain.Position
		if to, err = d.config.Log.Nearest(reading, partition, j.after); err == nil {
			d.logger.Error("reactions: part of the log was trimmed before a system that is behind read it",
				"system", j.queue.system, "after", j.after, "on from", to)
			d.change(func(q *queues) { q.skip(j, to) })
			return job{}, false
		}
	}
	if err != nil {
		if ctx.Err() == nil {
			d.logger.Warn("reactions: cannot read the log for a system that is behind; trying again",
				"system", j.queue.system, "error", err)
		}
		d.change(func(q *queues) {
			q.readFailed(j, time.Now())
			d.wakeAfterPause(j.queue)
		})
		return job{}, false
	}
	d.change(func(q *queues) { next, ok = q.refilled(j, page) })
	return next, ok
}

// react runs the reaction to an event.
func (d *Dispatcher) react(ctx context.Context, j job) {
	e := *j.event
	e.Data = append([]byte(nil), e.Data...) // a reaction may change it, and a retry must not see the change
	running, cancel := context.WithTimeout(ctx, d.config.Limits.Time)
	defer cancel()
	began := time.Now()
	err := isolate.Run(d.logger, "reaction to "+string(e.Type), func() error { return d.config.On[e.Type](running, e) })
	if ctx.Err() != nil {
		return // the process is ending
	}
	now := time.Now()
	slow := now.Sub(began) >= d.config.Limits.Slow
	if err == nil {
		d.change(func(q *queues) {
			d.stats.Handled++
			q.done(j, slow)
		})
		return
	}
	var panicked *isolate.PanicError
	_, unreadable := e.Decode()
	permanent := domain.IsPermanent(err) || errors.As(err, &panicked) || unreadable != nil
	again := false
	d.change(func(q *queues) {
		d.stats.Failed++
		if !permanent {
			if again = q.failed(j, now); again {
				d.wakeAfterPause(j.queue)
			}
		}
	})
	if again {
		d.logger.Debug("reactions: a reaction failed; trying again", "system", e.SystemID, "id", e.ID, "try", j.tries, "error", err)
		return
	}
	d.giveUp(ctx, &e, j.tries, err)
	d.change(func(q *queues) {
		d.stats.Dead++
		q.done(j, true)
	})
}

// giveUp logs an event whose reaction is given up, and stores it as a dead letter.
func (d *Dispatcher) giveUp(ctx context.Context, e *domain.Event, tries int, why error) {
	d.logger.Error("reactions: gave up on an event; it is now a dead letter", "system", e.SystemID, "id", e.ID,
		"position", e.Position.String(), "type", e.Type, "tries", tries, "error", why)
	if d.config.DeadLetters == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, deadLetterTimeout)
	defer cancel()
	letter := domain.DeadLetter{
		SystemID: e.SystemID, EventID: e.ID, Position: e.Position, Type: e.Type, Node: d.config.Node,
		Tries: tries, Error: why.Error(), Time: time.Now().UTC(),
	}
	if err := isolate.Run(d.logger, "dead letters", func() error { return d.config.DeadLetters.Put(ctx, letter) }); err != nil {
		d.logger.Error("reactions: cannot store a dead letter", "id", e.ID, "error", err)
	}
}
