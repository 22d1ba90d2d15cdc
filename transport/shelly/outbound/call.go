package outbound

import (
	"time"

	"github.com/plugcast/plugcast/transport/shelly/rpc"
	"github.com/plugcast/plugcast/transport/shelly/status"
)

// call is a request of ours without a response so far. Exactly one of the three functions
// is called, once.
type call struct {
	deadline   time.Time
	onResponse func(f *rpc.Frame, now time.Time)
	onTimeout  func() // no response in time
	onClosed   func() // the socket closed first
}

// call sends a request to the device.
func (s *session) call(q *call, encode func(id uint64) []byte) {
	s.nextID++
	s.pending[s.nextID] = q
	_ = s.ws.Write(encode(s.nextID)) // if the socket is closed, run ends and calls onClosed
}

// handleResponse handles a response. It ignores one without an open call: such a response is
// late, repeated or made up.
func (s *session) handleResponse(f *rpc.Frame, now time.Time) {
	id, ok := f.Number()
	q := s.pending[id]
	if !ok || q == nil {
		return
	}
	delete(s.pending, id)
	q.onResponse(f, now)
}

func noop() {}

// requestStatus requests a whole status, once, from a device that did not begin with one
// (Wall Displays, measured).
func (s *session) requestStatus(now time.Time) {
	if s.statusRequested {
		return
	}
	s.statusRequested = true
	s.call(&call{
		deadline: now.Add(s.server.config.InitTimeout), onTimeout: noop, onClosed: noop,
		onResponse: func(f *rpc.Frame, now time.Time) {
			if doc, err := status.Parse(f.Result); f.Err == nil && err == nil {
				s.full(doc, now)
			}
		},
	}, func(id uint64) []byte { return rpc.GetStatus(id, s.ref().Device) })
}
