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

// encoding writes events as the stream has them. Readers at one place share the
// bytes.
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

// appendName writes a type without line breaks, which would end the field: a
// type that this build does not know may be anything.
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

// appendLine writes JSON as one line. Data are kept byte for byte, so they may
// have line breaks between their parts: there a space does as well.
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

// stream is one open stream, the face of its session: it takes what the room has for
// the reader to the request's goroutine, in order. It is in one room, so it is that
// room as well, and a reader that is out of it is thrown out.
type stream struct {
	session      *client.Session
	end          context.CancelCauseFunc // of the request's work; a cause may be thrownOut
	out          atomic.Pointer[writer]  // nil before the stream has begun
	subscription *rooms.Subscription     // set before frames come
	items        chan item
}

var (
	_ client.Face = (*stream)(nil)
	_ client.Room = (*stream)(nil)
)

// thrownOut is the cause for which the context of a stream ends whose reader is told
// why.
type thrownOut struct{ client.ForcedDisconnect }

// Error implements error.
func (*thrownOut) Error() string { return "sse: thrown out" }

// item is a frame, or the news that the reader's place is lost.
type item struct {
	frame     rooms.Frame
	restarted *domain.Cursor
	broken    bool // the stream is to end
}

// There is one frame at a time; the rest of the channel is for restarts, which are
// rare, and of which a reader that is stuck needs to hear only some.
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

// Silence implements [client.Room]: the stream ends.
func (s *stream) Silence() {}

// Apply implements [client.Face].
func (s *stream) Apply(c *client.Change) {
	for _, gone := range c.Left {
		s.ForceDisconnect(client.ForcedDisconnect{Reason: gone.Reason})
	}
}

// ForceDisconnect implements [client.Face].
func (s *stream) ForceDisconnect(why client.ForcedDisconnect) {
	s.end(&thrownOut{why})
	s.session.End()
}

// End implements [client.Face]. The reader comes back by itself, and is refused if its
// credential is the old one.
func (s *stream) Expire(domain.Code) {
	s.end(nil)
	s.session.End()
}

// Cut implements [client.Face].
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
	if len(s.items) < cap(s.items)-1 { // the last place is the frame's
		s.items <- item{restarted: &from}
	}
}

// Broken implements [rooms.Breaker].
func (s *stream) Panicked() {
	select {
	case s.items <- item{broken: true}:
	default: // the reader is stuck, and nothing more comes for it
	}
}

// pass writes what comes until the reader is gone or ctx ends.
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

// writer writes to one reader, each time with a deadline.
type writer struct {
	w       http.ResponseWriter
	control *http.ResponseController
	stall   time.Duration

	mu     sync.Mutex
	latest time.Time // when all has to be written; zero for a stream that goes on
	over   bool      // the connection is the server's again
}

func (o *writer) begin() error {
	h := o.w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // nginx would hold the stream back
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

// hurry ends the patience with a reader whose stream is ending, also in a write
// that is under way: one that does not read must not hold up a stop.
func (o *writer) hurry(wait time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.over {
		o.latest = time.Now().Add(wait)
		_ = o.control.SetWriteDeadline(o.latest) // a connection that is gone needs none
	}
}

// finish keeps a late hurry off the connection.
func (o *writer) finish() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.over = true
}

// restarted tells a reader that its place is not of this log, and from where it
// goes on.
func (o *writer) restarted(from domain.Cursor) error { return o.event("restarted", from) }

// event writes an event of the stream itself, which has no id: it is no place to
// resume from.
func (o *writer) event(name string, about any) error {
	data, err := domain.EncodeJSON(about)
	if err != nil {
		return err
	}
	return o.write([]byte("event: " + name + "\ndata: " + string(data) + "\n\n"))
}
