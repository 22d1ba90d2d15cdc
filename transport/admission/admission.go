// Package admission bounds how much concurrent work systems cause, so that one
// system never delays another: the work of all systems together fits a capacity,
// the work of one system a share of it, and systems whose requests wait are
// served in turn. Work is counted in units that the caller defines, such as the
// cost of a query or the bytes of an answer.
package admission

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/plugcast/plugcast/domain"
)

// CodeBusy says that a system has as much work under way, and waiting, as it may.
const CodeBusy domain.Code = "busy"

// Config holds the bounds of a [Controller]. All are required.
type Config struct {
	Capacity int           // units under way at the same time, of all systems together
	Share    int           // units under way at the same time, of one system; at most Capacity
	Queue    int           // requests of one system that wait
	QueueAll int           // requests that wait, of all systems together
	Patience time.Duration // how long a request waits
}

// Validate says what is wrong with c.
func (c Config) Validate() error {
	if c.Capacity < 1 || c.Share < 1 || c.Share > c.Capacity || c.Queue < 1 || c.QueueAll < c.Queue || c.Patience <= 0 {
		return fmt.Errorf("admission: config: %+v: every bound is positive, Share is at most Capacity, and Queue at most QueueAll", c)
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

// Admit returns when work of the cost may begin on the system's account. The
// caller must Release the grant when the work is done. A cost counts as 1 at
// least and as Share at most. It fails with [CodeBusy], which says when to come back, when too many
// requests wait already or this one has waited too long, and with ctx's error
// when that ends before.
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

// wait returns when w is admitted, or takes it out of the queue.
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
	if w.granted { // at the same moment
		return nil
	}
	c.scheduler.drop(w)
	c.scheduler.dispatch() // those behind it may fit
	if err := ctx.Err(); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return busy(w.system)
}

func busy(system domain.SystemID) error {
	return domain.Fail(domain.KindLimited, CodeBusy, fmt.Sprintf("system %q has too many requests in progress; repeat in a second", system)).
		With("retryAfterMs", time.Second.Milliseconds())
}

// Usage is what is under way and what waits.
type Usage struct {
	Units   int // under way
	Waiting int // requests
}

// Usage returns what is under way, of all systems together.
func (c *Controller) Usage() Usage {
	if c == nil {
		return Usage{}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return Usage{Units: c.scheduler.used, Waiting: c.scheduler.waiting}
}

// Grant is work that was admitted. It is safe for concurrent use; nil is a grant
// of nothing.
type Grant struct {
	controller *Controller
	system     domain.SystemID
	cost       int // guarded by the controller's lock
}

// Release ends the work. Releasing twice is fine.
func (g *Grant) Release() { g.Shrink(0) }

// Shrink lowers what the grant counts for to a cost.
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

// Grow raises what the grant counts for, without waiting, because one who waits
// while holding could wait for ever. It fails with [CodeBusy] when the capacity,
// or the system's share, is used up; only a system that has nothing else under
// way may go beyond its share.
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
