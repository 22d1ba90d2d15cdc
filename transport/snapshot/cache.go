package snapshot

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/domain/isolate"
	"github.com/plugcast/plugcast/transport/admission"
)

// Source writes snapshots. It is safe for concurrent use.
type Source interface {
	// WriteSnapshot calls write with the current state of a system as the JSON of a
	// [domain.Snapshot], in pieces that write must not keep, and returns the place of that
	// state. If write fails, WriteSnapshot stops and returns that error.
	WriteSnapshot(ctx context.Context, system domain.SystemID, write func([]byte) error) (domain.Cursor, error)
	// Base returns the place whose state WriteSnapshot would write now (head), and the
	// position up to which the system's partition is projected (checkpoint).
	Base(ctx context.Context, system domain.SystemID) (checkpoint domain.Position, head domain.Cursor, err error)
}

// Config holds the dependencies of a [Cache]. A nil Work or Memory sets no limit.
type Config struct {
	Source  Source
	Work    *admission.Controller // admits each read, at Cost
	Cost    int
	Memory  *admission.Controller // counts the bytes of held snapshots
	Timeout time.Duration         // of one read
	Logger  *slog.Logger          // logs panics; nil drops them
}

// Cache makes snapshots. It is safe for concurrent use.
//
// It makes one snapshot of a system at a time. Callers that arrive in the meantime share the
// next one, so each gets a snapshot that was begun after its call, and a thousand concurrent
// callers cause two reads. If a snapshot is still held and the system has not changed since,
// the cache returns that snapshot.
type Cache struct {
	config Config
	ctx    context.Context // ends when the cache is closed
	close  context.CancelFunc
	making sync.WaitGroup

	mu      sync.Mutex
	systems map[domain.SystemID]*line
}

// line holds the snapshots of one system. It exists while a snapshot is being made or held.
type line struct {
	next   *making   // the one that new callers will share; nil when no caller waits for it
	busy   bool      // a snapshot is being made
	newest *Snapshot // nil if no caller holds it
}

// making is a snapshot that is being made, or will be next.
type making struct {
	ctx     context.Context // ends when no caller waits for it any longer
	cancel  context.CancelFunc
	waiting int // guarded by the cache's lock

	done chan struct{} // closed when made or err is set
	made *Snapshot     // has a holder for each waiting caller
	err  error
}

// New makes a Cache. The caller must call [Cache.Close].
func New(c Config) *Cache {
	cache := &Cache{config: c, systems: map[domain.SystemID]*line{}}
	cache.ctx, cache.close = context.WithCancel(context.Background())
	return cache
}

// Close cancels the snapshots in progress; waiting callers get an error.
func (c *Cache) Close() {
	c.mu.Lock() // join starts nothing behind it
	c.close()
	c.mu.Unlock()
	c.making.Wait()
}

// Snapshot returns a snapshot that is not older than the call. The caller must Release it.
// It fails with [admission.CodeBusy] if the system causes too much work or holds too many
// bytes, and with ctx's error, which ends only this caller's wait. A read that takes longer
// than Config.Timeout fails with [context.DeadlineExceeded]; a caller waits for at most two
// reads.
func (c *Cache) Snapshot(ctx context.Context, system domain.SystemID) (*Snapshot, error) {
	m := c.join(system)
	select {
	case <-m.done:
		return m.made, m.err
	case <-ctx.Done():
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-m.done: // at the same time
		return m.made, m.err
	default:
	}
	if m.waiting--; m.waiting == 0 {
		m.cancel()
	}
	return nil, ctx.Err()
}

// join adds the caller to those that wait for the next snapshot.
func (c *Cache) join(system domain.SystemID) *making {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.ctx.Err(); err != nil {
		closed := &making{done: make(chan struct{}), err: fmt.Errorf("snapshot: %w", err)}
		close(closed.done)
		return closed
	}
	l := c.systems[system]
	if l == nil {
		l = &line{}
		c.systems[system] = l
	}
	if l.next == nil || l.next.waiting == 0 {
		l.next = &making{done: make(chan struct{})}
		l.next.ctx, l.next.cancel = context.WithCancel(c.ctx)
	}
	l.next.waiting++
	if !l.busy {
		l.busy = true
		c.making.Go(func() { c.make(system, l) })
	}
	return l.next
}

// make makes one snapshot after the other, as long as callers wait.
func (c *Cache) make(system domain.SystemID, l *line) {
	for {
		c.mu.Lock()
		m := l.next
		if l.next = nil; m == nil {
			l.busy = false
			c.forget(system, l)
			c.mu.Unlock()
			return
		}
		last := l.newest
		c.mu.Unlock()

		var made *Snapshot
		err := isolate.Run(c.config.Logger, "snapshot", func() (err error) {
			ctx, cancel := context.WithTimeout(m.ctx, c.config.Timeout)
			defer cancel()
			made, err = c.load(ctx, system, last)
			return err
		})

		c.mu.Lock()
		if m.err = err; made != nil {
			l.newest = made
			if m.waiting > 0 {
				m.made = made
				made.holders.Add(int64(m.waiting))
			}
		}
		m.cancel()
		close(m.done)
		c.mu.Unlock()
		made.Release() // this method's own hold
	}
}

// freed runs when the last holder of a snapshot has released it.
func (c *Cache) freed(system domain.SystemID, s *Snapshot) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if l := c.systems[system]; l != nil && l.newest == s {
		l.newest = nil
		c.forget(system, l)
	}
}

// forget removes an unused line. The caller holds the lock.
func (c *Cache) forget(system domain.SystemID, l *line) {
	if l.newest == nil && l.next == nil && !l.busy {
		delete(c.systems, system)
	}
}

// load reads a snapshot for one holder, or returns the last one if it is still current.
func (c *Cache) load(ctx context.Context, system domain.SystemID, last *Snapshot) (*Snapshot, error) {
	if last != nil && last.hold() {
		_, head, err := c.config.Source.Base(ctx, system)
		if err == nil && head == last.Cursor {
			return last, nil
		}
		last.Release()
		if err != nil {
			return nil, fmt.Errorf("snapshot: %w", err)
		}
	}
	return c.read(ctx, system)
}

// firstBytes is the size that a snapshot counts for before its size is known.
const firstBytes = 64 << 10

func (c *Cache) read(ctx context.Context, system domain.SystemID) (*Snapshot, error) {
	grant, err := c.config.Memory.Admit(ctx, system, firstBytes)
	if err != nil {
		return nil, err
	}
	work, err := c.config.Work.Admit(ctx, system, c.config.Cost)
	if err != nil {
		grant.Release()
		return nil, err
	}
	defer work.Release()
	held := false
	defer func() {
		if !held { // also after a panic
			grant.Release()
		}
	}()
	buffer := append(make([]byte, 0, firstBytes), framePrefix...)
	cursor, err := c.config.Source.WriteSnapshot(ctx, system, func(piece []byte) error {
		if need := len(buffer) + len(piece) + len(frameSuffix); need > cap(buffer) {
			larger := max(need, cap(buffer)+cap(buffer)/2)
			if err := grant.Grow(larger); err != nil {
				return err
			}
			buffer = append(make([]byte, 0, larger), buffer...)
		}
		buffer = append(buffer, piece...)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	held = true
	s := &Snapshot{Cursor: cursor, frame: append(buffer, frameSuffix...), grant: grant, size: cap(buffer)}
	s.free = func() {
		c.freed(system, s)
		grant.Release()
	}
	s.holders.Store(1)
	return s, nil
}
