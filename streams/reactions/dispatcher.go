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

// Reaction handles one event. It may run again for the same event after an
// error, and runs in every process, so it must be safe to repeat. ctx ends with
// the process, or after [Limits.Time]: a reaction must return then.
type Reaction func(ctx context.Context, e domain.Event) error

// Permanent marks an error that trying again does not mend: the event becomes a
// dead letter at once.
func Permanent(err error) error { return &permanentError{err} }

type permanentError struct{ error }

func (e *permanentError) Unwrap() error { return e.error }

// Limits bound what reactions take. Fields that are 0 take the default.
type Limits struct {
	// Workers is how many reactions that began within the last Moment run at a time;
	// 16. Moment is 50 ms. Reactions that take longer leave their worker to others, so
	// that systems which all begin to hang do not delay the rest; Most is how many
	// run at a time in all, 16 times Workers. Systems whose last event failed or was slow
	// have at most half of Workers and of Most.
	Workers, Most int
	Moment        time.Duration
	// QueueEvents and QueueBytes bound the queue of one system; 256 and 256 KiB. What
	// does not fit is read from the log again.
	QueueEvents, QueueBytes int
	// TotalBytes bounds all queues; 16 MiB.
	TotalBytes int
	// Time bounds one run of a reaction; 15 s.
	Time time.Duration
	// Slow is how long a run takes after which its system counts as slow; 1 s.
	Slow time.Duration
	// Tries is how often an event is tried; 6. The pause after the first failure is
	// FirstPause, 100 ms, and doubles up to LongestPause, 2 s. No try begins later than
	// GiveUpAfter, 20 s, after the first.
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
	set(&l.Most, 16*l.Workers)
	setTime(&l.Moment, 50*time.Millisecond)
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
	// pageSize is how many entries are read at a time for a system that is behind.
	pageSize = 1000
	// readTimeout bounds one such read.
	readTimeout = 10 * time.Second
	// buryTimeout bounds the writing of a dead letter.
	buryTimeout = 2 * time.Second
)

// Log is where a system that fell behind is read from: a [streams.Log].
type Log interface {
	Read(ctx context.Context, partition int, after domain.Position, limit int) ([]domain.Event, error)
	Nearest(ctx context.Context, partition int, at domain.Position) (domain.Position, error)
}

// Config says what a [Dispatcher] works with. DeadLetters and Logger may be nil.
type Config struct {
	On  map[domain.EventType]Reaction
	Log Log
	// DeadLetters keeps the events that were given up.
	DeadLetters interface {
		Put(ctx context.Context, letter domain.DeadLetter) error
	}
	Node   string // the name of this process, for dead letters
	Limits Limits
	Logger *slog.Logger
}

// Stats are figures of a [Dispatcher].
type Stats struct {
	Queued  int    // events that wait in memory
	Behind  int    // systems that have more events in the log than fit in memory
	Paused  int    // systems whose first event failed and is tried again
	Failed  uint64 // runs of reactions that failed, ever
	Dead    uint64 // events that were given up, ever
	Handled uint64 // events that were handled, ever
}

// Dispatcher runs reactions. [Dispatcher.Hear] takes events at any time;
// [Dispatcher.Run] works on them.
type Dispatcher struct {
	config Config
	logger *slog.Logger

	mu     sync.Mutex
	wake   *sync.Cond // there may be a turn, or ending is set
	queues *queues
	ending bool
	stats  Stats

	reading chan struct{} // bounds the pages in memory
}

// New makes a Dispatcher.
func New(c Config) *Dispatcher {
	c.Limits = c.Limits.withDefaults()
	d := &Dispatcher{config: c, logger: c.Logger, queues: newQueues(c.Limits, c.On), reading: make(chan struct{}, c.Limits.Workers)}
	if d.logger == nil {
		d.logger = slog.New(slog.DiscardHandler)
	}
	d.wake = sync.NewCond(&d.mu)
	return d
}

// Begin says that Hear gets the events of the partition from after the position
// on. It comes before the first Hear of a partition, and again when events are
// left out.
func (d *Dispatcher) Begin(partition int, at domain.Position) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.queues.begin(partition, at)
}

// Hear takes the next events of a partition, in order. It never waits.
func (d *Dispatcher) Hear(partition int, events []domain.Event) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.queues.hear(partition, events)
	d.wake.Broadcast()
}

// Stats returns the figures of now.
func (d *Dispatcher) Stats() Stats {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.stats
	s.Paused = len(d.queues.paused)
	for _, one := range d.queues.systems {
		s.Queued += len(one.events)
		if one.behind {
			s.Behind++
		}
	}
	return s
}

// Run works until ctx ends: each turn in a goroutine of its own.
func (d *Dispatcher) Run(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.ending = true
		d.wake.Broadcast()
	})()
	var turns sync.WaitGroup
	isolate.Loop(ctx, d.logger, "reactions", func() {
		for {
			j, ok := d.next()
			if !ok {
				return
			}
			turns.Go(func() { isolate.Do(d.logger, "reactions", func() { d.work(ctx, j) }) })
		}
	})
	turns.Wait()
	return ctx.Err()
}

// work takes a turn.
func (d *Dispatcher) work(ctx context.Context, j job) {
	if j.event == nil {
		var ok bool
		if j, ok = d.refill(ctx, j); !ok {
			return
		}
	}
	d.react(ctx, j)
}

// next waits for a turn; there is none when the process ends.
func (d *Dispatcher) next() (job, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for !d.ending {
		now := time.Now()
		if j, ok := d.queues.next(now); ok {
			return j, true
		}
		d.await(now)
	}
	return job{}, false
}

// await waits for a change of the queues, or for when they have a turn without
// one. d.mu is held.
func (d *Dispatcher) await(now time.Time) {
	if at := d.queues.again(); !at.IsZero() {
		defer time.AfterFunc(at.Sub(now), func() { d.change(func(*queues) {}) }).Stop()
	}
	d.wake.Wait()
}

// change changes the queues, and has Run look for a turn.
func (d *Dispatcher) change(f func(q *queues)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f(d.queues)
	d.wake.Broadcast()
}

// pause changes the queues so that a system pauses, and looks for a turn afterwards.
func (d *Dispatcher) pause(one *queue) {
	time.AfterFunc(time.Until(one.until), func() { d.change(func(*queues) {}) })
}

// refill reads a page for a system that is behind, and returns the turn of its
// first event.
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
			d.logger.Error("reactions: a part of the log was deleted before a system that is behind reached it",
				"system", j.queue.system, "after", j.after, "on from", to)
			d.change(func(q *queues) { q.skip(j, to) })
			return job{}, false
		}
	}
	if err != nil {
		if ctx.Err() == nil {
			d.logger.Warn("reactions: the log cannot be read for a system that is behind; trying again",
				"system", j.queue.system, "error", err)
		}
		d.change(func(q *queues) {
			q.unread(j, time.Now())
			d.pause(j.queue)
		})
		return job{}, false
	}
	d.change(func(q *queues) { next, ok = q.refilled(j, page) })
	return next, ok
}

// react takes the turn of an event.
func (d *Dispatcher) react(ctx context.Context, j job) {
	e := *j.event
	e.Data = append([]byte(nil), e.Data...) // a reaction may change it, and another try must not see that
	running, cancel := context.WithTimeout(ctx, d.config.Limits.Time)
	defer cancel()
	began := time.Now()
	err := isolate.Run(d.logger, "reaction to "+string(e.Type), func() error { return d.config.On[e.Type](running, e) })
	if ctx.Err() != nil {
		return // the process ends; nothing more is begun
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
	var permanent *permanentError
	var panicked *isolate.PanicError
	_, unreadable := e.Decode()
	forGood := errors.As(err, &permanent) || errors.As(err, &panicked) || unreadable != nil
	again := false
	d.change(func(q *queues) {
		d.stats.Failed++
		if !forGood {
			if again = q.failed(j, now); again {
				d.pause(j.queue)
			}
		}
	})
	if again {
		d.logger.Debug("reactions: a reaction failed; trying again", "system", e.SystemID, "id", e.ID, "try", j.tries, "error", err)
		return
	}
	d.bury(ctx, &e, j.tries, err)
	d.change(func(q *queues) {
		d.stats.Dead++
		q.done(j, true)
	})
}

// bury logs and keeps an event that is given up.
func (d *Dispatcher) bury(ctx context.Context, e *domain.Event, tries int, why error) {
	d.logger.Error("reactions: gave up an event; it is now a dead letter", "system", e.SystemID, "id", e.ID,
		"position", e.Position.String(), "type", e.Type, "tries", tries, "error", why)
	if d.config.DeadLetters == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, buryTimeout)
	defer cancel()
	letter := domain.DeadLetter{
		SystemID: e.SystemID, EventID: e.ID, Position: e.Position, Type: e.Type, Node: d.config.Node,
		Tries: tries, Error: why.Error(), Time: time.Now().UTC(),
	}
	if err := isolate.Run(d.logger, "dead letters", func() error { return d.config.DeadLetters.Put(ctx, letter) }); err != nil {
		d.logger.Error("reactions: a dead letter could not be kept", "id", e.ID, "error", err)
	}
}
