package sse

import (
	"bytes"
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/client"
	"github.com/plugcast/plugcast/transport/rooms"
	"github.com/plugcast/plugcast/transport/snapshot"
)

// encoding encodes events as lines of the stream. Readers at the same place share the bytes.
type encoding struct{}

// Encode implements [rooms.Encoding].
func (encoding) Encode(events []*rooms.Encoded) []byte {
	const around = 96 // id, event and data lines around an envelope
	size := 0
	for _, e := range events {
		size += len(e.Envelope) + around
	}
	b := make([]byte, 0, size)
	for _, e := range events {
		b = append(b, "id: "...)
		b = append(b, e.Cursor.Position.String()...)
		b = append(b, "\nevent: "...)
		b = appendName(b, e.Type)
		b = append(b, "\ndata: "...)
		b = appendLine(b, e.Envelope)
		b = append(b, "\n\n"...)
	}
	return b
}

// appendName appends a type without line breaks, which would end the field. An unknown type
// may contain any character.
func appendName(b []byte, t domain.EventType) []byte {
	for i := range len(t) {
		if c := t[i]; c == '\n' || c == '\r' {
			b = append(b, ' ')
		} else {
			b = append(b, c)
		}
	}
	return b
}

// appendLine appends JSON as one line. Data is kept byte for byte, so it may contain line
// breaks between tokens; those become spaces.
func appendLine(b, json []byte) []byte {
	at := len(b)
	b = append(b, json...)
	if bytes.ContainsAny(json, "\r\n") {
		for i := at; i < len(b); i++ {
			if b[i] == '\n' || b[i] == '\r' {
				b[i] = ' '
			}
		}
	}
	return b
}

// stream is one open stream and the face of its session. It passes frames from the room to
// the request's goroutine, in order. A stream has exactly one room, so it implements that
// room as well, and a reader that has to leave the room is disconnected.
type stream struct {
	session      *client.Session
	end          context.CancelCauseFunc // cancels the request's work; a cause may be disconnected
	out          atomic.Pointer[writer]  // nil until the stream begins
	subscription *rooms.Subscription     // set before the first frame
	items        chan item
}

var (
	_ client.Face = (*stream)(nil)
	_ client.Room = (*stream)(nil)
)

// disconnected is the cause of a canceled stream whose reader gets the reason.
type disconnected struct{ client.ForcedDisconnect }

// Error implements error.
func (*disconnected) Error() string { return "sse: disconnected by command" }

// item is a frame, or a notice that the reader's place is lost.
type item struct {
	frame     rooms.Frame
	restarted *domain.Cursor
	broken    bool // the stream has to end
}

// newStream makes a stream. The channel has room for one frame; the rest is for restarts,
// which are rare, and a stuck reader needs only some of them.
func newStream(end context.CancelCauseFunc) *stream {
	return &stream{end: end, items: make(chan item, 4)}
}

// NewRoom implements [client.Face].
func (s *stream) NewRoom(domain.SystemID) client.Room { return s }

// Enter implements [client.Room].
func (s *stream) Enter(subscription *rooms.Subscription, _ rooms.Joined) {
	s.subscription = subscription
}

// Begin implements [client.Room]. Streams have no snapshots.
func (s *stream) Begin(state *snapshot.Snapshot) bool {
	state.Release()
	return true
}

// Silence implements [client.Room]. It has nothing to do, because the stream ends.
func (s *stream) Silence() {}

// Apply implements [client.Face].
func (s *stream) Apply(c *client.Change) {
	for _, gone := range c.Left {
		s.ForceDisconnect(client.ForcedDisconnect{Reason: gone.Reason})
	}
}

// ForceDisconnect implements [client.Face].
func (s *stream) ForceDisconnect(why client.ForcedDisconnect) {
	s.end(&disconnected{why})
	s.session.End()
}

// Expire implements [client.Face]. The reader reconnects by itself, and is refused if it
// still has the old credential.
func (s *stream) Expire(domain.Code) {
	s.end(nil)
	s.session.End()
}

// Abort implements [client.Face].
func (s *stream) Abort() {
	s.end(nil)
	if out := s.out.Load(); out != nil {
		out.hurry(0)
	}
}

// Tick implements [client.Face].
func (s *stream) Tick(time.Time) (next time.Time) { return time.Time{} }

// Watch implements [client.Face]. Streams have no admin dashboard.
func (s *stream) Watch(bool) {}

// Metrics implements [client.Face].
func (s *stream) Metrics([]byte) {}

// Deliver implements [rooms.Sink].
func (s *stream) Deliver(f rooms.Frame) { s.items <- item{frame: f} }

// Restarted implements [rooms.Sink].
func (s *stream) Restarted(from domain.Cursor) {
	if len(s.items) < cap(s.items)-1 { // the last place is reserved for a frame
		s.items <- item{restarted: &from}
	}
}

// Panicked implements [rooms.PanicHandler].
func (s *stream) Panicked() {
	select {
	case s.items <- item{broken: true}:
	default: // the reader is stuck, and gets nothing more
	}
}

// pass writes items until the reader is gone or ctx ends.
func (s *stream) pass(ctx context.Context, out *writer, beat time.Duration) {
	idle := time.NewTicker(beat)
	defer idle.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return
		case i := <-s.items:
			if i.broken {
				return
			}
			if i.restarted != nil {
				err = out.restarted(*i.restarted)
				break
			}
			if err = out.write(i.frame.Bytes); err == nil {
				s.subscription.Sent()
				idle.Reset(beat)
			}
		case <-idle.C:
			err = out.write([]byte(": still here\n\n"))
		}
		if err != nil {
			return
		}
	}
}

// writer writes to one reader, with a deadline per write.
type writer struct {
	w       http.ResponseWriter
	control *http.ResponseController
	stall   time.Duration

	mu     sync.Mutex
	latest time.Time // the deadline of an ending stream; otherwise zero
	over   bool      // the handler has returned, and net/http owns the connection again
}

func (o *writer) begin() error {
	h := o.w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // or nginx would buffer the stream
	o.w.WriteHeader(http.StatusOK)
	return o.write([]byte("retry: 2000\n\n"))
}

func (o *writer) write(b []byte) error {
	if err := o.setDeadline(); err != nil {
		return err
	}
	if _, err := o.w.Write(b); err != nil {
		return err
	}
	return o.control.Flush()
}

func (o *writer) setDeadline() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	deadline := time.Now().Add(o.stall)
	if !o.latest.IsZero() && o.latest.Before(deadline) {
		deadline = o.latest
	}
	return o.control.SetWriteDeadline(deadline)
}

// hurry limits the time for the reader of an ending stream, including a write in progress,
// so that a reader that does not read cannot delay a shutdown.
func (o *writer) hurry(wait time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.over {
		o.latest = time.Now().Add(wait)
		_ = o.control.SetWriteDeadline(o.latest) // fails only if the connection is gone
	}
}

// finish makes later calls of hurry do nothing.
func (o *writer) finish() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.over = true
}

// restarted tells a reader that the log does not have its place, and where events continue.
func (o *writer) restarted(from domain.Cursor) error { return o.event("restarted", from) }

// event writes an event of the stream itself. It has no id, because a reader cannot resume
// from it.
func (o *writer) event(name string, about any) error {
	data, err := domain.EncodeJSON(about)
	if err != nil {
		return err
	}
	return o.write([]byte("event: " + name + "\ndata: " + string(data) + "\n\n"))
}
