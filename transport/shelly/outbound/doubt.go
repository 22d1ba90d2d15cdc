package outbound

import (
	"encoding/json"
	"strconv"
	"time"

	"github.com/plugcast/plugcast/transport/shelly/rpc"
	"github.com/plugcast/plugcast/transport/shelly/status"
)

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
		case switchedBy(part) != "" && switchedBy(part) != ourSource:
			delete(s.told, channel) // somebody else switched it, and says so
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

// ourSource is the source of what is switched over a WebSocket (measured).
const ourSource = "WS_in"

// switchedBy is who switched a relay, when the component says so. Old states that
// come once more do not (measured).
func switchedBy(part map[string]any) string {
	source, _ := part["source"].(string)
	return source
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
			s.device.Delta(d.kept, time.Now())
			d.kept = nil
		}
	}
	s.put(&question{
		deadline: now.Add(s.server.config.AskWithin), late: believe, lost: nothing,
		answered: func(f *rpc.Frame, now time.Time) {
			var part map[string]any
			if f.Err != nil || json.Unmarshal(f.Result, &part) != nil {
				believe()
				return
			}
			if on, says := part["output"].(bool); says && on != d.on && s.told[channel] == d {
				delete(s.told, channel) // somebody else switched it: there is no doubt
			}
			d.asking, d.kept = false, nil
			s.device.Delta(status.Document{component(channel): part}, now)
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
