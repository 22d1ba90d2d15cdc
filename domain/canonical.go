package domain

import (
	"fmt"
	"math"
	"unicode/utf8"
)

// An event in canonical form survives being written and read in every form that events have: an entry of the log, an
// envelope, a row, and a line of an export. Its texts are UTF-8 without the character NUL. Its times are UTC in the
// years 0000 to 9999. Its data is one JSON object without insignificant white space. Its line is at most
// [MaxEventBytes] long.
//
// All input passes through [Event.Canonicalize]: the log appends nothing else, and reads nothing else. The typed data
// of this deployment is canonical as soon as it is encoded. The data of another deployment goes through
// [Event.AsImported].

// MaxEventBytes limits the size of an event: its line in an export, including the envelope. An entry of a C2SP
// tlog-tiles log cannot be larger.
const MaxEventBytes = 1<<16 - 1

const (
	// maxEnvelopeText limits each text of an envelope, in bytes, because an archive indexes it.
	maxEnvelopeText = 512
	// lineOverhead is an upper bound for the part of a line that is neither a text of the envelope nor the data:
	// names, hashes, and the longest position, seq, version, subject and origin.
	lineOverhead = 1024
)

// Canonicalize removes insignificant white space from the event's data. It returns an [Error] with
// [CodeInvalidUpdate] if the event has no canonical form, and one with [CodeInvalidSystemID] if its system id is
// malformed. The id and the time may be missing, because the log sets them. For an event that is already canonical,
// Canonicalize reads its bytes once and allocates nothing.
func (e *Event) Canonicalize() error {
	if _, err := ParseSystemID(string(e.SystemID)); err != nil {
		return err
	}
	if err := e.checkEnvelope(); err != nil {
		return err
	}
	data, err := CompactJSON(e.Data)
	if err != nil {
		return Invalid(CodeInvalidUpdate, "data: "+err.Error())
	}
	e.Data = data
	return e.checkSize()
}

func (e *Event) checkEnvelope() error {
	if err := e.Type.check(); err != nil {
		return Invalid(CodeInvalidUpdate, "event "+err.Error())
	}
	if e.Version < 1 || e.Version > math.MaxInt32 {
		return Invalid(CodeInvalidUpdate, fmt.Sprintf("version must be 1 to %d, not %d", math.MaxInt32, e.Version))
	}
	for _, text := range e.texts() {
		if err := requireText(CodeInvalidUpdate, text.name, text.value, maxEnvelopeText); err != nil {
			return err
		}
	}
	if e.Origin != "" {
		if _, err := ParseOrigin(e.Origin); err != nil {
			return err
		}
	}
	if _, err := representable(e.Time); err != nil {
		return Invalid(CodeInvalidUpdate, "time "+err.Error())
	}
	return nil
}

type namedText struct{ name, value string }

// texts returns the free texts of the envelope.
func (e *Event) texts() [5]namedText {
	return [...]namedText{
		{"id", e.ID}, {"event", string(e.Type)}, {"actor", e.Actor}, {"correlationId", e.CorrelationID}, {"causationId", e.CausationID},
	}
}

// checkSize rejects an event whose line would exceed MaxEventBytes.
func (e *Event) checkSize() error {
	if over := len(e.Data) - e.maxData(); over > 0 {
		return Invalid(CodeInvalidUpdate,
			fmt.Sprintf("an event is limited to %d bytes with its envelope, and this one is %d bytes too large", MaxEventBytes, over))
	}
	return nil
}

// maxData returns how many bytes the event's data may have.
func (e *Event) maxData() int {
	size := lineOverhead + 2*len(e.SystemID)
	for _, text := range e.texts() {
		size += quotedLen(text.value)
	}
	return MaxEventBytes - size
}

// quotedLen returns the length of s as a JSON string in bytes, without the quotes.
func quotedLen(s string) (n int) {
	for _, r := range s {
		n += escapedLen(r)
	}
	return n
}

// escapedLen returns the length of a character in a JSON string, in bytes.
func escapedLen(r rune) int {
	switch {
	case r == '"', r == '\\', r == '\n', r == '\r', r == '\t', r == '\b', r == '\f':
		return 2
	case r < 0x20, r == '\u2028', r == '\u2029':
		return 6
	}
	return utf8.RuneLen(r)
}
