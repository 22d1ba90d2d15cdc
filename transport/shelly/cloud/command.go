package cloud

import (
	"slices"
	"strconv"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/shelly"
)

// maxRequests is how many commands wait for an actor.
const maxRequests = 64

// Why a command failed, or is unknown: words for people.
const (
	wordDown     = "the connection to the Shelly Cloud is not up"
	wordRefused  = "the Shelly Cloud refuses the credential of this connection"
	wordBusy     = "too many commands wait for this connection"
	wordExpired  = "it expired before it could be sent"
	wordGone     = "the device is not on this account"
	wordChannel  = "the device has no such switch"
	wordOffline  = "the device is offline"
	wordNoReturn = "a device of the first generation cannot be told through the Shelly Cloud to switch back"
	wordTimeout  = "the Shelly Cloud did not answer in time"
	wordDrop     = "the connection to the Shelly Cloud dropped before it answered"
	wordUnclear  = "the Shelly Cloud answered without saying how it went"
)

// request is a command on its way to an actor.
type request struct {
	shelly.SwitchCommand
	report func(shelly.SwitchResult)
}

// pending is a command that was sent.
type pending struct {
	request
	device   *held
	channel  int
	deadline time.Time
}

func failed(why string) shelly.SwitchResult {
	return shelly.SwitchResult{Outcome: domain.OutcomeFailed, Error: why}
}

func unknown(why string) shelly.SwitchResult {
	return shelly.SwitchResult{Outcome: domain.OutcomeUnknown, Error: why}
}

// request passes a command to the actor's goroutine, or reports why not. It does not
// block.
func (a *actor) request(r request) {
	why := ""
	a.mu.Lock()
	if !a.live {
		why = a.word
	} else {
		select {
		case a.requests <- r:
		default:
			why = wordBusy
		}
	}
	a.mu.Unlock()
	if why != "" {
		r.report(failed(why))
	}
}

// command sends a command. What was sent is never sent again: nobody knows whether
// it was done.
func (s *session) command(r request) *ending {
	now := time.Now()
	base := baseOf(r.Device)
	d := s.devices[base]
	why := ""
	switch {
	case !r.Expires.IsZero() && !now.Before(r.Expires):
		why = wordExpired
	case d == nil:
		why = wordGone
	case !slices.Contains(d.device.Channels(), r.Device):
		why = wordChannel
	case !canSwitch(d, r.Device):
		why = shelly.NoRelay
	case isFalse(d.online):
		why = wordOffline // the cloud would keep nothing for later (RTE)
	case r.ToggleAfter > 0 && d.gen == "G1":
		why = wordNoReturn
	}
	if why != "" {
		r.report(failed(why))
		return nil
	}
	channel, _ := d.device.ChannelOf(r.Device)
	s.trid++
	frame := relayRequest(s.trid, base, channel, r.On)
	if r.ToggleAfter > 0 || s.cfg.Jrpc && d.gen == "G2" {
		frame = switchSetRequest(s.trid, base, channel, r.On, r.ToggleAfter)
	}
	s.pending[strconv.FormatInt(s.trid, 10)] = pending{
		request: r, device: d, channel: channel, deadline: now.Add(s.cfg.CommandTimeout),
	}
	d.device.Expect(channel, r.SwitchCommand, now.Add(s.cfg.ExpectFor))
	if err := s.socket.write(frame); err != nil {
		end := dropped(reasonDropped, err) // some of it may be on its way: hangUp reports
		return &end
	}
	return nil
}

func canSwitch(d *held, id domain.DeviceID) bool {
	channel, ok := d.device.ChannelOf(id)
	return ok && d.device.CanSwitch(channel)
}

func isFalse(o domain.Optional[bool]) bool {
	v, ok := o.Get()
	return ok && !v
}

// answer settles the command that a response is for. Responses that nobody waits for
// any more, or never did, are nothing to us.
func (s *session) answer(m Response) {
	p, ok := s.pending[m.TransactionID]
	if !ok {
		return
	}
	delete(s.pending, m.TransactionID)
	switch {
	case !m.Answered:
		p.report(unknown(wordUnclear))
	case m.OK: // taken, that is: the relay's state comes as a status
		p.report(shelly.SwitchResult{Outcome: domain.OutcomeCompleted})
	default:
		p.device.device.Forgo(p.channel, p.CommandID)
		p.report(failed(s.secret.scrub(meaning(m.Error))))
	}
}

// meaning adds to the vendor's word what it stands for.
func meaning(word string) string {
	switch word {
	case "":
		return "the Shelly Cloud refused it"
	case "WRONG_ID":
		return "WRONG_ID: " + wordGone
	case "UNAUTHORIZED":
		return "UNAUTHORIZED: this account may not switch the device"
	case "DEVICE_OFFLINE":
		return "DEVICE_OFFLINE: " + wordOffline
	}
	return word
}

// expire gives up on commands that were not answered.
func (s *session) expire(now time.Time) {
	for id, p := range s.pending {
		if !now.Before(p.deadline) {
			delete(s.pending, id)
			p.report(unknown(wordTimeout))
		}
	}
}

// hangUp takes no more commands, and reports what is to be said of those there are.
func (s *session) hangUp() {
	s.mu.Lock()
	s.live, s.word = false, wordDown
	s.mu.Unlock()
	for id, p := range s.pending {
		delete(s.pending, id)
		p.report(unknown(wordDrop))
	}
	for {
		select {
		case r := <-s.requests:
			r.report(failed(wordDown))
		default:
			return
		}
	}
}
