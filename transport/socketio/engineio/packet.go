package engineio

import (
	"bytes"
	"encoding/base64"
	"errors"
	"unicode/utf8"
)

// The types of packet, as the first byte of a packet in text.
const (
	packetOpen    = '0'
	packetClose   = '1'
	packetPing    = '2'
	packetPong    = '3'
	packetMessage = '4'
	packetUpgrade = '5'
	packetNoop    = '6'

	// packetBinary marks a binary message where only text is possible: base64 follows.
	packetBinary = 'b'
)

// Separator separates the packets of a payload. It is a control character, which JSON
// escapes, so a packet with JSON never contains it.
const Separator = 0x1e

// probe is the data of the ping that a WebSocket sends before it takes a session over.
const probe = "probe"

var (
	pingPacket   = []byte{packetPing}
	noopPacket   = []byte{packetNoop}
	closePacket  = []byte{packetClose}
	probeAnswer  = []byte(string(rune(packetPong)) + probe)
	errBadPacket = errors.New("engineio: bad packet")
)

// packet is a received packet.
type packet struct {
	kind   byte
	data   []byte
	binary bool
}

// parsePacket parses a packet in text. Its data is a part of b.
func parsePacket(b []byte) (packet, error) {
	if len(b) == 0 {
		return packet{}, errBadPacket
	}
	if b[0] == packetBinary {
		data, err := base64.StdEncoding.DecodeString(string(b[1:]))
		if err != nil {
			return packet{}, errBadPacket
		}
		return packet{kind: packetMessage, data: data, binary: true}, nil
	}
	if b[0] < packetOpen || b[0] > packetNoop || !utf8.Valid(b) {
		return packet{}, errBadPacket
	}
	return packet{kind: b[0], data: b[1:]}, nil
}

// cutPacket splits the first packet off a payload.
func cutPacket(payload []byte) (first, rest []byte) {
	if i := bytes.IndexByte(payload, Separator); i >= 0 {
		return payload[:i], payload[i+1:]
	}
	return payload, nil
}

// appendItem appends an item of a queue to a payload.
func appendItem(b []byte, item *outgoing) []byte {
	if len(b) > 0 {
		b = append(b, Separator)
	}
	if item.binary {
		b = append(b, packetBinary)
		return base64.StdEncoding.AppendEncode(b, item.bytes)
	}
	return append(b, item.bytes...)
}
