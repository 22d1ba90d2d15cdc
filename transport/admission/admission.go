// Package admission limits the concurrent work of systems, so that one system never delays
// another. The work of all systems together fits a capacity, the work of one system fits its
// share, and systems with waiting requests are served in turn. Work is counted in units that
// the caller defines, such as the cost of a query or the bytes of a response.
package admission

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/plugcast/plugcast/domain"
)

// CodeBusy says that a system has as much work in progress, and waiting, as it may.
const CodeBusy domain.Code = "busy"

// Config holds the limits of a [Controller]. All are required.
type Config struct {
	Capacity int           // units in progress at the same time, of all systems together
	Share    int           // units in progress at the same time, of one system; at most Capacity
	Queue    int           // waiting requests of one system
	QueueAll int           // waiting requests of all systems together
	Patience time.Duration // how long a request waits
}

// Validate reports invalid limits.
func (c Config) Validate() error {
	if c.Capacity < 1 || c.Share < 1 || c.Share > c.Capacity || c.Queue < 1 || c.QueueAll < c.Queue || c.Patience <= 0 {
		return fmt.Errorf("admission: config: %+v: every limit must be positive, Share at most Capacity, and Queue at most QueueAll", c)
	}
	return nil
}

// Controller admits work. It is safe for concurrent use and has no goroutine. A nil
// Controller admits everything.
type Controller struct {
	config Config

	mu        sync.Mutex
	scheduler scheduler
}

// New makes a Controller.
func New(c Config) (*Controller, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	return &Controller{config: c, scheduler: newScheduler(c.Capacity, c.Share)}, nil
}

// Admit waits until work of the given cost may begin for the system. The caller must Release
// the grant when the work is done. A cost is raised to at least 1 and lowered to at most
// Share. Admit fails with [CodeBusy] and a retry time if too many requests are waiting or
// this one has waited for Patience, and with ctx's error if ctx ends first.
func (c *Controller) Admit(ctx context.Context, system domain.SystemID, cost int) (*Grant, error) {
	if c == nil {
		return nil, nil
	}
	w := &waiter{system: system, cost: min(max(cost, 1), c.config.Share), admitted: make(chan struct{})}
	c.mu.Lock()
	c.scheduler.add(w)
	c.scheduler.dispatch()
	if !w.granted && c.scheduler.overfull(system, c.config.Queue, c.config.QueueAll) {
		c.scheduler.drop(w)
		c.mu.Unlock()
		return nil, busy(system)
	}
	granted := w.granted
	c.mu.Unlock()
	if !granted {
		if err := c.wait(ctx, w); err != nil {
			return nil, err
		}
	}
	return &Grant{controller: c, system: system, cost: w.cost}, nil
}

// wait waits until w is admitted. On failure it removes w from the queue.
func (c *Controller) wait(ctx context.Context, w *waiter) error {
	waiting, cancel := context.WithTimeout(ctx, c.config.Patience)
	defer cancel()
	select {
	case <-w.admitted:
		return nil
	case <-waiting.Done():
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if w.granted { // at the same time
		return nil
	}
	c.scheduler.drop(w)
	c.scheduler.dispatch() // the requests behind it may fit
	if err := ctx.Err(); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return busy(w.system)
}

func busy(system domain.SystemID) error {
	detail := fmt.Sprintf("system %q has too many requests in progress; try again in a second", system)
	return domain.Fail(domain.KindLimited, CodeBusy, detail).With("retryAfterMs", time.Second.Milliseconds())
}

// Usage is the work of all systems in progress and waiting.
type Usage struct {
	Units   int // in progress
	Waiting int // requests
}

// Usage returns the current usage.
func (c *Controller) Usage() Usage {
	if c == nil {
		return Usage{}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return Usage{Units: c.scheduler.used, Waiting: c.scheduler.waiting}
}

// Grant is admitted work. It is safe for concurrent use. A nil Grant is valid and holds
// nothing.
type Grant struct {
	controller *Controller
	system     domain.SystemID
	cost       int // guarded by the controller's lock
}

// Release ends the work. Calling it twice is fine.
func (g *Grant) Release() { g.Shrink(0) }

// Shrink lowers the cost of the grant.
func (g *Grant) Shrink(cost int) {
	if g == nil {
		return
	}
	c := g.controller
	c.mu.Lock()
	defer c.mu.Unlock()
	if cost < g.cost {
		c.scheduler.release(g.system, g.cost-cost)
		g.cost = cost
		c.scheduler.dispatch()
	}
}

// Grow raises the cost of the grant without waiting, because waiting while holding a grant
// could deadlock. It fails with [CodeBusy] if the capacity or the system's share is used up.
// A system may exceed its share only if it has no other work in progress.
func (g *Grant) Grow(cost int) error {
	if g == nil {
		return nil
	}
	c := g.controller
	c.mu.Lock()
	defer c.mu.Unlock()
	more := cost - g.cost
	if more <= 0 {
		return nil
	}
	alone := c.scheduler.usedBy(g.system) == g.cost
	if c.scheduler.used+more > c.config.Capacity || !alone && c.scheduler.usedBy(g.system)+more > c.config.Share {
		return busy(g.system)
	}
	c.scheduler.take(g.system, more)
	g.cost = cost
	return nil
}
