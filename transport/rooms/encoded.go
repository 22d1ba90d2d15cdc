package rooms

import (
	"time"

	"github.com/plugcast/plugcast/domain"
)

// Encoded is an event as rooms keep it: its envelope, encoded once for all
// readers, and what filters look at. Nobody changes it, but for what is read
// lazily under the room's lock.
type Encoded struct {
	Cursor   domain.Cursor
	Type     domain.EventType
	Time     time.Time // when it was appended
	Envelope []byte    // read only

	arrival time.Time // what a device's clock is held against: see [domain.Event.Arrival]
	data    int       // where the data begins in Envelope
	end     int       // where it ends
	subject *subject
	skips   bool // the envelope says what was left out before it
}

// bookkeeping is roughly what an event costs beside its envelope, in bytes.
const bookkeeping = 160

func encode(e *domain.Event) *Encoded {
	const around = 320 // what an envelope has around its data, with room to spare
	envelope := e.AppendEnvelope(make([]byte, 0, len(e.Data)+around))
	end := len(envelope) - 1 // the brace
	return &Encoded{
		Cursor: e.Cursor(), Type: e.Type, Time: e.Time, arrival: e.Arrival(),
		Envelope: envelope, data: end - len(e.Data), end: end,
	}
}

func encodeAll(events []domain.Event) []*Encoded {
	out := make([]*Encoded, len(events))
	for i := range events {
		out[i] = encode(&events[i])
	}
	return out
}

// Data is the event's data, as in Envelope.
func (e *Encoded) Data() []byte { return e.Envelope[e.data:e.end] }

// AppendMeta adds the envelope without its data to b.
func (e *Encoded) AppendMeta(b []byte) []byte {
	const member = len(`,"data":`)
	b = append(b, e.Envelope[:e.data-member]...)
	return append(b, e.Envelope[e.end:]...)
}

func (e *Encoded) cost() int { return len(e.Envelope) + bookkeeping }

// about reads, once, whom the event is about. Only readers that filter by
// device or conflate need it. The caller holds the room's lock.
func (e *Encoded) about() *subject {
	if e.subject == nil {
		e.subject = readSubject(e.Type, e.Data(), e.arrival)
	}
	return e.subject
}

// device is what the event is about, or "". The caller holds the room's lock.
func (e *Encoded) device() domain.DeviceID { return e.about().device }

// Encoding puts events into the bytes of a frame, in a face's own form. It is a
// comparable value without state: readers with equal encodings share frames.
type Encoding interface {
	// Encode returns the frame of one or more events. It is called under a
	// room's lock, does not keep the slice, and may return an envelope as it is.
	Encode(events []*Encoded) []byte
}

// JSON is the native form: a single event is its envelope, several are an array.
var JSON Encoding = jsonEncoding{}

type jsonEncoding struct{}

func (jsonEncoding) Encode(events []*Encoded) []byte {
	if len(events) == 1 {
		return events[0].Envelope
	}
	size := 1 + len(events)
	for _, e := range events {
		size += len(e.Envelope)
	}
	b := append(make([]byte, 0, size), '[')
	for i, e := range events {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, e.Envelope...)
	}
	return append(b, ']')
}
