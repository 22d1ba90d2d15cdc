package cloud

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/domain/backoff"
	"github.com/plugcast/plugcast/domain/isolate"
	"github.com/plugcast/plugcast/transport/shelly"
)

const (
	minWake        = 10 * time.Millisecond // between looks at what waits
	atOnce         = 64                    // messages that are worked off before their updates are appended
	maxBufferBytes = 4 << 20               // of messages kept back, as they came
	maxStrangers   = 1000                  // devices that all_status does not have, remembered
	// snapshotAge is how old a state from all_status may be that we asked for just
	// now: nothing says that the vendor answers from the newest.
	snapshotAge = 10 * time.Second
)

// session is the time of one socket. It belongs to the actor's goroutine.
type session struct {
	*actor
	socket *socket
	grant  grant
	acc    *account
	work   sync.WaitGroup
	ctx    context.Context // of the work; ends with the session
	timer  *time.Timer

	synced    bool // a snapshot has been applied
	fetching  bool
	asked     time.Time // when the last fetch began
	fetched   chan fetch
	kept      []heard // since the fetch began, or since the socket opened for the first
	keptBytes int
	overflown bool // more came than is kept
	recheck   bool // devices have left: ask again soon
	fetchWait backoff.Backoff
	fetchAt   time.Time // when to fetch next
	strangers map[domain.DeviceID]struct{}

	renewing bool
	renewed  chan renewal
	redial   bool // as soon as no command is under way

	pingAt time.Time
	pinged int64 // pongs at the last ping; -1 before
	missed int
	dueAt  time.Time // when the first device has something that waits; zero when none
	ready  []shelly.Update
	dirty  []*held
	says   *domain.ConnectionStateChanged // after the updates that come first

	pending map[string]pending // requests without answer, by transaction id
	warned  bool
}

// fetch is what came of asking for all states.
type fetch struct {
	all  allStatus
	rows map[domain.DeviceID][]*domain.Device // of devices that are new
	err  error
}

// renewal is what came of renewing the token.
type renewal struct {
	secret Secret
	err    error
}

func newSession(a *actor, socket *socket, g grant) *session {
	return &session{
		actor: a, socket: socket, grant: g, fetched: make(chan fetch, 1), renewed: make(chan renewal, 1),
		fetchWait: newBackoff(a.cfg), strangers: map[domain.DeviceID]struct{}{}, pinged: -1, pending: map[string]pending{},
		timer: time.NewTimer(0),
	}
}

// run works until the socket ends, and closes it.
func (s *session) run(ctx context.Context) ending {
	var cancel context.CancelFunc
	s.ctx, cancel = context.WithCancel(ctx)
	acc, done := s.account(s.grant.user)
	s.acc = acc
	now := time.Now()
	s.fetchAt, s.pingAt = now, now.Add(s.cfg.PingEvery)
	end := s.loop()
	s.hangUp()
	s.socket.close()
	cancel()
	s.work.Wait()
	select {
	case r := <-s.renewed: // too late for this socket, and not to be lost
		if r.err == nil {
			s.secret = r.secret
		}
	default:
	}
	done()
	s.timer.Stop()
	return end
}

func (s *session) loop() ending {
	for {
		if s.redial && len(s.pending) == 0 {
			return ending{redial: true, reason: "the token was renewed"}
		}
		// While the log is behind nothing more is read from the socket.
		inbox, gone := s.socket.inbox, (chan struct{})(nil)
		if !s.out.empty() {
			inbox, gone = nil, s.socket.gone
		}
		s.timer.Reset(time.Until(s.wakeAt()))
		var end *ending
		select {
		case <-s.ctx.Done():
			return ending{redial: true, reason: "closed by us"}
		case h, ok := <-inbox:
			if !ok {
				return s.gone()
			}
			s.workOff(h)
		case <-gone:
			return s.gone()
		case <-s.out.idle:
		case r := <-s.requests:
			end = s.command(r)
		case c := <-s.corrected:
			if d := s.devices[c.base]; d != nil {
				d.device.Correct(c.rows)
			} else if s.rows[c.base] != nil {
				s.rows[c.base] = c.rows
			}
		case f := <-s.fetched:
			end = s.apply(f)
		case r := <-s.renewed:
			s.renewalDone(r)
		case <-s.timer.C:
			end = s.tick(time.Now())
		}
		if end != nil {
			return *end
		}
		s.flush(time.Now())
	}
}

// gone says why the socket ended.
func (s *session) gone() ending {
	<-s.socket.gone
	switch err := s.socket.err; {
	case errors.Is(err, errRejected):
		return ending{rejected: true, reason: reasonRejected, err: err}
	case errors.Is(err, errStalled):
		return dropped(reasonStalled, err)
	default:
		return dropped(reasonDropped, err)
	}
}

// workOff takes a message, and some of those behind it. Each is looked at for
// updates by itself, so that nothing that came and went between is lost.
func (s *session) workOff(h heard) {
	for n := 1; ; n++ {
		s.take(h)
		for _, d := range s.dirty {
			s.ready = append(s.ready, s.updatesOf(d, time.Now())...)
		}
		s.dirty = s.dirty[:0]
		if n == atOnce {
			return
		}
		select {
		case next, ok := <-s.socket.inbox:
			if !ok {
				return // the loop meets it again
			}
			h = next
		default:
			return
		}
	}
}

// flush hands over what is to be appended, when the last batch is safe.
func (s *session) flush(now time.Time) {
	if !s.out.empty() {
		return
	}
	for _, d := range s.dirty {
		s.ready = append(s.ready, s.updatesOf(d, now)...)
	}
	s.dirty = s.dirty[:0]
	if len(s.ready) == 0 && s.says == nil {
		return
	}
	s.out.push(job{updates: s.ready, state: s.says})
	s.ready, s.says = nil, nil
}

func (s *session) updatesOf(d *held, now time.Time) []shelly.Update {
	if s.devices[d.id] != d {
		return nil // not of this account any more
	}
	updates := d.take(now)
	if !d.due.IsZero() && (s.dueAt.IsZero() || d.due.Before(s.dueAt)) {
		s.dueAt = d.due
	}
	return updates
}

// mark says that a device may have something to append.
func (s *session) mark(d *held) {
	if d.dirty {
		s.dirty = append(s.dirty, d)
	}
}

// wakeAt is when something is to be done that nobody else wakes for.
func (s *session) wakeAt() time.Time {
	at := s.pingAt
	earlier := func(t time.Time) {
		if !t.IsZero() && t.Before(at) {
			at = t
		}
	}
	for _, p := range s.pending {
		earlier(p.deadline)
	}
	if s.out.empty() {
		earlier(s.dueAt)
	}
	if !s.fetching {
		earlier(s.fetchAt)
	}
	if !s.renewing && !s.redial {
		earlier(s.grant.renewAt)
	}
	return at
}

func (s *session) tick(now time.Time) *ending {
	if !now.Before(s.pingAt) {
		s.pingAt = now.Add(s.cfg.PingEvery)
		if end := s.ping(); end != nil {
			return end
		}
	}
	s.expire(now)
	if !s.dueAt.IsZero() && !now.Before(s.dueAt) && s.out.empty() {
		s.dueAt = time.Time{}
		for _, d := range s.devices {
			switch {
			case d.due.IsZero():
			case !now.Before(d.due):
				d.dirty, d.due = true, time.Time{}
				s.mark(d)
			case s.dueAt.IsZero() || d.due.Before(s.dueAt):
				s.dueAt = d.due
			}
		}
	}
	if !s.fetching && !now.Before(s.fetchAt) {
		s.fetchOrWait(now)
	}
	if at := s.grant.renewAt; !s.renewing && !s.redial && !at.IsZero() && !now.Before(at) {
		s.renewToken(now)
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

// renewToken renews the token while the socket goes on.
func (s *session) renewToken(now time.Time) {
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

// renewalDone moves on to a socket with the new token, on the server that it names.
// The old one would be closed at the token's end at some moment, or be silent.
func (s *session) renewalDone(r renewal) {
	s.renewing = false
	if r.err != nil {
		// The socket may well outlive its token, and the next attempt says more.
		s.grant.renewAt = time.Now().Add(s.cfg.BackoffMax)
		if s.ctx.Err() == nil {
			s.logger.Warn("the token cannot be renewed yet", "error", s.secret.scrub(r.err.Error()))
		}
		return
	}
	s.secret, s.redial = r.secret, true
}
