package socketio

import (
	"bytes"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/rooms"
	"github.com/plugcast/plugcast/transport/socketio/engineio"
)

// encoding writes events as packets: each under its own name, with its data, its
// envelope without the data, and its position. Readers at one place share the
// bytes.
type encoding struct{}

// Encode implements [rooms.Encoding].
func (encoding) Encode(events []*rooms.Encoded) []byte {
	const around = 80 // a name, a position and what is between, beyond the envelope
	size := 0
	for _, e := range events {
		size += len(e.Envelope) + around
	}
	b := make([]byte, 0, size)
	for i, e := range events {
		if i > 0 {
			b = append(b, engineio.Separator)
		}
		b = append(b, '4', '2', '[')
		b = append(b, nameOf(e)...)
		b = append(b, ',')
		b = append(b, e.Data()...)
		b = append(b, ',')
		b = e.AppendMeta(b)
		b = append(b, ',', '"')
		b = append(b, e.Cursor.Position.String()...)
		b = append(b, '"', ']')
	}
	return b
}

// nameOf is the event's name in quotes, as its envelope begins with it. A name
// that the client's library has for itself would make it drop the connection.
func nameOf(e *rooms.Encoded) []byte {
	switch e.Type {
	case "connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener":
		return []byte(`"event:` + string(e.Type) + `"`)
	}
	const before = len(`{"event":`)
	end := bytes.Index(e.Envelope, []byte(`,"position":`)) // not in the name: its quotes are escaped
	return e.Envelope[before:end]
}

// lastPosition is the position of the last event of a frame.
func lastPosition(frame []byte) domain.Position {
	frame = frame[:len(frame)-len(`"]`)]
	at, err := domain.ParsePosition(string(frame[bytes.LastIndexByte(frame, '"')+1:]))
	if err != nil {
		panic("socketio: a frame without a position: " + err.Error()) // a fault of Encode
	}
	return at
}

// withRest returns a frame whose offsets have rest behind their positions.
func withRest(frame, rest []byte) []byte {
	events := bytes.Count(frame, []byte{engineio.Separator}) + 1
	b := make([]byte, 0, len(frame)+events*len(rest))
	for len(frame) > 0 {
		packet, next, more := bytes.Cut(frame, []byte{engineio.Separator})
		b = append(b, packet[:len(packet)-len(`"]`)]...)
		b = append(b, rest...)
		b = append(b, '"', ']')
		if more {
			b = append(b, engineio.Separator)
		}
		frame = next
	}
	return b
}
