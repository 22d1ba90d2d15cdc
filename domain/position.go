package domain

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Position is the place of an event in its partition's log: the id that Redis Streams gave it, written
// <milliseconds>-<n>. The positions of a partition, and therefore those of a system, are totally ordered and only
// grow. The zero Position is before every event.
type Position struct {
	Ms uint64 // milliseconds since 1970, on the clock of Redis
	N  uint64 // distinguishes events of the same millisecond
}

// ParsePosition parses "<ms>-<n>" or "<ms>", which means "<ms>-0". It returns an [Error] with [CodeInvalidPosition]
// for anything else.
func ParsePosition(s string) (Position, error) {
	ms, n, dashed := strings.Cut(s, "-")
	p := Position{}
	var err error
	if p.Ms, err = parseDigits(ms); err == nil && dashed {
		p.N, err = parseDigits(n)
	}
	if err != nil {
		return Position{}, Invalid(CodeInvalidPosition, "a position looks like 1795461046705-0, not "+quote(s))
	}
	return p, nil
}

// parseDigits is ParseUint, except that it rejects a leading plus sign.
func parseDigits(s string) (uint64, error) {
	if s != "" && (s[0] < '0' || s[0] > '9') {
		return 0, strconv.ErrSyntax
	}
	return strconv.ParseUint(s, 10, 64)
}

// String returns p as "<ms>-<n>".
func (p Position) String() string { return string(p.appendTo(nil)) }

func (p Position) appendTo(b []byte) []byte {
	b = strconv.AppendUint(b, p.Ms, 10)
	b = append(b, '-')
	return strconv.AppendUint(b, p.N, 10)
}

// MarshalText implements [encoding.TextMarshaler], which makes a Position a JSON string.
func (p Position) MarshalText() ([]byte, error) { return p.appendTo(nil), nil }

// UnmarshalText implements [encoding.TextUnmarshaler] with [ParsePosition].
func (p *Position) UnmarshalText(b []byte) (err error) {
	*p, err = ParsePosition(string(b))
	return err
}

// IsZero reports whether p is the position before the first event.
func (p Position) IsZero() bool { return p == Position{} }

// lastMs is the last millisecond that RFC 3339 can express.
const lastMs = 253402300799999

// Time returns the time at which Redis assigned the position, in UTC, on the clock of Redis. A caller may have made up
// a position that no time can express; for such a position it is the end of the year 9999, the last that RFC 3339 can
// express.
func (p Position) Time() time.Time { return time.UnixMilli(int64(min(p.Ms, lastMs))).UTC() }

// Compare returns a negative number, zero or a positive number if p is before, at or after o.
func (p Position) Compare(o Position) int {
	if c := cmp.Compare(p.Ms, o.Ms); c != 0 {
		return c
	}
	return cmp.Compare(p.N, o.N)
}

// Before reports whether p is strictly before o.
func (p Position) Before(o Position) bool { return p.Compare(o) < 0 }

// After reports whether p is strictly after o.
func (p Position) After(o Position) bool { return p.Compare(o) > 0 }

// Cursor is a reader's place in the history of one system: the position of the reader's last event, and the number of
// events that the system has up to and including it. The zero Cursor is before the first event.
type Cursor struct {
	Position Position `json:"position"`
	Seq      uint64   `json:"seq"`
}

// String returns the cursor in a form for logs and errors.
func (c Cursor) String() string { return fmt.Sprintf("%s (seq %d)", c.Position, c.Seq) }
