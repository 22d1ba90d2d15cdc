package domain

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// timeLayout is RFC 3339 with exactly six decimals, so that an event has one
// written form for ever.
const timeLayout = "2006-01-02T15:04:05.000000Z07:00"

// FormatTime writes t as events carry it: RFC 3339, UTC, microseconds.
func FormatTime(t time.Time) string { return t.UTC().Format(timeLayout) }

// ParseTime reads any RFC 3339 time and cuts it to microseconds, UTC. The letters
// in it may be small ones.
func ParseTime(s string) (time.Time, error) {
	t, err := parseInstant(s)
	if err != nil {
		return time.Time{}, fmt.Errorf("domain: time %s: %w", quote(s), err)
	}
	return t.Truncate(time.Microsecond), nil
}

var (
	errNoTime  = errors.New("is not RFC 3339, as in 2026-11-23T18:00:00Z")
	errYearOut = errors.New("is not in the years 0000 to 9999 of UTC, which is as far as RFC 3339 goes")
)

// parseInstant reads an RFC 3339 time as UTC, with all its decimals up to
// nanoseconds. Package time alone takes offsets that it refuses to write again,
// and years that become too large or too small in UTC.
func parseInstant(s string) (time.Time, error) {
	const seconds = len("2006-01-02T15:04:05")
	if len(s) <= seconds || s[10] != 'T' && s[10] != 't' {
		return time.Time{}, errNoTime
	}
	if c := s[seconds]; c == ',' {
		return time.Time{}, errNoTime // package time takes it for a decimal point
	}
	if s[10] == 't' || s[len(s)-1] == 'z' {
		s = strings.ToUpper(s)
	}
	if s[len(s)-1] != 'Z' && !isOffset(s[max(len(s)-len("+00:00"), seconds):]) {
		return time.Time{}, errNoTime
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return time.Time{}, errNoTime
	}
	return writable(t)
}

// writable returns t in UTC, or an error when RFC 3339 has no form for it.
func writable(t time.Time) (time.Time, error) {
	t = t.UTC()
	if year := t.Year(); year < 0 || year > 9999 {
		return time.Time{}, errYearOut
	}
	return t, nil
}

// isOffset reports whether s is an offset from UTC, as in +01:00.
func isOffset(s string) bool {
	return len(s) == 6 && (s[0] == '+' || s[0] == '-') && s[3] == ':' &&
		isTwoDigits(s[1:3], "23") && isTwoDigits(s[4:], "59")
}

func isTwoDigits(s, most string) bool {
	return '0' <= s[0] && s[0] <= '9' && '0' <= s[1] && s[1] <= '9' && s <= most
}
