package outbound

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/shelly"
	"github.com/plugcast/plugcast/transport/shelly/rpc"
	"github.com/plugcast/plugcast/transport/shelly/status"
)

// actor is what the goroutine of a session knows of its device.
type actor struct {
	device  *shelly.Device // nil before the device was let in
	offline map[domain.DeviceID]bool
	isNew   bool // nobody knew it, and nothing of it is in the log yet
	stable  bool // the session has lasted long enough to forgive former ones
	events  window

	asked   bool // for a whole status
	nextID  uint64
	pending map[uint64]*question
	told    map[int]*doubt // what we told a channel, for as long as it may be contradicted
}

// ioWithin bounds a look-up while a device is being let in.
const ioWithin = 10 * time.Second

// run is the session, from the socket's opening until it is gone.
func (s *session) run() {
	s.pending, s.told = map[uint64]*question{}, map[int]*doubt{}
	defer close(s.ended)
	defer s.finish()
	timer := time.NewTimer(s.server.config.InitWithin)
	defer timer.Stop()
	for !s.isClosing() {
		select {
		case <-s.gone:
			s.drain()
			return
		case message := <-s.inbox:
			s.decode(message, time.Now())
		case o := <-s.switches:
			s.ask(o, time.Now())
		case rows := <-s.corrected:
			if s.device != nil {
				s.device.Correct(rows)
			}
		case <-timer.C:
		}
		now := time.Now()
		if len(s.inbox) == 0 { // an answer that is there is not too late, however long the log took
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

// drain takes what came before the socket went: a device that sleeps says all
// that it has to say and goes.
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

// finish says the last that is known of the device, answers what is open and says
// what becomes of the device.
func (s *session) finish() {
	var period time.Duration
	if s.device != nil {
		period = s.device.WakeupPeriod()
		s.mu.Lock()
		replaced := s.fate == fateReplaced
		s.mu.Unlock()
		if due, waits := s.device.Due(); waits && !replaced {
			s.publish(due) // nothing newer comes
		}
	}
	s.noNewcomer()
	f := s.bury(period)
	s.mu.Lock()
	faulty := s.faulty
	s.mu.Unlock()
	if s.device != nil && (faulty || !s.device.Ready() && (f == fateClosed || f == fateDead)) {
		s.server.door.failed(s.ref(), time.Now())
	}
	s.server.remove(s)
	s.cancel()
	for _, q := range s.pending {
		q.lost()
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

// next is when run wants to be woken at the latest.
func (s *session) next(now time.Time) time.Time {
	at := now.Add(time.Minute)
	earlier := func(t time.Time) {
		if t.Before(at) {
			at = t
		}
	}
	if s.device == nil || !s.device.Ready() {
		earlier(s.began.Add(s.server.config.InitWithin))
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

// expire deals with what was to happen by now.
func (s *session) expire(now time.Time) {
	ready := s.device != nil && s.device.Ready()
	switch {
	case !ready && now.Sub(s.began) >= s.server.config.InitWithin:
		s.endFor("not-in-time", closeNotInTime, fmt.Sprintf("it sent no whole status within %v", s.server.config.InitWithin))
	case ready && !s.stable && now.Sub(s.began) >= s.server.config.StableAfter:
		s.stable = true
		s.server.door.forgive(s.ref())
	}
	for id, q := range s.pending {
		if !now.Before(q.deadline) {
			delete(s.pending, id)
			q.late()
		}
	}
}

// endFor ends the session for a fault that operators see.
func (s *session) endFor(reason string, rule closeRule, detail string) {
	if s.beginEnd(rule, fateClosed) {
		s.refused(reason, detail)
		s.sendClose(rule)
	}
}

// refused counts a refusal of the device and notes it for operators.
func (s *session) refused(reason, detail string) {
	device, _ := s.claimed.Load().(domain.DeviceID)
	s.server.refusals.count(reason)
	s.server.refusals.note(s.credential.Connection, domain.DeviceRefusal{
		Reason: reason, DeviceID: device, Remote: s.remote, Detail: detail,
	})
}

// claims notes what the device calls itself, for what is told of its refusal.
func (s *session) claims(name domain.DeviceID) {
	if name != "" {
		s.claimed.CompareAndSwap(nil, name)
	}
}

// publish appends what is worth an event.
func (s *session) publish(now time.Time) {
	if s.device == nil {
		return
	}
	updates := s.device.Take(now)
	if len(updates) == 0 {
		return
	}
	err := shelly.Publish(s.ctx, s.server.parts.Events, s.credential.Connection, updates)
	if err != nil {
		if s.ctx.Err() == nil {
			s.server.parts.Logger.Error("outbound: the log refuses a device's update", "device", s.ref().Device, "error", err)
		}
		s.end(closeLater, fateClosed)
	}
	s.noNewcomer()
	if s.events.add(now, len(updates)) > s.server.config.MaxEvents {
		s.endFor("flood", closeFlood, fmt.Sprintf("its messages caused over %d events in a minute", s.server.config.MaxEvents))
	}
}

// noNewcomer says that the device is in the log, or will not be.
func (s *session) noNewcomer() {
	if s.isNew {
		s.isNew = false
		s.server.new.leave(s.credential.Connection)
	}
}

// decode decodes a frame and takes it, or ends the session.
func (s *session) decode(message []byte, now time.Time) {
	f, err := rpc.Decode(message)
	switch {
	case err == nil:
		s.handle(&f, now)
	case errors.Is(err, rpc.ErrNoFrame): // of a device that knows more than we do
	default:
		s.claims(rpc.SourceOf(message))
		s.endFor("bad-frame", closeBadFrame, err.Error())
	}
}

// handle takes one frame.
func (s *session) handle(f *rpc.Frame, now time.Time) {
	if s.device == nil && !s.admit(f.Source, now) {
		return
	}
	if f.Source != s.ref().Device {
		s.endFor("src-changed", closeChanged, "it changed its src to "+string(f.Source))
		return
	}
	switch {
	case f.Kind == rpc.KindResponse:
		s.settle(f, now)
	case f.Kind == rpc.KindRequest:
		_ = s.ws.Write(rpc.NoHandler(f)) // fails when the socket is closed
	case f.Method == rpc.NotifyFullStatus:
		s.full(f.Params, now)
	case f.Method == rpc.NotifyStatus:
		s.delta(f.Params, now)
	}
	if !s.device.Ready() {
		s.askForStatus(now)
	}
}

// admit lets a device in by the name that it gives itself, or ends the session.
func (s *session) admit(base domain.DeviceID, now time.Time) bool {
	server := s.server
	if !s.mayCome(base, now) {
		return false
	}
	ctx, cancel := context.WithTimeout(s.ctx, ioWithin)
	defer cancel()
	s.mu.Lock()
	s.base = base
	s.mu.Unlock()
	s.claims(base)
	if old := server.claim(s); old != nil {
		old.end(closeReplaced, fateReplaced)
		select {
		case <-old.ended: // what it still had to say comes before what we say
		case <-ctx.Done():
		}
		if !s.mayCome(base, time.Now()) {
			return false // the old one had just failed
		}
	}
	known, err := server.parts.Known.Channels(ctx, s.credential.System, base)
	if err != nil {
		s.reject(base, err)
		return false
	}
	if len(known) == 0 {
		refusal, err := server.new.enter(ctx, s.credential.Connection)
		switch {
		case err != nil:
			s.reject(base, err)
			return false
		case refusal != "":
			s.endFor("too-many-devices", closeTooMany, refusal)
			return false
		}
		s.isNew = true
	}
	s.offline = map[domain.DeviceID]bool{}
	for _, row := range known {
		s.offline[row.DeviceID] = row.Online != nil && !*row.Online
	}
	s.device = shelly.NewDevice(s.credential.Connection, base, known, server.config.Policy)
	s.device.SetOnline(true)
	return true
}

// mayCome reports whether the device has stayed away as long as it has to, or ends
// the session.
func (s *session) mayCome(base domain.DeviceID, now time.Time) bool {
	wait := s.server.door.wait(shelly.DeviceRef{System: s.credential.System, Device: base}, now)
	if wait > 0 {
		s.claims(base)
		s.endFor("cooldown", closeCooldown(int(wait.Seconds())+1),
			"it has just been refused and must not reconnect for "+wait.Round(time.Second).String())
	}
	return wait == 0
}

// reject ends the session of a device that could not be admitted.
func (s *session) reject(base domain.DeviceID, err error) {
	s.claims(base)
	if s.ctx.Err() == nil {
		s.server.parts.Logger.Warn("outbound: a device could not be admitted",
			"system", s.credential.System, "connection", s.credential.ID, "device", base, "error", err)
	}
	s.endFor("unavailable", closeLater, "its stored state could not be read")
}

// full takes a whole status. What was in doubt before is settled by it.
func (s *session) full(doc status.Document, now time.Time) {
	s.doubtFull(doc, now)
	s.device.Full(doc, now)
	s.watch(s.device.Channels(), s.offline, s.silentAfter())
}

func (s *session) delta(doc status.Document, now time.Time) {
	s.device.Delta(s.withoutDoubts(doc, now), now)
	if s.device.Ready() {
		s.watch(s.device.Channels(), s.offline, s.silentAfter())
	}
}

// silentAfter is how long the device counts as alive after it was heard: longer
// for one that sleeps, and never less than it may take to answer a ping.
func (s *session) silentAfter() time.Duration {
	return max(s.server.config.SilentAfter, 2*s.device.WakeupPeriod(), s.server.pongWait())
}
