package cloud

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/domain/backoff"
	"github.com/plugcast/plugcast/domain/isolate"
)

// session keeps an account connected with one credential: it opens one socket after
// the other and keeps the devices' state in between. Its worker's goroutine runs it
// and owns all fields but the atomics and those that mu guards.
type session struct {
	env
	conn   domain.ConnectionRef
	logger *slog.Logger
	outbox *outbox

	given    Secret // as the worker read it
	secret   Secret // with the newest tokens
	rejected bool   // the cloud rejected the access token: renew it
	retried  bool   // it was renewed for that reason, and no socket has been of use since
	doubted  bool   // the last socket closed before it was of use: check first whether the token is valid
	reported domain.ConnectionState
	retry    backoff.Backoff
	trid     int64 // of the last request; it differs from those of earlier sessions

	rows    map[domain.DeviceID][]*domain.Device // by base id, as the worker read them
	devices map[domain.DeviceID]*device          // on the account
	refused map[domain.DeviceID]bool             // on the account, and beyond the quota of the system
	*link                                        // the socket that is open, or the last one

	open      atomic.Bool // a socket is open
	corrected chan correction
	requests  chan request

	mu      sync.Mutex
	members map[domain.DeviceID]membership // by base id
	live    bool                           // commands are accepted
	state   domain.ConnectionState
}

// correction has the rows of a device after an operator corrected its energy.
type correction struct {
	base domain.DeviceID
	rows []*domain.Device
}

// membership is how a device relates to the account.
type membership int

const (
	unknownDevice membership = iota
	byRow                    // it came through this connection before, as its rows say
	onAccount
	left // it was on the account
)

func newSession(e env, c Connection, secret Secret, rows []*domain.Device, logger *slog.Logger) *session {
	s := &session{
		env: e, conn: c.ConnectionRef, logger: logger, outbox: newOutbox(e.parts.Events, c.ConnectionRef, c.State, logger),
		given: secret, secret: secret, reported: c.State, retry: newBackoff(e.cfg), trid: rand.Int64N(1 << 40),
		rows: map[domain.DeviceID][]*domain.Device{}, devices: map[domain.DeviceID]*device{},
		corrected: make(chan correction, maxRequests), requests: make(chan request, maxRequests),
		members: map[domain.DeviceID]membership{}, state: domain.StateDisconnected,
	}
	for _, row := range rows {
		base := baseOf(row.DeviceID)
		s.rows[base] = append(s.rows[base], row)
		s.members[base] = byRow
	}
	return s
}

// run returns when ctx ends, or when the log refuses an event for good. It leaves no
// goroutine behind.
func (s *session) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	var appending sync.WaitGroup
	defer appending.Wait()
	defer cancel()
	appending.Go(func() {
		defer cancel()
		isolate.Do(s.logger, where, func() { s.outbox.run(ctx) })
	})
	for ctx.Err() == nil {
		end := s.attempt(ctx)
		s.logEnd(end)
		switch {
		case ctx.Err() != nil || end.planned:
		case end.refused || end.rejected && s.retried && !end.lapsed:
			s.logger.Warn("the credential is refused", "reason", end.reason)
			s.setState(domain.StateRefused, end.reason)
			<-ctx.Done() // only a new credential or a command starts another session
		case end.rejected:
			s.rejected, s.retried = true, true
			if s.reported == domain.StateConnected {
				s.setState(domain.StateDisconnected, end.reason)
			}
			fresh := s.retry.IsReset()
			if wait := s.retry.Next(); !fresh { // the first time at once: the token may simply have expired
				_ = backoff.Sleep(ctx, wait)
			}
		default:
			s.setState(domain.StateDisconnected, end.reason)
			_ = s.retry.Wait(ctx)
		}
	}
}

// ending is how an attempt to be connected ended.
type ending struct {
	planned  bool // by us
	rejected bool // the cloud rejects the access token
	lapsed   bool // the rejected token had expired by then, which says nothing about the credential
	refused  bool // the credential cannot be used any more
	reason   string
	err      error // for the log
}

func dropped(reason string, err error) ending { return ending{reason: reason, err: err} }

func rejectedToken(err error) ending { return ending{rejected: true, reason: reasonRejected, err: err} }

// The reasons of a connection's state, for people.
const (
	reasonUnreachable = "the Shelly Cloud cannot be reached"
	reasonDropped     = "the socket was closed"
	reasonNoPong      = "no answer to two pings"
	reasonStalled     = "the log does not keep up"
	reasonRejected    = "the Shelly Cloud does not take the token"
	reasonStopped     = "stopped"
)

// attempt gets a valid token and stays connected with it as long as possible.
func (s *session) attempt(ctx context.Context) ending {
	g, err := s.authorise(ctx)
	var refused *refusedError
	switch {
	case errors.As(err, &refused):
		return ending{refused: true, reason: refused.reason}
	case err != nil:
		return dropped(reasonUnreachable, err)
	}
	end := s.connect(ctx, g)
	if end.rejected && s.secret.AccessToken != g.token { // renewed before the socket ended
		end.rejected, end.planned = false, true
	}
	end.lapsed = end.rejected && !g.alive(time.Now())
	return end
}

// connect opens a socket and serves it until it ends.
func (s *session) connect(ctx context.Context, g grant) ending {
	if s.doubted {
		if err := s.probe(ctx, g); rejects(err) {
			return rejectedToken(err)
		}
		s.doubted = false
	}
	socket, err := dial(ctx, s.cfg, g, s.secret, s.logger)
	switch {
	case errors.Is(err, errRejected):
		return rejectedToken(err)
	case err != nil:
		return dropped(reasonUnreachable, err)
	}
	s.open.Store(true)
	defer s.open.Store(false)
	opened := time.Now()
	end := s.serve(ctx, socket, g)
	s.retry.ResetIfStable(time.Since(opened))
	if s.synced {
		s.retried = false
	}
	// The cloud may accept an expired token and close the socket moments later (measured).
	s.doubted = !end.planned && !end.rejected && !s.synced
	return end
}

// probe asks the HTTP API whether it takes the token.
func (s *session) probe(ctx context.Context, g grant) error {
	api, release := s.accountOf(g.user)
	defer release()
	_, err := api.allStatus(ctx, g.at, g.token)
	return err
}

// logEnd logs how an attempt ended: at level info after a connected one, else at debug.
func (s *session) logEnd(e ending) {
	if e.refused {
		return
	}
	level := slog.LevelDebug
	if s.reported != domain.StateDisconnected {
		level = slog.LevelInfo
	}
	text := ""
	if e.err != nil {
		text = s.secret.scrub(e.err.Error())
	}
	s.logger.Log(context.Background(), level, "the socket to the Shelly Cloud ended", "reason", e.reason, "planned", e.planned, "error", text)
}

// setState sets the connection's state, and reports it to the log if it is new.
func (s *session) setState(state domain.ConnectionState, reason string) {
	s.mu.Lock()
	s.state = state
	s.mu.Unlock()
	if s.reported != state {
		s.reported = state
		const most = 512 // bytes; the reason may quote the cloud
		s.outbox.push(nil, &domain.ConnectionStateChanged{ConnectionID: s.conn.ID, State: state, Reason: domain.TruncateText(reason, most)})
	}
}

func (s *session) connectionState() domain.ConnectionState {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

func (s *session) membershipOf(base domain.DeviceID) membership {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.members[base]
}

func (s *session) setMembership(base domain.DeviceID, m membership) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.members[base] = m
}

// isMember reports whether the device is or was on this account.
func (s *session) isMember(base domain.DeviceID) bool { return s.membershipOf(base) != unknownDevice }
