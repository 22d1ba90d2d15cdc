package domain

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strconv"
)

// Hash is one hash of a system's tamper-evident chain: SHA-256 of the previous event's hash and the hashed form of the
// event. The zero Hash precedes a system's first event.
type Hash [sha256.Size]byte

// String returns the hash in lower-case hex.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// ParseHash parses the result of [Hash.String]. ok is false for anything else.
func ParseHash(s string) (h Hash, ok bool) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(h) {
		return h, false
	}
	return Hash(b), true
}

// Next returns the hash of e, the event that follows the event with hash h.
func (h Hash) Next(e *Event) Hash {
	buf := make([]byte, 0, 512)
	buf = append(buf, h[:]...)
	return sha256.Sum256(e.appendHashed(buf))
}

// HashedEvent is an event with its hash in the system's chain. An export is NDJSON with one HashedEvent per line.
type HashedEvent struct {
	Event Event
	Hash  Hash
	// Previous is the hash of the event before. A line contains it only if the line before does not belong to that
	// event, so that an export may begin or leave out anywhere and each event can still be verified.
	Previous *Hash
}

// ChainVerifier verifies the hash chain of one system's events, one event after the other in the order of their seqs.
// The zero ChainVerifier is ready to use. It is not safe for concurrent use.
type ChainVerifier struct {
	last     *HashedEvent
	verified uint64
}

// IntegrityError reports the event at which an export or a chain does not hold, and the reason.
type IntegrityError struct {
	Cursor Cursor
	ID     string
	Reason string
}

// Error implements error.
func (e *IntegrityError) Error() string {
	return fmt.Sprintf("event %s at %s: %s", e.ID, e.Cursor, e.Reason)
}

// Verify checks the next event. It returns an [*IntegrityError] if the event was altered, does not follow the one
// before, or has an unknown predecessor.
//
// Events may be missing between two events only if the second one has its Previous hash. A filter left them out on
// purpose; Verify cannot distinguish that from a removal.
func (c *ChainVerifier) Verify(h *HashedEvent) error {
	broken := func(reason string) error {
		return &IntegrityError{Cursor: h.Event.Cursor(), ID: h.Event.ID, Reason: reason}
	}
	var previous Hash
	switch {
	case c.last != nil && c.last.Event.SystemID != h.Event.SystemID:
		return broken("it belongs to a different system than the event before")
	case c.last != nil && (h.Event.Seq <= c.last.Event.Seq || !h.Event.Position.After(c.last.Event.Position)):
		return broken("it is out of order")
	case c.last != nil && h.Event.Seq == c.last.Event.Seq+1:
		previous = c.last.Hash
		if h.Previous != nil && *h.Previous != previous {
			return broken("its previous hash is not the hash of the event before")
		}
	case h.Previous != nil:
		previous = *h.Previous
	case h.Event.Seq == 1:
		// the zero hash precedes the first event
	default:
		return broken("events before it are missing")
	}
	if previous.Next(&h.Event) != h.Hash {
		return broken("its content does not match its hash")
	}
	last := *h
	c.last = &last
	c.verified++
	return nil
}

// Verified returns how many events passed [ChainVerifier.Verify].
func (c *ChainVerifier) Verified() uint64 { return c.verified }

// Last returns the last event that passed [ChainVerifier.Verify], or nil.
func (c *ChainVerifier) Last() *HashedEvent { return c.last }

// appendHashed appends the bytes of e that its hash covers: the fields in a fixed order, each preceded by its length.
// The data is the stored bytes, never a second encoding of them, which could write a number differently. The origin
// comes last and only if there is one, so that an event of this deployment has the hash that it had before origins
// existed.
func (e *Event) appendHashed(b []byte) []byte {
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
