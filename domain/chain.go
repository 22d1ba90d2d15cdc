package domain

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"strconv"
)

// Hash is a link of a system's tamper-evident chain: SHA-256 over the previous
// event's hash and the canonical form of this one. The zero Hash stands before
// a system's first event.
type Hash [sha256.Size]byte

// String is lower-case hex.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// ParseHash reads what String wrote.
func ParseHash(s string) (h Hash, ok bool) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(h) {
		return h, false
	}
	return Hash(b), true
}

// Next links e behind h.
func (h Hash) Next(e *Event) Hash {
	buf := make([]byte, 0, 512)
	buf = append(buf, h[:]...)
	return sha256.Sum256(e.appendCanonical(buf))
}

// appendCanonical appends the one byte form of e that hashes are taken over:
// each field behind its length, in a fixed order. The data is the stored bytes,
// never a second encoding of them, so that no number can change its look. An
// origin is a further field at the end, and only where there is one: events of
// our own hash as they did before there were origins.
func (e *Event) appendCanonical(b []byte) []byte {
	b = appendField(b, e.Position.String())
	b = appendField(b, strconv.FormatUint(e.Seq, 10))
	b = appendField(b, e.ID)
	b = appendField(b, string(e.Type))
	b = appendField(b, strconv.Itoa(e.Version))
	b = appendField(b, string(e.SystemID))
	b = appendField(b, FormatTime(e.Time))
	b = appendField(b, e.Actor)
	b = appendField(b, e.CorrelationID)
	b = appendField(b, e.CausationID)
	b = appendField(b, string(e.Data))
	if e.Origin != "" {
		b = appendField(b, e.Origin)
	}
	return b
}

func appendField(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}
