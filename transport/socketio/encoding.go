package socketio

import (
	"bytes"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/rooms"
	"github.com/plugcast/plugcast/transport/socketio/engineio"
)

// encoding encodes events as packets: each with its name, its data, its envelope without the
// data, and its position. Readers at the same place share the bytes.
type encoding struct{}

// Encode implements [rooms.Encoding].
func (encoding) Encode(events []*rooms.Encoded) []byte {
	const around = 80 // the name, position and punctuation around the envelope
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

// nameOf returns the event's name in quotes, as its envelope begins with it. Names that the
// client's library reserves get a prefix, because they would make it close the connection.
func nameOf(e *rooms.Encoded) []byte {
	switch e.Type {
	case "connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener":
		return []byte(`"event:` + string(e.Type) + `"`)
	}
	const before = len(`{"event":`)
	end := bytes.Index(e.Envelope, []byte(`,"position":`)) // cannot match within the name, whose quotes are escaped
	return e.Envelope[before:end]
}

// lastPosition returns the position of the last event of a frame.
func lastPosition(frame []byte) domain.Position {
	frame = frame[:len(frame)-len(`"]`)]
	at, err := domain.ParsePosition(string(frame[bytes.LastIndexByte(frame, '"')+1:]))
	if err != nil {
		panic("socketio: a frame without a position: " + err.Error()) // a bug in Encode
	}
	return at
}

// withSuffix returns a frame with rest appended to the position of each event.
func withSuffix(frame, rest []byte) []byte {
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
