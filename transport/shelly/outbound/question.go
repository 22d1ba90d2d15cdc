package outbound

import (
	"strings"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/shelly"
	"github.com/plugcast/plugcast/transport/shelly/rpc"
	"github.com/plugcast/plugcast/transport/shelly/status"
)

// question is a request of ours that the device has not answered. One of the
// three functions is called, once.
type question struct {
	deadline time.Time
	answered func(f *rpc.Frame, now time.Time)
	late     func() // no answer in time
	lost     func() // the socket went first
}

// put asks the device something.
func (s *session) put(q *question, encode func(id uint64) []byte) {
	s.nextID++
	s.pending[s.nextID] = q
	_ = s.ws.Write(encode(s.nextID)) // when the socket is closed, run ends and tells
}

// settle takes an answer. One to nothing that is open is late, or comes twice, or
// is made up: it says nothing.
func (s *session) settle(f *rpc.Frame, now time.Time) {
	id, ok := f.Number()
	q := s.pending[id]
	if !ok || q == nil {
		return
	}
	delete(s.pending, id)
	q.answered(f, now)
}

func nothing() {}

// askForStatus asks for a whole status, once: of a device that did not begin with
// one (Wall Displays, measured).
func (s *session) askForStatus(now time.Time) {
	if s.asked {
		return
	}
	s.asked = true
	s.put(&question{
		deadline: now.Add(s.server.config.InitWithin), late: nothing, lost: nothing,
		answered: func(f *rpc.Frame, now time.Time) {
			if doc, err := status.Parse(f.Result); f.Err == nil && err == nil {
				s.full(doc, now)
			}
		},
	}, func(id uint64) []byte { return rpc.GetStatus(id, s.ref().Device) })
}

// order is a command for the device and where its end is to be told.
type order struct {
	shelly.SwitchCommand
	channel int
	report  func(shelly.SwitchResult)
}

func (o *order) fail(why string) {
	o.report(shelly.SwitchResult{Outcome: domain.OutcomeFailed, Error: why})
}

// Holds implements shelly.Holder.
func (s *Server) Holds(d shelly.DeviceRef) bool {
	_, ok := channelOf(d.Device)
	return ok && s.holder(d) != nil
}

// Switch implements shelly.Holder.
func (s *Server) Switch(c shelly.SwitchCommand, report func(shelly.SwitchResult)) bool {
	one := s.holder(c.DeviceRef)
	channel, ok := channelOf(c.Device)
	return ok && one != nil && one.take(&order{c, channel, report})
}

// channelOf is the channel that the device's name says. It is not ok for one that
// no device has.
func channelOf(id domain.DeviceID) (channel int, ok bool) {
	_, suffix, found := strings.Cut(string(id), ":")
	if !found {
		return 0, true
	}
	return status.Channel(suffix)
}

// Correct implements shelly.Holder.
func (s *Server) Correct(base shelly.DeviceRef, rows []*domain.Device) {
	if one := s.holder(base); one != nil {
		select {
		case one.corrected <- rows:
		default:
		}
	}
}

// take passes an order to run. It answers false when the session is over.
func (s *session) take(o *order) bool {
	s.mu.Lock()
	if s.closing || s.broken {
		s.mu.Unlock()
		return false
	}
	full := false
	select {
	case s.switches <- o:
	default:
		full = true
	}
	s.mu.Unlock()
	if full {
		o.fail(tooManyCommands)
	}
	return true
}

const tooManyCommands = "too many commands for this device at once"

// ask switches a relay. Switch.Set says how the relay should be, and is sent once:
// when no answer comes, nobody knows, and nobody tries again.
func (s *session) ask(o *order, now time.Time) {
	switch {
	case s.device == nil || !s.device.Ready():
		o.fail("the device has not said what it is yet")
		return
	case !s.device.CanSwitch(o.channel):
		o.fail(shelly.NoRelay)
		return
	case !now.Before(o.Expires):
		o.fail("the command expired before it could be sent")
		return
	case len(s.pending) >= s.server.config.MaxPending:
		o.fail(tooManyCommands)
		return
	}
	s.device.Expect(o.channel, o.SwitchCommand, now.Add(s.server.config.ExpectFor))
	unknown := func(why string) func() {
		return func() { o.report(shelly.SwitchResult{Outcome: domain.OutcomeUnknown, Error: why}) }
	}
	s.put(&question{
		deadline: now.Add(s.server.config.AskWithin),
		late:     unknown("the device did not answer in time: it may have switched"),
		lost:     unknown("the device went away before it answered: it may have switched"),
		answered: func(f *rpc.Frame, now time.Time) {
			if f.Err != nil {
				s.device.Forgo(o.channel, o.CommandID)
				o.fail(f.Err.Error())
				return
			}
			s.told[o.channel] = &doubt{on: o.On, until: now.Add(s.server.config.DoubtFor)}
			o.report(shelly.SwitchResult{Outcome: domain.OutcomeCompleted})
		},
	}, func(id uint64) []byte { return rpc.SwitchSet(id, s.ref().Device, o.channel, o.On, o.ToggleAfter) })
}
