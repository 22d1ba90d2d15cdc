package domain

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Position says where in its partition's log an event stands: the id that Redis
// Streams gave it, written <milliseconds>-<n>. Positions of one partition, and
// so of one system, are totally ordered and only grow. The zero Position is
// before the first event ever.
type Position struct {
	Ms uint64 // milliseconds since 1970, on the clock of Redis
	N  uint64 // tells events of the same millisecond apart
}

// ParsePosition reads "<ms>-<n>" or "<ms>" (which means "<ms>-0"). It answers
// with an [Error] of [CodeInvalidPosition] for anything else.
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

// parseDigits is ParseUint without its tolerance for a leading plus sign.
func parseDigits(s string) (uint64, error) {
	if s != "" && (s[0] < '0' || s[0] > '9') {
		return 0, strconv.ErrSyntax
	}
	return strconv.ParseUint(s, 10, 64)
}

// String writes p as "<ms>-<n>".
func (p Position) String() string { return string(p.appendTo(nil)) }

func (p Position) appendTo(b []byte) []byte {
	b = strconv.AppendUint(b, p.Ms, 10)
	b = append(b, '-')
	return strconv.AppendUint(b, p.N, 10)
}

// MarshalText makes a Position a JSON string.
func (p Position) MarshalText() ([]byte, error) { return p.appendTo(nil), nil }

// UnmarshalText reads what MarshalText wrote.
func (p *Position) UnmarshalText(b []byte) (err error) {
	*p, err = ParsePosition(string(b))
	return err
}

// IsZero reports whether p is the position before the first event.
func (p Position) IsZero() bool { return p == Position{} }

// lastMs is the last millisecond that RFC 3339 can write.
const lastMs = 253402300799999

// Time returns when the position was given, in UTC, on the clock of Redis. A position
// written by hand may be beyond what a time can hold: it counts as the end of the year
// 9999, the last that RFC 3339 can write.
func (p Position) Time() time.Time { return time.UnixMilli(int64(min(p.Ms, lastMs))).UTC() }

// Compare is negative, zero or positive when p is before, at or after o.
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

// Cursor is a reader's place in the history of one system: the position of the
// last event that it has, and how many events of that system there are up to
// and including it. The zero Cursor stands before the first event.
type Cursor struct {
	Position Position `json:"position"`
	Seq      uint64   `json:"seq"`
}

// String is for logs and errors.
func (c Cursor) String() string { return fmt.Sprintf("%s (seq %d)", c.Position, c.Seq) }
