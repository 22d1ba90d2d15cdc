package outbound

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/olahol/melody"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/shelly"
)

// session is one socket of one device. Melody's reading goroutine passes the frames on to
// run, which does everything else.
type session struct {
	server     *Server
	id         string
	credential Credential
	remote     string
	ws         *melody.Session // set once connected
	began      time.Time

	inbox     chan []byte           // frames; decoding them in the reading goroutine would grow its stack too
	switches  chan *switchRequest   // commands for the device
	corrected chan []*domain.Device // its rows, after an operator corrected its energy

	ctx    context.Context // of run; ends a while after the socket is gone
	cancel context.CancelFunc
	gone   chan struct{} // closed when the socket is gone and no more frames follow
	ended  chan struct{} // closed when run has returned

	name     atomic.Value // domain.DeviceID that the device gives itself, admitted or not
	messages window       // of the reading goroutine
	heard    time.Time    // of the reading goroutine: when it last called the heartbeats

	mu      sync.Mutex
	base    domain.DeviceID    // the name that the device gives itself; "" before its first frame
	watched []domain.DeviceRef // channels that the heartbeats have
	within  time.Duration      // how long those count as alive after a frame
	closing bool               // by us: further frames do not count
	broken  bool
	reason  endReason
	faulty  bool // it was closed for a fault of the device

	// The goroutine of run alone uses the rest.
	device  *shelly.Device // nil before it was admitted
	offline map[domain.DeviceID]bool
	release func(appended bool) // releases the place of a new device; nil when it has none
	stable  bool                // the session has lasted long enough to clear earlier failures
	events  window

	statusRequested bool // because the device did not begin with a whole one
	nextID          uint64
	pending         map[uint64]*call
	switched        map[int]*recentSwitch // by channel
}

func newSession(s *Server, c Credential, remote string) *session {
	one := &session{
		server: s, id: uuid.NewString(), credential: c, remote: remote, began: time.Now(),
		inbox: make(chan []byte, s.config.ReadAhead), switches: make(chan *switchRequest, s.config.MaxPending),
		corrected: make(chan []*domain.Device, 4), gone: make(chan struct{}), ended: make(chan struct{}),
	}
	one.ctx, one.cancel = context.WithCancel(s.ctx)
	return one
}

// ref names the device. The server's lock may be held.
func (s *session) ref() domain.DeviceRef {
	s.mu.Lock()
	defer s.mu.Unlock()
	return domain.DeviceRef{System: s.credential.System, Device: s.base}
}

// end closes the socket. It reports whether nobody was closing it already.
func (s *session) end(frame closeFrame, why endReason) bool {
	if !s.beginEnd(frame, why) {
		return false
	}
	s.sendClose(frame)
	return true
}

// beginEnd is the first half of end: from now on no frame counts, and nobody else closes the
// socket. It reports whether nobody was closing it already.
func (s *session) beginEnd(frame closeFrame, why endReason) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing || s.broken {
		return false
	}
	s.closing, s.reason, s.faulty = true, why, frame.code == closeFlood.code
	if why == endStopped {
		for _, ref := range s.watched {
			s.server.parts.Heartbeats.Forget(ref, s.id)
		}
	}
	return true
}

// sendClose is the second half of end: it sends the close frame.
func (s *session) sendClose(frame closeFrame) {
	_ = s.ws.CloseWithMsg(melody.FormatCloseMessage(frame.code, frame.reason)) // it fails when the socket is closed
}

func (s *session) isClosing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closing
}

// run runs the session until its socket is gone.
func (s *session) run() {
	s.pending, s.switched = map[uint64]*call{}, map[int]*recentSwitch{}
	defer close(s.ended)
	defer s.finish()
	timer := time.NewTimer(s.server.config.InitTimeout)
	defer timer.Stop()
	for !s.isClosing() {
		select {
		case <-s.gone:
			s.drain()
			return
		case message := <-s.inbox:
			s.decode(message, time.Now())
		case o := <-s.switches:
			s.switchRelay(o, time.Now())
		case rows := <-s.corrected:
			if s.device != nil {
				s.device.Correct(rows)
			}
		case <-timer.C:
		}
		now := time.Now()
		if len(s.inbox) == 0 { // a response that has arrived is not late, even if the log was slow
			s.expire(now)
		}
		s.publish(now)
		timer.Reset(max(s.next(now).Sub(now), 0))
	}
	for {
		select {
		case <-s.gone:
			return
		case <-s.inbox: // the reading goroutine must not wait for us
		}
	}
}

// drain handles the frames that arrived before the socket closed: a sleeping device sends
// everything it has and closes.
func (s *session) drain() {
	for !s.isClosing() {
		select {
		case message := <-s.inbox:
			s.decode(message, time.Now())
			s.publish(time.Now())
		default:
			return
		}
	}
}

// finish appends the device's last state, reports the end to the heartbeats, and reports the
// results of open commands.
func (s *session) finish() {
	var period time.Duration
	if s.device != nil {
		period = s.device.WakeupPeriod()
		s.mu.Lock()
		replaced := s.reason == endReplaced
		s.mu.Unlock()
		if due, waits := s.device.Due(); waits && !replaced {
			s.publish(due) // no newer state follows
		}
	}
	s.releasePlace(false)
	why := s.reportEnd(period)
	s.mu.Lock()
	faulty := s.faulty
	s.mu.Unlock()
	if s.device != nil && (faulty || !s.device.Ready() && (why == endClosed || why == endTimedOut)) {
		s.server.admission.addFailure(s.ref(), time.Now())
	}
	s.server.remove(s)
	s.cancel()
	for _, q := range s.pending {
		q.onClosed()
	}
	for {
		select {
		case o := <-s.switches:
			o.fail("the device went away before it could be told")
		default:
			return
		}
	}
}

// next returns when run must wake at the latest.
func (s *session) next(now time.Time) time.Time {
	at := now.Add(time.Minute)
	earlier := func(t time.Time) {
		if t.Before(at) {
			at = t
		}
	}
	if s.device == nil || !s.device.Ready() {
		earlier(s.began.Add(s.server.config.InitTimeout))
	} else if !s.stable {
		earlier(s.began.Add(s.server.config.StableAfter))
	}
	if s.device != nil {
		if due, waits := s.device.Due(); waits {
			earlier(due)
		}
	}
	for _, q := range s.pending {
		earlier(q.deadline)
	}
	return at
}

// expire handles the deadlines that have passed.
func (s *session) expire(now time.Time) {
	ready := s.device != nil && s.device.Ready()
	switch {
	case !ready && now.Sub(s.began) >= s.server.config.InitTimeout:
		s.refuseFor("not-in-time", closeNotInTime, fmt.Sprintf("it sent no whole status within %v", s.server.config.InitTimeout))
	case ready && !s.stable && now.Sub(s.began) >= s.server.config.StableAfter:
		s.stable = true
		s.server.admission.clearFailures(s.ref())
	}
	for id, q := range s.pending {
		if !now.Before(q.deadline) {
			delete(s.pending, id)
			q.onTimeout()
		}
	}
}

// refuseFor ends the session for a fault, and notes the refusal for operators.
func (s *session) refuseFor(reason string, frame closeFrame, detail string) {
	if s.beginEnd(frame, endClosed) {
		s.refused(reason, detail)
		s.sendClose(frame)
	}
}

// refused counts a refusal of the device and notes it for operators.
func (s *session) refused(reason, detail string) {
	device, _ := s.name.Load().(domain.DeviceID)
	s.server.parts.Refusals.Count(reason)
	s.server.parts.Refusals.Note(s.credential.ConnectionRef, domain.DeviceRefusal{
		Reason: reason, DeviceID: device, Remote: s.remote, Detail: detail,
	})
}

// noteName notes the name that the device gives itself, for the note of a refusal.
func (s *session) noteName(name domain.DeviceID) {
	if name != "" {
		s.name.CompareAndSwap(nil, name)
	}
}
