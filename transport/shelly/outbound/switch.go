package outbound

import (
	"strings"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/shelly"
	"github.com/plugcast/plugcast/transport/shelly/rpc"
	"github.com/plugcast/plugcast/transport/shelly/status"
)

// switchRequest is a command for the device, and the function that takes its result.
type switchRequest struct {
	shelly.SwitchCommand
	channel int
	report  func(shelly.SwitchResult)
}

func (o *switchRequest) fail(why string) {
	o.report(shelly.SwitchResult{Outcome: domain.OutcomeFailed, Error: why})
}

// Holds implements shelly.Holder.
func (s *Server) Holds(d domain.DeviceRef) bool {
	_, ok := channelOf(d.Device)
	return ok && s.holder(d) != nil
}

// Switch implements shelly.Holder.
func (s *Server) Switch(c shelly.SwitchCommand, report func(shelly.SwitchResult)) bool {
	one := s.holder(c.DeviceRef)
	channel, ok := channelOf(c.Device)
	return ok && one != nil && one.enqueue(&switchRequest{c, channel, report})
}

// channelOf returns the channel in a device's id. ok is false for a channel that no device
// has.
func channelOf(id domain.DeviceID) (channel int, ok bool) {
	_, suffix, found := strings.Cut(string(id), ":")
	if !found {
		return 0, true
	}
	return status.Channel(suffix)
}

// Correct implements shelly.Holder.
func (s *Server) Correct(base domain.DeviceRef, rows []*domain.Device) {
	if one := s.holder(base); one != nil {
		select {
		case one.corrected <- rows:
		default:
		}
	}
}

// enqueue passes a request to run. It returns false when the session is over.
func (s *session) enqueue(o *switchRequest) bool {
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

// switchRelay sends Switch.Set, once. Without a response the outcome is unknown, and nobody
// tries again.
func (s *session) switchRelay(o *switchRequest, now time.Time) {
	switch {
	case s.device == nil || !s.device.Ready():
		o.fail("the device has not sent its status yet")
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
	s.call(&call{
		deadline:  now.Add(s.server.config.RequestTimeout),
		onTimeout: unknown("the device did not answer in time: it may have switched"),
		onClosed:  unknown("the device went away before it answered: it may have switched"),
		onResponse: func(f *rpc.Frame, now time.Time) {
			if f.Err != nil {
				s.device.CancelExpect(o.channel, o.CommandID)
				o.fail(f.Err.Error())
				return
			}
			s.switched[o.channel] = &recentSwitch{on: o.On, until: now.Add(s.server.config.VerifyFor)}
			o.report(shelly.SwitchResult{Outcome: domain.OutcomeCompleted})
		},
	}, func(id uint64) []byte { return rpc.SwitchSet(id, s.ref().Device, o.channel, o.On, o.ToggleAfter) })
}
