package sse

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/rooms"
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
		b = append(b, e.Envelope...)
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

// sink takes what the room has for a reader to the request's goroutine, in order.
type sink struct{ items chan item }

// item is a frame, or the news that the reader's place is lost.
type item struct {
	frame     rooms.Frame
	restarted *domain.Cursor
}

// There is one frame at a time; the rest of the room is for restarts, which are
// rare, and of which a reader that is stuck needs to hear only some.
func newSink() *sink { return &sink{items: make(chan item, 4)} }

// Deliver implements [rooms.Sink].
func (s *sink) Deliver(f rooms.Frame) { s.items <- item{frame: f} }

// Restarted implements [rooms.Sink].
func (s *sink) Restarted(from domain.Cursor) {
	if len(s.items) < cap(s.items)-1 { // the last place is the frame's
		s.items <- item{restarted: &from}
	}
}

// pass writes what comes until the reader is gone or ctx ends.
func (s *sink) pass(ctx context.Context, cursor *rooms.Cursor, out *writer, beat time.Duration) {
	idle := time.NewTicker(beat)
	defer idle.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return
		case i := <-s.items:
			if i.restarted != nil {
				err = out.restarted(*i.restarted)
				break
			}
			if err = out.write(i.frame.Bytes); err == nil {
				cursor.Sent()
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
	if err := o.control.SetWriteDeadline(time.Now().Add(o.stall)); err != nil {
		return err
	}
	if _, err := o.w.Write(b); err != nil {
		return err
	}
	return o.control.Flush()
}

// restarted tells a reader that its place is not of this log, and from where it
// goes on.
func (o *writer) restarted(from domain.Cursor) error {
	data, err := json.Marshal(from)
	if err != nil {
		return err
	}
	return o.write([]byte("event: restarted\ndata: " + string(data) + "\n\n"))
}
