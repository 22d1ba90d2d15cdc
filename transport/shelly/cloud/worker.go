package cloud

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/domain/backoff"
	"github.com/plugcast/plugcast/domain/isolate"
)

// cause is the set of reasons for which a worker was woken.
type cause int

const (
	restart cause = 1 << iota // end the session and start another, in any case
	attempt                   // start another session if the credential was refused
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

// worker runs the sessions of one connection, one after the other, in one goroutine.
type worker struct {
	supervisor *Supervisor
	conn       domain.ConnectionRef
	logger     *slog.Logger
	wake       chan struct{}

	// Guarded by supervisor.mu.
	woken   cause
	session *session // the one that runs, or nil
	cancel  context.CancelFunc
}

func newWorker(s *Supervisor, c domain.ConnectionRef) *worker {
	return &worker{
		supervisor: s, conn: c, logger: s.parts.Logger.With("system", c.System, "connection", c.ID), wake: make(chan struct{}, 1),
	}
}

// retryWait is the first wait of a worker that cannot read its connection.
const retryWait = 200 * time.Millisecond

// run returns when ctx ends or the connection no longer exists.
func (w *worker) run(ctx context.Context) {
	store, longest := w.supervisor.parts.Store, w.supervisor.cfg.BackoffMax
	retry := backoff.Backoff{First: retryWait, Max: longest, StableAfter: longest}
	for ctx.Err() == nil {
		w.causes()
		c, secret, err := w.read(ctx)
		var rows []*domain.Device
		if err == nil && isWanted(c) {
			rows, err = store.Devices(ctx, c.System, c.ID)
		}
		switch {
		case domain.HasCode(err, domain.CodeUnknownConnection):
			if w.supervisor.forget(w, false) {
				return
			}
		case err != nil:
			w.logUnread(ctx, err)
			_ = backoff.SleepOr(ctx, retry.Next(), w.wake) // the loop checks ctx
		case !isWanted(c):
			retry.Reset()
			w.waitWhileStopped(ctx, c)
		default:
			began := time.Now()
			if w.serve(ctx, newSession(w.supervisor.env, c, secret, rows, w.logger)) {
				retry.Reset()
				continue
			}
			retry.ResetIfStable(time.Since(began))
			_ = backoff.SleepOr(ctx, retry.Next(), w.wake) // the loop checks ctx
		}
	}
}

// isWanted reports whether the connection is to have a session.
func isWanted(c Connection) bool { return !c.Stopped && c.Kind == domain.ConnectionShellyCloud }

// read returns the connection, and its secret if it is to have a session.
func (w *worker) read(ctx context.Context) (c Connection, secret Secret, err error) {
	parts := &w.supervisor.parts
	c, err = parts.Store.Connection(ctx, w.conn.System, w.conn.ID)
	if err == nil && isWanted(c) {
		secret, err = parts.Secrets.Secret(ctx, w.conn)
	}
	return c, secret, err
}

func (w *worker) logUnread(ctx context.Context, err error) {
	if ctx.Err() == nil {
		w.logger.Error("cannot read the connection", "error", err)
	}
}

// causes returns and clears the causes for which the worker was woken.
func (w *worker) causes() cause {
	w.supervisor.mu.Lock()
	defer w.supervisor.mu.Unlock()
	why := w.woken
	w.woken = 0
	select {
	case <-w.wake:
	default:
	}
	return why
}

// serve runs a session until ctx ends, the session is to be replaced, or the session
// ends by itself. It returns false in the last case, unless the session is to be replaced
// as well: the wake for that is consumed.
func (w *worker) serve(ctx context.Context, s *session) (planned bool) {
	ctx, cancel := context.WithCancel(ctx)
	w.setSession(s, cancel)
	defer w.setSession(nil, nil)
	var watching sync.WaitGroup
	replaced := false // valid when watching is done
	watching.Go(func() {
		for ctx.Err() == nil {
			select {
			case <-ctx.Done():
			case <-w.wake:
				replace := true // also when checking panics
				isolate.Do(w.logger, where, func() { replace = w.mustReplace(ctx, s) })
				if replace {
					replaced = true
					cancel()
				}
			}
		}
	})
	isolate.Do(w.logger, where, func() { s.run(ctx) })
	planned = ctx.Err() != nil
	cancel()
	watching.Wait()
	return planned || replaced
}

// mustReplace reports whether the session is to end, because of a command or because
// the connection has changed.
func (w *worker) mustReplace(ctx context.Context, s *session) bool {
	why := w.causes()
	if why&restart != 0 || why&attempt != 0 && s.connectionState() == domain.StateRefused {
		return true
	}
	c, secret, err := w.read(ctx)
	if err == nil {
		return !isWanted(c) || !secret.sameCredential(s.given)
	}
	if !domain.HasCode(err, domain.CodeUnknownConnection) {
		w.logUnread(ctx, err)
	}
	return true // the connection may have been stopped: no socket is better than one too many
}

func (w *worker) setSession(s *session, cancel context.CancelFunc) {
	w.supervisor.mu.Lock()
	defer w.supervisor.mu.Unlock()
	w.session, w.cancel = s, cancel
}

// waitWhileStopped waits while the connection is stopped. First it reports that the socket is
// closed, because a former owner may have left the state at connected.
func (w *worker) waitWhileStopped(ctx context.Context, c Connection) {
	if c.State == domain.StateConnected {
		change := domain.ConnectionStateChanged{ConnectionID: c.ID, State: domain.StateDisconnected, Reason: reasonStopped}
		appendState(ctx, w.supervisor.parts.Events, c.ConnectionRef, change, w.logger)
	}
	select {
	case <-w.wake:
	case <-ctx.Done():
	}
}
