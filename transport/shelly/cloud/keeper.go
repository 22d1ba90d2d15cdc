package cloud

import (
	"context"
	"log/slog"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/domain/backoff"
	"github.com/plugcast/plugcast/domain/isolate"
	"github.com/plugcast/plugcast/transport/shelly"
)

// cause is why a keeper looks at its connection, as a set.
type cause int

const (
	restart cause = 1 << iota // open the socket anew, whatever there is
	attempt                   // somebody wants it tried again, should it be refused
)

func causeOf(how domain.EventType) cause {
	switch how {
	case domain.TypeConnectionRestarted:
		return restart
	case domain.TypeConnectionStarted:
		return attempt
	}
	return 0
}

// keeper runs the actors of one connection, one after the other. All starts and
// stops go through its goroutine, so there are never two.
type keeper struct {
	runner *Runner
	conn   shelly.Connection
	logger *slog.Logger
	wake   chan struct{}

	// Guarded by runner.mu.
	woken cause
	actor *actor // that runs now, or nil
	stop  context.CancelFunc
}

func newKeeper(r *Runner, c shelly.Connection) *keeper {
	return &keeper{
		runner: r, conn: c, logger: r.parts.Logger.With("system", c.System, "connection", c.ID),
		wake: make(chan struct{}, 1),
	}
}

// run goes on until ctx ends or the connection is no more.
func (k *keeper) run(ctx context.Context) {
	retry := backoff.Backoff{First: retryWait, Max: k.runner.cfg.BackoffMax, Stable: k.runner.cfg.BackoffMax}
	for ctx.Err() == nil {
		k.causes()
		c, secret, err := k.read(ctx)
		switch {
		case err == nil && k.wanted(c):
			began := time.Now()
			if k.keep(ctx, newActor(k.runner.cfg, k.runner.parts, c, secret, k.runner.http, k.runner.gates)) {
				retry.Reset()
				continue
			}
			retry.Lasted(time.Since(began))                // it ended by itself
			_ = backoff.SleepOr(ctx, retry.Next(), k.wake) // the loop looks at ctx
		case err == nil:
			retry.Reset()
			k.rest(ctx, c)
		case domain.HasCode(err, domain.CodeUnknownConnection):
			if k.runner.remove(k, false) {
				return
			}
		default:
			if ctx.Err() == nil {
				k.logger.Error("the connection cannot be read", "error", err)
			}
			_ = backoff.SleepOr(ctx, retry.Next(), k.wake) // the loop looks at ctx
		}
	}
	k.runner.remove(k, true)
}

func (k *keeper) wanted(c Connection) bool {
	return !c.Stopped && c.Kind == domain.ConnectionShellyCloud
}

// read returns the connection, and its secret if it is wanted.
func (k *keeper) read(ctx context.Context) (c Connection, secret Secret, err error) {
	c, err = k.runner.parts.Store.Connection(ctx, k.conn.System, k.conn.ID)
	if err == nil && k.wanted(c) {
		secret, err = k.runner.parts.Store.Secret(ctx, k.conn)
	}
	return c, secret, err
}

// causes returns why the keeper was woken, and forgets it.
func (k *keeper) causes() cause {
	k.runner.mu.Lock()
	defer k.runner.mu.Unlock()
	why := k.woken
	k.woken = 0
	select {
	case <-k.wake:
	default:
	}
	return why
}

// keep runs an actor until it is to be another, and waits for its end. It reports
// false for an actor that ended by itself.
func (k *keeper) keep(ctx context.Context, a *actor) bool {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	k.set(a, cancel)
	go func() {
		defer close(ended)
		isolate.Do(k.logger, where, func() { a.run(ctx) })
	}()
	defer func() {
		cancel()
		<-ended
		k.set(nil, nil)
	}()
	for {
		select {
		case <-ctx.Done():
			return true
		case <-ended:
			return ctx.Err() != nil
		case <-k.wake:
			if k.isToEnd(ctx, a) {
				return true
			}
		}
	}
}

// isToEnd looks at the connection anew and says whether the actor is still right.
func (k *keeper) isToEnd(ctx context.Context, a *actor) bool {
	why := k.causes()
	refused := a.state() == domain.StateRefused
	if why&restart != 0 || why&attempt != 0 && refused {
		return true
	}
	c, secret, err := k.read(ctx)
	switch {
	case err == nil:
		return !k.wanted(c) || !secret.sameCredential(a.given)
	case ctx.Err() == nil && !domain.HasCode(err, domain.CodeUnknownConnection):
		k.logger.Error("the connection cannot be read", "error", err)
	}
	return true // it may have been stopped: better no socket than one too many
}

func (k *keeper) set(a *actor, stop context.CancelFunc) {
	k.runner.mu.Lock()
	defer k.runner.mu.Unlock()
	k.actor, k.stop = a, stop
}

// drop ends the actor's socket, if there is one. runner.mu is held.
func (k *keeper) drop() int {
	if k.actor == nil || !k.actor.open.Load() {
		return 0
	}
	k.stop()
	return 1
}

// rest waits while the connection is stopped, after saying that its socket is
// closed: whoever had it may have left it at connected.
func (k *keeper) rest(ctx context.Context, c Connection) {
	if c.State == domain.StateConnected {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		said := domain.ConnectionStateChanged{ConnectionID: c.ID, State: domain.StateDisconnected, Reason: reasonStopped}
		say(ctx, k.runner.parts.Events, c.Connection, said, k.logger)
	}
	select {
	case <-k.wake:
	case <-ctx.Done():
	}
}
