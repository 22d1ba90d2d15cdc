package streams

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/domain/backoff"
)

const (
	firstPause = 10 * time.Millisecond
	maxPause   = 2 * time.Second
)

// Follow calls fn with every event of the partition after the given position, as [Log.Read]
// describes them, in order, without gap and in batches, in the calling goroutine. It waits for
// new events, and continues over restarts of Redis. fn may keep the events but must not change
// them, because other consumers have the same.
//
// Follow returns the error of ctx within milliseconds of its end, [ErrClosed] if the log is
// closed, the error of fn as it is, or [ErrTrimmed] or [ErrRewound] if it cannot continue
// without a gap. The position need not be that of an event.
//
// All Follows of a process share one reader and its connection; see the package's
// documentation. A slow fn delays no other Follow.
func (l *Log) Follow(ctx context.Context, partition int, after domain.Position, fn func([]domain.Event) error) error {
	if !l.enter() {
		return ErrClosed
	}
	defer l.leave()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(l.closing, cancel)()
	c := &consumer{
		log: l, partition: partition, deliver: fn, wake: make(chan struct{}, 1), handover: handover{at: after},
		retry: backoff.Backoff{First: firstPause, Max: maxPause},
	}
	err := c.run(ctx)
	var given *deliverError
	switch {
	case errors.As(err, &given):
		return given.error
	case l.closing.Err() != nil:
		return ErrClosed
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return fmt.Errorf("streams: follow partition %d after %s: %w", partition, c.handover.at, err)
}

// deliverError is an error of Follow's fn.
type deliverError struct{ error }

// consumer is one Follow: it reads pages on its own until they meet the live batches of the
// reader, and again after it was cut off from those.
type consumer struct {
	log       *Log
	partition int
	deliver   func([]domain.Event) error
	reader    *reader
	wake      chan struct{} // capacity 1: the reader offered a batch or cut the consumer off

	mu       sync.Mutex
	handover handover // guarded by mu

	// The fields below belong to Follow's goroutine.
	incarnation string // incarnation of the stream that handover.at comes from, "" until a page was read
	away        bool   // the last page could not be read
	retry       backoff.Backoff
}

// run delivers events until an error.
func (c *consumer) run(ctx context.Context) error {
	c.reader = c.log.attach(c)
	defer c.log.detach(c)
	defer func() {
		if c.away {
			c.log.outage.stopped()
		}
	}()
	for {
		c.mu.Lock()
		step, events := c.handover.next()
		c.mu.Unlock()
		var err error
		switch step {
		case stepDeliver:
			err = c.deliverBatch(ctx, events)
		case stepRead:
			err = c.catchUp(ctx)
		case stepWait:
			c.retry.Reset()
			select {
			case <-c.wake:
			case <-ctx.Done():
				err = ctx.Err()
			}
		}
		if err != nil {
			return err
		}
	}
}

func (c *consumer) deliverBatch(ctx context.Context, events []domain.Event) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := c.deliver(events); err != nil {
		return &deliverError{err}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.handover.delivered(events)
	return nil
}

// catchUp reads a page and delivers it. It joins the reader first, so that the reader's batches
// contain everything beyond the page.
func (c *consumer) catchUp(ctx context.Context) error {
	c.reader.join(c)
	c.mu.Lock()
	at, seen := c.handover.at, c.handover.seen
	c.mu.Unlock()
	p, err := c.log.readPage(ctx, c.partition, at, seen, c.incarnation)
	switch {
	case errors.Is(err, ErrTrimmed), errors.Is(err, ErrRewound):
		c.reconnected() // Redis did answer
		return err
	case err != nil && ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return c.disconnected(ctx, err)
	}
	c.reconnected()
	c.incarnation = p.incarnation
	if len(p.events) > 0 {
		c.retry.Reset()
		return c.deliverBatch(ctx, p.events)
	}
	c.mu.Lock()
	early := c.handover.reachedEnd(p.last)
	c.mu.Unlock()
	if !early && c.reader.join(c) {
		return nil
	}
	c.reader.requestCheck(ctx, c)
	return c.pause(ctx, c.wake)
}

// disconnected notes that a page could not be read, and waits for a growing pause.
func (c *consumer) disconnected(ctx context.Context, err error) error {
	if !c.away {
		c.log.outage.disconnected(slog.Int("partition", c.partition), err)
		c.away = true
	}
	return c.pause(ctx, nil)
}

// reconnected notes that a page could be read.
func (c *consumer) reconnected() {
	if c.away {
		c.log.outage.reconnected(slog.Int("partition", c.partition))
		c.away = false
	}
}

// pause waits for a pause that grows until events come, or until a wake.
func (c *consumer) pause(ctx context.Context, wake <-chan struct{}) error {
	return backoff.SleepOr(ctx, c.retry.Next(), wake)
}

// offer takes a batch from the reader. It never waits for the consumer.
func (c *consumer) offer(b batch) {
	defer signal(c.wake)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.handover.offer(b)
}

// cut makes the consumer read on its own. The reader calls it.
func (c *consumer) cut() {
	defer signal(c.wake)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.handover.cut()
}
