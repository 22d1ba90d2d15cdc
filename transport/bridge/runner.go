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

// Pauses between the connections of a link.
const (
	firstPause   = time.Second
	longestPause = 20 * time.Second
	refusedPause = time.Minute
	// stableAfter is how long a connection lasts that is worth being quick after.
	stableAfter = 10 * time.Second
	// publishEvery is the pace of status reports.
	publishEvery = time.Second
	// publishTimeout bounds one report.
	publishTimeout = 2 * time.Second
)

// StatusStore is where the processes of the deployment see each other's status.
type StatusStore interface {
	// Put replaces the status of that name with another one, which is JSON.
	Put(ctx context.Context, name string, status json.RawMessage) error
}

// RunnerConfig says what a [Runner] runs. All but Logger are required.
type RunnerConfig struct {
	Links     []Link
	Node      string // name of this process
	Partition func(domain.SystemID) int
	Statuses  StatusStore
	Logger    *slog.Logger
}

// Runner runs the links' systems in the partitions that this process owns.
type Runner struct {
	config RunnerConfig
	logger *slog.Logger

	mu     sync.Mutex
	states map[*State]struct{}
}

// NewRunner makes a Runner.
func NewRunner(c RunnerConfig) *Runner {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return &Runner{config: c, logger: c.Logger, states: map[*State]struct{}{}}
}

// Run is a duty of the partition's owner: it runs every link's systems that live
// there until ctx ends.
func (r *Runner) Run(ctx context.Context, partition int) {
	var running sync.WaitGroup
	for _, link := range r.config.Links {
		for _, system := range link.Systems() {
			if r.config.Partition(system.System) == partition {
				running.Go(func() { isolate.Loop(ctx, r.logger, Component, func() { r.keep(ctx, link, system) }) })
			}
		}
	}
	running.Wait()
}

// Component names links among the panics that were caught. A link makes errors of the
// panics of the goroutines that it starts.
const Component = "bridge"

// keep runs one system of a link, over one connection after the other.
func (r *Runner) keep(ctx context.Context, link Link, system System) {
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
	var told string
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
			told = ""
		}
		wait := retry.Next()
		switch refused := errors.Is(err, ErrRefused); {
		case refused:
			log.Error("a bridge is refused; asking again slowly", "error", err)
			wait = backoff.Jitter(refusedPause)
		case err.Error() != told:
			log.Warn("a bridge is down; trying again", "error", err)
		}
		told = err.Error()
		if backoff.Sleep(ctx, wait) != nil {
			return
		}
	}
}

// publish shows the status to the other processes, now and then, until ctx ends.
func (r *Runner) publish(ctx context.Context, state *State) {
	ticker := time.NewTicker(publishEvery)
	defer ticker.Stop()
	away := false
	for {
		putting, cancel := context.WithTimeout(ctx, publishTimeout)
		err := r.put(putting, state.Status())
		cancel()
		if err != nil && !away && ctx.Err() == nil {
			r.logger.Warn("the status of a bridge cannot be shown", "error", err)
		}
		away = err != nil
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

func (r *Runner) put(ctx context.Context, status Status) error {
	raw, err := json.Marshal(status)
	if err != nil {
		return fmt.Errorf("status of %s for %s: %w", status.Bridge, status.System, err)
	}
	return r.config.Statuses.Put(ctx, status.Bridge+"/"+string(status.System), raw)
}

// Statuses lists what this process runs.
func (r *Runner) Statuses() []Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := make([]Status, 0, len(r.states))
	for state := range r.states {
		list = append(list, state.Status())
	}
	return list
}
