package cloud

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/plugcast/plugcast/domain/isolate"
)

// minWake is the shortest time between checks for updates that are due.
const minWake = 10 * time.Millisecond

// link is a session's state for its open socket. It is new for each socket.
type link struct {
	socket *socket
	grant  grant
	api    *account
	ctx    context.Context // of work
	work   sync.WaitGroup  // requests over HTTP

	resync
	renewing bool
	renewed  chan renewal
	redial   bool // close the socket and open another, as soon as no command is pending

	pingAt time.Time
	pinged int64 // the number of pongs at the last ping; -1 before
	missed int

	dueAt   time.Time          // when the first device has an update that waits; zero when none has
	pending map[string]pending // commands without a response, by transaction id
	warned  bool               // of an error of the socket
}

// renewal is the result of renewing the token.
type renewal struct {
	secret Secret
	err    error
}

// serve works on a socket until it ends, and closes it.
func (s *session) serve(ctx context.Context, socket *socket, g grant) ending {
	api, release := s.accountOf(g.user)
	defer release()
	ctx, cancel := context.WithCancel(ctx)
	now := time.Now()
	s.link = &link{
		socket: socket, grant: g, api: api, ctx: ctx, resync: newResync(s.cfg, now), renewed: make(chan renewal, 1),
		pingAt: now.Add(s.cfg.PingEvery), pinged: -1, pending: map[string]pending{},
	}
	defer func() {
		s.stopCommands()
		socket.close()
		cancel()
		s.work.Wait()
		select {
		case r := <-s.renewed: // too late for this socket: the next one uses it
			if r.err == nil {
				s.secret = r.secret
			}
		default:
		}
		select {
		case f := <-s.fetched: // nobody applies it
			f.admission.Settle(false)
		default:
		}
	}()
	return s.loop()
}

func (s *session) loop() ending {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		if s.redial && len(s.pending) == 0 {
			return ending{planned: true, reason: "the token was renewed"}
		}
		// While the log is behind, the session applies only the first snapshot of a socket,
		// so that the socket takes commands.
		inbox, fetched, gone := s.socket.inbox, s.fetched, (chan struct{})(nil)
		if s.outbox.full() {
			inbox, gone = nil, s.socket.gone
			if s.synced {
				fetched = nil
			}
		}
		timer.Reset(time.Until(s.wakeAt()))
		var end *ending
		select {
		case <-s.ctx.Done():
			return ending{planned: true, reason: "closed by us"}
		case r, ok := <-inbox:
			if !ok {
				return s.socketEnd()
			}
			s.handle(r)
		case <-gone:
			return s.socketEnd()
		case <-s.outbox.room:
		case r := <-s.requests:
			end = s.command(r)
		case c := <-s.corrected:
			if d := s.devices[c.base]; d != nil {
				d.state.Correct(c.rows)
			} else if s.rows[c.base] != nil {
				s.rows[c.base] = c.rows
			}
		case f := <-fetched:
			end = s.apply(f)
		case r := <-s.renewed:
			s.finishRenewal(r)
		case <-timer.C:
			end = s.tick(time.Now())
		}
		if end != nil {
			return *end
		}
	}
}

// socketEnd returns why the socket ended.
func (s *session) socketEnd() ending {
	<-s.socket.gone
	switch err := s.socket.err; {
	case errors.Is(err, errRejected):
		return rejectedToken(err)
	case errors.Is(err, errStalled):
		return dropped(reasonStalled, err)
	default:
		return dropped(reasonDropped, err)
	}
}

// publish has the device's updates appended.
func (s *session) publish(d *device, now time.Time) {
	s.outbox.push(d.take(now), nil)
	s.dueAt = earliest(s.dueAt, d.due)
}

// earliest returns the first of the times that are not zero.
func earliest(times ...time.Time) (at time.Time) {
	for _, t := range times {
		if !t.IsZero() && (at.IsZero() || t.Before(at)) {
			at = t
		}
	}
	return at
}

// wakeAt returns when tick has something to do.
func (s *session) wakeAt() time.Time {
	at := s.pingAt
	for _, p := range s.pending {
		at = earliest(at, p.deadline)
	}
	if !s.outbox.full() {
		at = earliest(at, s.dueAt)
	}
	if !s.fetching {
		at = earliest(at, s.fetchAt)
	}
	if !s.renewing && !s.redial {
		at = earliest(at, s.grant.renewAt)
	}
	return at
}

// tick handles the deadlines that have passed.
func (s *session) tick(now time.Time) *ending {
	isDue := func(at time.Time) bool { return !at.IsZero() && !now.Before(at) }
	if isDue(s.pingAt) {
		s.pingAt = now.Add(s.cfg.PingEvery)
		if end := s.ping(); end != nil {
			return end
		}
	}
	s.expire(now)
	if isDue(s.dueAt) && !s.outbox.full() {
		s.dueAt = time.Time{}
		for _, d := range s.devices {
			if isDue(d.due) {
				s.publish(d, now)
			}
			s.dueAt = earliest(s.dueAt, d.due)
		}
	}
	if !s.fetching && isDue(s.fetchAt) {
		s.fetchOrWait(now)
	}
	if !s.renewing && !s.redial && isDue(s.grant.renewAt) {
		s.startRenewal(now)
	}
	return nil
}

func (s *session) ping() *ending {
	if pongs := s.socket.pongs.Load(); pongs == s.pinged {
		s.missed++
	} else {
		s.pinged, s.missed = pongs, 0
	}
	err := error(nil)
	if s.missed < 2 {
		if err = s.socket.ping(); err == nil {
			return nil
		}
	}
	end := dropped(reasonNoPong, err)
	return &end
}

// startRenewal renews the token while the socket stays open.
func (s *session) startRenewal(now time.Time) {
	s.renewing = true
	secret, alive := s.secret, s.grant.alive(now)
	s.work.Go(func() {
		var r renewal
		r.err = isolate.Run(s.logger, where, func() (err error) {
			r.secret, _, err = s.renew(s.ctx, secret, alive)
			return err
		})
		s.renewed <- r
	})
}

// finishRenewal has the session move to a socket with the new token, on the server
// that the token names. When the old token expires, the cloud closes its socket at
// some moment, or lets it fall silent.
func (s *session) finishRenewal(r renewal) {
	s.renewing = false
	if r.err != nil {
		// The socket may well outlive its token, and the next attempt renews it.
		s.grant.renewAt = time.Now().Add(s.cfg.BackoffMax)
		if s.ctx.Err() == nil {
			s.logger.Warn("cannot renew the token yet", "error", s.secret.scrub(r.err.Error()))
		}
		return
	}
	s.secret, s.redial = r.secret, true
}
