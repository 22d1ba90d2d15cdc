package cloud

import (
	"encoding/json"
	"slices"
	"strconv"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/shelly"
)

// maxRequests is how many commands may wait for a session.
const maxRequests = 64

// Why a command failed or has an unknown outcome: texts for people.
const (
	msgDown     = "the connection to the Shelly Cloud is not up"
	msgRefused  = "the Shelly Cloud refuses the credential of this connection"
	msgBusy     = "too many commands wait for this connection"
	msgExpired  = "it expired before it could be sent"
	msgGone     = "the device is not on this account"
	msgChannel  = "the device has no such switch"
	msgOffline  = "the device is offline"
	msgNoReturn = "a device of the first generation cannot be told through the Shelly Cloud to switch back"
	msgTimeout  = "the Shelly Cloud did not answer in time"
	msgDrop     = "the connection to the Shelly Cloud dropped before it answered"
	msgUnclear  = "the Shelly Cloud answered without saying how it went"
)

// request is a command, and the function that takes its result.
type request struct {
	shelly.SwitchCommand
	report func(shelly.SwitchResult)
}

func (r *request) fail(why string) {
	r.report(shelly.SwitchResult{Outcome: domain.OutcomeFailed, Error: why})
}

func (r *request) unknown(why string) {
	r.report(shelly.SwitchResult{Outcome: domain.OutcomeUnknown, Error: why})
}

// pending is a command that was sent.
type pending struct {
	request
	device   *device
	channel  int
	deadline time.Time
}

// request passes a command to the session's goroutine, or reports its failure. It does
// not block.
func (s *session) request(r request) {
	why := ""
	s.mu.Lock()
	switch {
	case s.live:
		select {
		case s.requests <- r:
		default:
			why = msgBusy
		}
	case s.state == domain.StateRefused:
		why = msgRefused
	default:
		why = msgDown
	}
	s.mu.Unlock()
	if why != "" {
		r.fail(why)
	}
}

// command sends a command, once: after that it may have been carried out.
func (s *session) command(r request) *ending {
	now := time.Now()
	base := baseOf(r.Device)
	d := s.devices[base]
	if why := refuseCommand(r.SwitchCommand, d, now); why != "" {
		r.fail(why)
		return nil
	}
	channel, _ := d.state.ChannelOf(r.Device)
	s.trid++
	frame := relayRequest(s.trid, base, channel, r.On)
	if r.ToggleAfter > 0 || s.cfg.Jrpc && d.gen == "G2" {
		frame = switchSetRequest(s.trid, base, channel, r.On, r.ToggleAfter)
	}
	s.pending[strconv.FormatInt(s.trid, 10)] = pending{
		request: r, device: d, channel: channel, deadline: now.Add(s.cfg.CommandTimeout),
	}
	d.state.Expect(channel, r.SwitchCommand, now.Add(s.cfg.ExpectFor))
	if err := s.socket.write(frame); err != nil {
		end := dropped(reasonDropped, err) // the cloud may have part of it: stopCommands reports that
		return &end
	}
	return nil
}

// refuseCommand returns why a command cannot be sent, or "". d is nil when the device
// is not on the account.
func refuseCommand(c shelly.SwitchCommand, d *device, now time.Time) string {
	switch {
	case !c.Expires.IsZero() && !now.Before(c.Expires):
		return msgExpired
	case d == nil:
		return msgGone
	case !slices.Contains(d.state.Channels(), c.Device):
		return msgChannel
	}
	channel, _ := d.state.ChannelOf(c.Device)
	online, known := d.online.Get()
	switch {
	case !d.state.CanSwitch(channel):
		return shelly.NoRelay
	case known && !online:
		return msgOffline // the cloud would not keep it for later (RTE)
	case c.ToggleAfter > 0 && d.gen == "G1":
		return msgNoReturn
	}
	return ""
}

// settle reports the result of the command that a response answers. It ignores a
// response that is late, repeated or made up.
func (s *session) settle(m response) {
	p, ok := s.pending[m.transactionID]
	if !ok {
		return
	}
	delete(s.pending, m.transactionID)
	switch {
	case !m.answered:
		p.unknown(msgUnclear)
	case m.ok: // accepted, that is: a status tells the relay's state later
		p.report(shelly.SwitchResult{Outcome: domain.OutcomeCompleted})
	default:
		p.device.state.CancelExpect(p.channel, p.CommandID)
		p.fail(s.secret.scrub(explain(m.err)))
	}
}

// explain adds the meaning to the vendor's error word.
func explain(word string) string {
	switch word {
	case "":
		return "the Shelly Cloud refused it"
	case "WRONG_ID":
		return "WRONG_ID: " + msgGone
	case "UNAUTHORIZED":
		return "UNAUTHORIZED: this account may not switch the device"
	case "DEVICE_OFFLINE":
		return "DEVICE_OFFLINE: " + msgOffline
	}
	return word
}

// expire gives up on commands that were not answered in time.
func (s *session) expire(now time.Time) {
	for id, p := range s.pending {
		if !now.Before(p.deadline) {
			delete(s.pending, id)
			p.unknown(msgTimeout)
		}
	}
}

// stopCommands accepts no more commands, and reports the results of the accepted ones.
func (s *session) stopCommands() {
	s.mu.Lock()
	s.live = false
	s.mu.Unlock()
	for id, p := range s.pending {
		delete(s.pending, id)
		p.unknown(msgDrop)
	}
	for {
		select {
		case r := <-s.requests:
			r.fail(msgDown)
		default:
			return
		}
	}
}

// relayRequest encodes a request to switch a relay (RTE). Its trid is a number. It
// cannot ask the device to switch back later.
func relayRequest(trid int64, device domain.DeviceID, channel int, on bool) []byte {
	turn := "off"
	if on {
		turn = "on"
	}
	return encode(map[string]any{
		"event": "Shelly:CommandRequest", "trid": trid, "deviceId": socketText(device),
		"data": map[string]any{"cmd": "relay", "params": map[string]any{"turn": turn, "id": channel}},
	})
}

// switchSetRequest encodes a call of Switch.Set on a device of the second generation or
// later. The vendor's own client makes such calls, without documentation (US). Its
// trid is a string.
func switchSetRequest(trid int64, device domain.DeviceID, channel int, on bool, toggleAfter time.Duration) []byte {
	params := map[string]any{"id": channel, "on": on}
	if toggleAfter > 0 {
		params["toggle_after"] = toggleAfter.Seconds()
	}
	return encode(map[string]any{
		"event": "Shelly:JrpcRequest", "trid": strconv.FormatInt(trid, 10), "deviceId": socketText(device),
		"method": "Switch.Set", "params": params,
	})
}

func encode(v map[string]any) []byte {
	raw, _ := json.Marshal(v) // texts, integers and finite numbers always marshal
	return raw
}
