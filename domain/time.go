package domain

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// timeLayout is RFC 3339 with exactly six decimals, so that an event always has the same written form.
const timeLayout = "2006-01-02T15:04:05.000000Z07:00"

// FormatTime returns t as events carry it: RFC 3339, in UTC, with microseconds.
func FormatTime(t time.Time) string { return t.UTC().Format(timeLayout) }

// ParseTime parses any RFC 3339 time, also with lower-case letters, and returns it in UTC, truncated to microseconds.
// It returns an error for a time outside the years 0000 to 9999 of UTC, which RFC 3339 cannot express.
func ParseTime(s string) (time.Time, error) {
	t, err := parseInstant(s)
	if err != nil {
		return time.Time{}, fmt.Errorf("domain: time %s: %w", quote(s), err)
	}
	return t.Truncate(time.Microsecond), nil
}

var (
	errNoTime  = errors.New("is not RFC 3339, such as 2026-11-23T18:00:00Z")
	errYearOut = errors.New("is outside the years 0000 to 9999 of UTC, which RFC 3339 cannot express")
)

// parseInstant parses an RFC 3339 time and returns it in UTC with up to nine decimals. Package time alone would accept
// offsets that it then refuses to write, and years that leave the range of RFC 3339 in UTC.
func parseInstant(s string) (time.Time, error) {
	const seconds = len("2006-01-02T15:04:05")
	if len(s) <= seconds || s[10] != 'T' && s[10] != 't' {
		return time.Time{}, errNoTime
	}
	if c := s[seconds]; c == ',' {
		return time.Time{}, errNoTime // package time would accept it as a decimal point
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
	return representable(t)
}

// representable returns t in UTC, or an error if RFC 3339 cannot express it.
func representable(t time.Time) (time.Time, error) {
	t = t.UTC()
	if year := t.Year(); year < 0 || year > 9999 {
		return time.Time{}, errYearOut
	}
	return t, nil
}

// isOffset reports whether s is an offset from UTC, such as +01:00.
func isOffset(s string) bool {
	return len(s) == 6 && (s[0] == '+' || s[0] == '-') && s[3] == ':' &&
		isTwoDigits(s[1:3], "23") && isTwoDigits(s[4:], "59")
}

// isTwoDigits reports whether s, which has two bytes, is a number up to highest.
func isTwoDigits(s, highest string) bool {
	return '0' <= s[0] && s[0] <= '9' && '0' <= s[1] && s[1] <= '9' && s <= highest
}
