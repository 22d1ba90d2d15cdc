package outbound

import (
	"encoding/json"
	"strconv"
	"time"

	"github.com/plugcast/plugcast/transport/shelly/rpc"
	"github.com/plugcast/plugcast/transport/shelly/status"
)

// recentSwitch is a command that a channel has just carried out. Some devices then report
// the old state once more, up to 30 s later (measured: firmware 2.0.1-beta1). So a report
// that contradicts the command is kept until the device has answered which one is true.
type recentSwitch struct {
	on     bool
	until  time.Time
	asking bool
	kept   status.Document // the contradicting reports while we ask, or nil
}

// withoutStale returns a delta without the reports that contradict a recent command. It asks the
// device about those channels.
func (s *session) withoutStale(doc status.Document, now time.Time) status.Document {
	for channel, d := range s.switched {
		if now.After(d.until) && !d.asking {
			delete(s.switched, channel)
			continue
		}
		name := component(channel)
		part, _ := doc[name].(map[string]any)
		on, says := part["output"].(bool)
		switch {
		case !says:
		case on == d.on:
			d.kept = nil // it agrees, so the kept report was old
		case switchedBy(part) != "" && switchedBy(part) != ourSource:
			delete(s.switched, channel) // its source is somebody else
		default:
			if d.kept == nil {
				d.kept = status.Document{}
			}
			d.kept.Merge(status.Document{name: part})
			doc = without(doc, name)
			if !d.asking {
				s.verify(channel, d, now)
			}
		}
	}
	return doc
}

// ourSource is the source that a relay names after a command over a WebSocket (measured).
const ourSource = "WS_in"

// switchedBy returns the source that switched a relay, if the component names it. A repeated
// old state does not (measured).
func switchedBy(part map[string]any) string {
	source, _ := part["source"].(string)
	return source
}

// replaceStale replaces, in a whole status, states that contradict a recent command by the
// commanded ones, until the device has answered. It drops reports that were kept before,
// because the status is newer.
func (s *session) replaceStale(doc status.Document, now time.Time) {
	for channel, d := range s.switched {
		d.kept = nil
		part, _ := doc[component(channel)].(map[string]any)
		if on, says := part["output"].(bool); says && on != d.on && !now.After(d.until) {
			d.kept = status.Document{component(channel): map[string]any{"output": on}}
			part["output"] = d.on
			if !d.asking {
				s.verify(channel, d, now)
			}
		}
	}
}

// verify asks for the state of a channel. The answer is newer than all earlier reports.
// Without an answer, the kept reports count.
func (s *session) verify(channel int, d *recentSwitch, now time.Time) {
	d.asking = true
	believe := func() {
		d.asking = false
		if d.kept != nil {
			s.device.Delta(d.kept, time.Now())
			d.kept = nil
		}
	}
	s.call(&call{
		deadline: now.Add(s.server.config.RequestTimeout), onTimeout: believe, onClosed: noop,
		onResponse: func(f *rpc.Frame, now time.Time) {
			var part map[string]any
			if f.Err != nil || json.Unmarshal(f.Result, &part) != nil {
				believe()
				return
			}
			if on, says := part["output"].(bool); says && on != d.on && s.switched[channel] == d {
				delete(s.switched, channel) // somebody else switched it
			}
			d.asking, d.kept = false, nil
			s.device.Delta(status.Document{component(channel): part}, now)
		},
	}, func(id uint64) []byte { return rpc.SwitchGetStatus(id, s.ref().Device, channel) })
}

func component(channel int) string { return "switch:" + strconv.Itoa(channel) }

// without returns a copy of a document without one component.
func without(doc status.Document, name string) status.Document {
	rest := make(status.Document, len(doc))
	for n, v := range doc {
		if n != name {
			rest[n] = v
		}
	}
	return rest
}
