package outbound

import (
	"encoding/json"
	"strconv"
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

// Switch implements shelly.Holder.
func (s *Server) Switch(c shelly.SwitchCommand, report func(shelly.SwitchResult)) bool {
	one := s.holder(c.DeviceRef)
	if one == nil {
		return false
	}
	channel := 0
	if _, suffix, found := strings.Cut(string(c.Device), ":"); found {
		var ok bool
		if channel, ok = status.Channel(suffix); !ok {
			return false
		}
	}
	return one.take(&order{c, channel, report})
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

// doubt is for what a device says right after we switched it: some report the old
// state once more, up to 30 s later (measured: firmware 2.0.1-beta1). A report
// that contradicts us is kept until the device has answered what is true.
type doubt struct {
	on     bool
	until  time.Time
	asking bool
	kept   status.Document // what contradicts, while we ask; nil when nothing does
}

// withoutDoubts is a delta without the channels that are in doubt. They are asked
// about.
func (s *session) withoutDoubts(doc status.Document, now time.Time) status.Document {
	for channel, d := range s.told {
		if now.After(d.until) && !d.asking {
			delete(s.told, channel)
			continue
		}
		name := component(channel)
		part, _ := doc[name].(map[string]any)
		on, says := part["output"].(bool)
		switch {
		case !says:
		case on == d.on:
			d.kept = nil // it agrees, so what was kept was old
		default:
			if d.kept == nil {
				d.kept = status.Document{}
			}
			d.kept.Merge(status.Document{name: part})
			doc = without(doc, name)
			if !d.asking {
				s.resolve(channel, d, now)
			}
		}
	}
	return doc
}

// doubtFull gives the relays of a whole status that contradict us the state that we
// gave them, until the device has answered. What was kept before is older than the
// status, and void.
func (s *session) doubtFull(doc status.Document, now time.Time) {
	for channel, d := range s.told {
		d.kept = nil
		part, _ := doc[component(channel)].(map[string]any)
		if on, says := part["output"].(bool); says && on != d.on && !now.After(d.until) {
			d.kept = status.Document{component(channel): map[string]any{"output": on}}
			part["output"] = d.on
			if !d.asking {
				s.resolve(channel, d, now)
			}
		}
	}
}

// resolve asks for the state of a channel. The answer is later than all that the
// device has said before; without one, what was kept counts.
func (s *session) resolve(channel int, d *doubt, now time.Time) {
	d.asking = true
	believe := func() {
		d.asking = false
		if d.kept != nil {
			s.device.Delta(d.kept)
			d.kept = nil
		}
	}
	s.put(&question{
		deadline: now.Add(s.server.config.AskWithin), late: believe, lost: nothing,
		answered: func(f *rpc.Frame, _ time.Time) {
			var part map[string]any
			if f.Err != nil || json.Unmarshal(f.Result, &part) != nil {
				believe()
				return
			}
			if on, says := part["output"].(bool); says && on != d.on && s.told[channel] == d {
				delete(s.told, channel) // somebody else switched it: there is no doubt
			}
			d.asking, d.kept = false, nil
			s.device.Delta(status.Document{component(channel): part})
		},
	}, func(id uint64) []byte { return rpc.SwitchGetStatus(id, s.ref().Device, channel) })
}

func component(channel int) string { return "switch:" + strconv.Itoa(channel) }

// without is a document without one component. The original is left as it is.
func without(doc status.Document, name string) status.Document {
	rest := make(status.Document, len(doc))
	for n, v := range doc {
		if n != name {
			rest[n] = v
		}
	}
	return rest
}
