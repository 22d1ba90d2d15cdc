package rooms

import (
	"time"

	"github.com/plugcast/plugcast/domain"
)

// Encoded is an event as rooms keep it: its envelope, encoded once for all readers, and the
// values that filters need. It is immutable, except for values that are computed on first
// use under the room's lock.
type Encoded struct {
	Cursor   domain.Cursor
	Type     domain.EventType
	Time     time.Time // when the event was appended
	Envelope []byte    // read only

	arrival time.Time // bounds plausible device times: see [domain.Event.Arrival]
	data    int       // where the data begins in Envelope
	end     int       // where it ends
	subject *subject
	skips   bool // the envelope names skipped events
}

// overhead is the approximate memory of an event beside its envelope, in bytes.
const overhead = 160

func encode(e *domain.Event) *Encoded {
	const around = 320 // more than the envelope needs around its data
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

// Data returns the event's data, as a part of Envelope.
func (e *Encoded) Data() []byte { return e.Envelope[e.data:e.end] }

// AppendMeta appends the envelope without its data to b.
func (e *Encoded) AppendMeta(b []byte) []byte {
	const member = len(`,"data":`)
	b = append(b, e.Envelope[:e.data-member]...)
	return append(b, e.Envelope[e.end:]...)
}

func (e *Encoded) cost() int { return len(e.Envelope) + overhead }

// about returns the subject of the event, parsed on first use, because only readers that
// filter by device or conflate need it. The caller holds the room's lock.
func (e *Encoded) about() *subject {
	if e.subject == nil {
		e.subject = readSubject(e.Type, e.Data(), e.arrival)
	}
	return e.subject
}

// device returns the device that the event is about, or "". The caller holds the room's lock.
func (e *Encoded) device() domain.DeviceID { return e.about().device }

// Encoding encodes events into a frame, in the form of a face. It is a comparable value
// without state: readers with equal encodings share frames.
type Encoding interface {
	// Encode returns the frame of one or more events. It runs under a room's lock, does not
	// keep the slice, and may return an envelope itself.
	Encode(events []*Encoded) []byte
}

// JSON is the native form: one event is its envelope, several are an array.
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
