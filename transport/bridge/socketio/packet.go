package socketio

import (
	"bytes"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
)

const mainNamespace = "/"

// Engine.IO packet types, the first character of a text frame.
const (
	engineOpen    = '0'
	engineClose   = '1'
	enginePing    = '2'
	enginePong    = '3'
	engineMessage = '4'
	engineNoop    = '6'
)

// Socket.IO packet types, the character behind an Engine.IO message.
const (
	typeConnect      = '0'
	typeDisconnect   = '1'
	typeEvent        = '2'
	typeAck          = '3'
	typeConnectError = '4'
	typeBinaryEvent  = '5'
	typeBinaryAck    = '6'
)

// maxAttachments bounds the binary frames that one packet may announce.
const maxAttachments = 64

// maxDigits bounds an ack id, which a server may choose: it fits a uint64.
const maxDigits = 19

var errPacket = errors.New("socketio: the server sent a packet that is none")

// packet is one Socket.IO packet without the Engine.IO character before it.
type packet struct {
	kind        byte
	attachments int
	namespace   string
	id          *uint64 // of an ack that is asked for, or given
	data        json.RawMessage
}

// append writes the packet as an Engine.IO message.
func (p *packet) append(b []byte) []byte {
	b = append(b, engineMessage, p.kind)
	if p.namespace != mainNamespace {
		b = append(append(b, p.namespace...), ',')
	}
	if p.id != nil {
		b = strconv.AppendUint(b, *p.id, 10)
	}
	return append(b, p.data...)
}

// parsePacket reads what follows the Engine.IO character of a message.
func parsePacket(s []byte) (p packet, err error) {
	if len(s) == 0 || s[0] < typeConnect || s[0] > typeBinaryAck {
		return p, errPacket
	}
	p.kind, s = s[0], s[1:]
	if p.kind == typeBinaryEvent || p.kind == typeBinaryAck {
		count, rest, found := bytes.Cut(s, []byte{'-'})
		n, err := strconv.Atoi(string(count))
		if !found || err != nil || n < 0 || n > maxAttachments {
			return p, errPacket
		}
		p.attachments, s = n, rest
	}
	p.namespace = mainNamespace
	if len(s) > 0 && s[0] == '/' {
		name, rest, _ := bytes.Cut(s, []byte{','})
		// A server repeats the query that a client may have put behind the name.
		p.namespace, _, _ = strings.Cut(string(name), "?")
		s = rest
	}
	digits := 0
	for digits < len(s) && '0' <= s[digits] && s[digits] <= '9' {
		digits++
	}
	if digits > maxDigits {
		return p, errPacket
	}
	if digits > 0 {
		id, err := strconv.ParseUint(string(s[:digits]), 10, 64)
		if err != nil {
			return p, errPacket
		}
		p.id = &id
	}
	if p.data = s[digits:]; len(p.data) > 0 && !json.Valid(p.data) {
		return p, errPacket
	}
	return p, nil
}

// arguments are the members of the packet's array, and for an event its name.
func (p *packet) arguments() (name string, args []json.RawMessage, err error) {
	if json.Unmarshal(p.data, &args) != nil || args == nil {
		return "", nil, errPacket
	}
	if p.kind == typeAck || p.kind == typeBinaryAck {
		return "", args, nil
	}
	if len(args) == 0 || json.Unmarshal(args[0], &name) != nil {
		return "", nil, errPacket
	}
	return name, args[1:], nil
}
