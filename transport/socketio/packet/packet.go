// Package packet encodes and decodes the packets of version 5 of the Socket.IO protocol
// (socket.io-protocol, revision 5), which are sent as messages of Engine.IO. It does no I/O.
package packet

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
)

// Type is the type of a packet: its first character.
type Type byte

// The types of packet.
const (
	Connect      Type = '0'
	Disconnect   Type = '1'
	Event        Type = '2'
	Ack          Type = '3'
	ConnectError Type = '4'
	BinaryEvent  Type = '5'
	BinaryAck    Type = '6'
)

// Main is the namespace of packets that do not name one.
const Main = "/"

// Packet is a complete packet, including its attachments.
type Packet struct {
	Type      Type
	Namespace string
	// ID connects an event with its acknowledgement: digits that the sender of the event
	// chose, or "" if it requests no acknowledgement.
	ID string
	// Data is JSON, or nil if there is none. In a binary packet, a placeholder
	// {"_placeholder":true,"num":N} represents Attachments[N].
	Data        json.RawMessage
	Attachments [][]byte
}

// The limits of Parse.
const (
	maxNamespace = 256       // bytes
	maxID        = 1<<53 - 1 // the largest exact integer in JavaScript
	maxDepth     = 64        // of arrays and objects in the data
)

// ErrBad is the error for a malformed packet. Its sender violates the protocol.
var ErrBad = errors.New("packet: bad packet")

func bad(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrBad, fmt.Sprintf(format, args...))
}

// Parse parses the text of a packet, and returns how many attachments follow. Its data is
// valid JSON of the kind that the type requires, and a part of b.
func Parse(b []byte) (p Packet, attachments int, err error) {
	if len(b) == 0 || b[0] < byte(Connect) || b[0] > byte(BinaryAck) {
		return p, 0, bad("no type")
	}
	p.Type, p.Namespace = Type(b[0]), Main
	b = b[1:]
	if p.Type == BinaryEvent || p.Type == BinaryAck {
		digits, rest := cutDigits(b)
		if len(digits) == 0 || len(digits) > 6 || len(rest) == 0 || rest[0] != '-' {
			return p, 0, bad("no count of attachments")
		}
		if attachments, _ = strconv.Atoi(string(digits)); attachments == 0 {
			return p, 0, bad("a packet with attachments that has none")
		}
		b = rest[1:]
	}
	if len(b) > 0 && b[0] == '/' {
		name, rest, _ := bytes.Cut(b, []byte{','})
		if len(name) > maxNamespace {
			return p, 0, bad("the namespace's name is too long")
		}
		p.Namespace, b = string(name), rest
	}
	digits, rest := cutDigits(b)
	if n, err := strconv.ParseUint(string(digits), 10, 64); len(digits) > 0 && (err != nil || n > maxID) {
		return p, 0, bad("the id is too large")
	}
	p.ID = string(digits)
	if len(rest) > 0 {
		if !shallow(rest) || !json.Valid(rest) {
			return p, 0, bad("data that are no JSON")
		}
		p.Data = rest
	}
	return p, attachments, p.check()
}

func cutDigits(b []byte) (digits, rest []byte) {
	i := 0
	for i < len(b) && b[i] >= '0' && b[i] <= '9' {
		i++
	}
	return b[:i], b[i:]
}

// shallow reports whether data is not nested so deeply that parsing it is expensive.
func shallow(b []byte) bool {
	depth, quoted := 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '[' || c == '{':
			if depth++; depth > maxDepth {
				return false
			}
		case c == ']' || c == '}':
			depth--
		}
	}
	return true
}

// check checks that the data is of the kind that the type requires.
func (p *Packet) check() error {
	first := byte(0)
	if len(p.Data) > 0 {
		first = p.Data[0]
	}
	ok := true
	switch p.Type {
	case Connect:
		ok = first == 0 || first == '{'
	case Disconnect:
		ok = first == 0
	case ConnectError:
		ok = first == '{' || first == '"'
	case Event, BinaryEvent, Ack, BinaryAck:
		ok = first == '['
	}
	if !ok {
		return bad("data that do not belong to type %c", p.Type)
	}
	return nil
}

// reserved are the names of the library's own events.
var reserved = map[string]bool{
	"connect": true, "connect_error": true, "disconnect": true, "disconnecting": true, "newListener": true, "removeListener": true,
}

// Arguments returns the arguments of an event or an acknowledgement. An event's data begins
// with its name, which is returned separately: a string that the library does not reserve,
// or a number as text.
func (p *Packet) Arguments() (name string, args []json.RawMessage, err error) {
	if err := json.Unmarshal(p.Data, &args); err != nil {
		return "", nil, bad("data that are no array")
	}
	if p.Type == Ack || p.Type == BinaryAck {
		return "", args, nil
	}
	if len(args) == 0 {
		return "", nil, bad("an event without a name")
	}
	if c := args[0][0]; c == '-' || c >= '0' && c <= '9' {
		return string(args[0]), args[1:], nil
	}
	if args[0][0] != '"' || json.Unmarshal(args[0], &name) != nil || reserved[name] {
		return "", nil, bad("an event whose name cannot be one")
	}
	return name, args[1:], nil
}

// Append appends the text of a packet to b, without its attachments, which follow as binary
// messages.
func Append(b []byte, p *Packet) []byte {
	b = append(b, byte(p.Type))
	if p.Type == BinaryEvent || p.Type == BinaryAck {
		b = strconv.AppendInt(b, int64(len(p.Attachments)), 10)
		b = append(b, '-')
	}
	if p.Namespace != Main {
		b = append(b, p.Namespace...)
		b = append(b, ',')
	}
	b = append(b, p.ID...)
	return append(b, p.Data...)
}
