package bridge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/domain/backoff"
	"github.com/plugcast/plugcast/domain/isolate"
)

// Pauses between the connections of a system.
const (
	firstPause   = time.Second
	longestPause = 20 * time.Second
	refusedPause = time.Minute
	// stableAfter is how long a connection must last for the next pause to be short again.
	stableAfter = 10 * time.Second
	// publishEvery is the interval of status reports.
	publishEvery = time.Second
	// publishTimeout bounds one status report.
	publishTimeout = 2 * time.Second
)

// StatusStore shares statuses between the processes of a deployment. It is safe for
// concurrent use.
type StatusStore interface {
	// Put replaces the status with a name. The status is JSON.
	Put(ctx context.Context, name string, status json.RawMessage) error
}

// RunnerConfig configures a [Runner]. All but Logger are required.
type RunnerConfig struct {
	Links     []Link
	Node      string // name of this process
	Partition func(domain.SystemID) int
	Statuses  StatusStore
	Logger    *slog.Logger
}

// Runner runs the systems of links in the partitions that this process owns. It is safe for
// concurrent use.
type Runner struct {
	config RunnerConfig
	logger *slog.Logger

	mu     sync.Mutex
	states map[*State]struct{}
}

// NewRunner returns a Runner. It starts nothing.
func NewRunner(c RunnerConfig) *Runner {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return &Runner{config: c, logger: c.Logger, states: map[*State]struct{}{}}
}

// Run is a job of the partition's owner: it runs the systems of all links that live in the
// partition, until ctx ends.
func (r *Runner) Run(ctx context.Context, partition int) {
	var running sync.WaitGroup
	for _, link := range r.config.Links {
		for _, system := range link.Systems() {
			if r.config.Partition(system.System) == partition {
				running.Go(func() { isolate.Loop(ctx, r.logger, Component, func() { r.runSystem(ctx, link, system) }) })
			}
		}
	}
	running.Wait()
}

// Component names links in the log lines and counts of recovered panics. Links turn panics
// in the goroutines that they start into errors.
const Component = "bridge"

// runSystem runs one system of a link, one connection after another, until ctx ends.
func (r *Runner) runSystem(ctx context.Context, link Link, system System) {
	state := NewState(link, system, r.config.Node)
	r.mu.Lock()
	r.states[state] = struct{}{}
	r.mu.Unlock()
	reporting, stop := context.WithCancel(ctx)
	var reports sync.WaitGroup
	reports.Go(func() { isolate.Loop(reporting, r.logger, Component, func() { r.publish(reporting, state) }) })
	defer func() {
		stop()
		reports.Wait()
		r.mu.Lock()
		delete(r.states, state)
		r.mu.Unlock()
	}()
	log := r.logger.With("bridge", link.Name(), "system", system.System)
	retry := backoff.Backoff{First: firstPause, Max: longestPause, StableAfter: stableAfter}
	var logged string // the last error, which is not logged again
	for {
		began := time.Now()
		err := isolate.Run(log, Component, func() error { return link.Run(ctx, system, state) })
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			err = errors.New("the connection ended")
		}
		state.Failed(err)
		if retry.ResetIfStable(time.Since(began)); retry.IsReset() {
			logged = ""
		}
		wait := retry.Next()
		switch refused := errors.Is(err, ErrRefused); {
		case refused:
			log.Error("the far end refuses a bridge; trying again slowly", "error", err)
			wait = backoff.Jitter(refusedPause)
		case err.Error() != logged:
			log.Warn("a bridge is down; trying again", "error", err)
		}
		logged = err.Error()
		if backoff.Sleep(ctx, wait) != nil {
			return
		}
	}
}

// publish stores the status regularly until ctx ends.
func (r *Runner) publish(ctx context.Context, state *State) {
	failing := false
	publish := func(time.Time) {
		putting, cancel := context.WithTimeout(ctx, publishTimeout)
		err := r.put(putting, state.Status())
		cancel()
		if err != nil && !failing && ctx.Err() == nil {
			r.logger.Warn("the status of a bridge cannot be stored; trying again", "error", err)
		}
		failing = err != nil
	}
	publish(time.Now())
	backoff.Every(ctx, publishEvery, publish)
}

func (r *Runner) put(ctx context.Context, status Status) error {
	raw, err := json.Marshal(status)
	if err != nil {
		return fmt.Errorf("bridge: status of bridge %s for %s: %w", status.Bridge, status.System, err)
	}
	return r.config.Statuses.Put(ctx, status.Bridge+"/"+string(status.System), raw)
}

// Statuses returns the status of each system that this process runs, in no order.
func (r *Runner) Statuses() []Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := make([]Status, 0, len(r.states))
	for state := range r.states {
		list = append(list, state.Status())
	}
	return list
}
