package domain

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Bounds of what an [Undecodable] repeats, in bytes as JSON: of one text, and of all
// of them. With its envelope the event stays below the size of any other.
const (
	maxKeptField = 16 << 10
	maxKept      = 40 << 10
)

// NewUndecodable makes the event that stands in the log's place for an entry which
// cannot be read, or cannot be kept as it is. reason and fields may hold anything:
// the event has them as text that every store takes, cut to a bounded size. Every
// reader of the same entry gets the same event.
func NewUndecodable(system SystemID, at Position, reason string, fields map[string]string) Event {
	u := Undecodable{Reason: StorableText(reason, maxKeptField), Fields: make(map[string]string, len(fields))}
	left := maxKept
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if left <= 0 {
			break
		}
		key := StorableText(name, min(left, maxText))
		value := StorableText(fields[name], min(left, maxKeptField))
		u.Fields[key] = value
		left -= writtenSize(key) + writtenSize(value)
	}
	data, _ := json.Marshal(u) // strings always marshal
	return Event{
		ID: "undecodable-" + at.String(), Type: TypeUndecodable, Version: 1, SystemID: system,
		Time: timeOf(at), Data: data, Position: at,
	}
}

// StorableText is s as text that any database takes: UTF-8 without a NUL, of at most
// limit bytes when it is written as JSON. What is cut off shows as an ellipsis.
func StorableText(s string, limit int) string {
	if len(s) > limit {
		s = s[:limit] // of a long text no more is looked at than may stay
		return cutText(storable(s), limit-len("…")) + "…"
	}
	s = storable(s)
	if writtenSize(s) > limit {
		return cutText(s, limit-len("…")) + "…"
	}
	return s
}

func storable(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}

// cutText is as much of s as takes limit bytes in JSON.
func cutText(s string, limit int) string {
	size := 0
	for i, r := range s {
		if size += writtenRune(r); size > limit {
			return s[:i]
		}
	}
	return s
}

// writtenSize is about how many bytes a text takes in JSON.
func writtenSize(s string) (size int) {
	for _, r := range s {
		size += writtenRune(r)
	}
	return size
}

func writtenRune(r rune) int {
	switch {
	case r < 0x20, r == '<', r == '>', r == '&', r == '\u2028', r == '\u2029':
		return 6 // an escape
	case r == '"', r == '\\':
		return 2
	}
	return utf8.RuneLen(r)
}

// lastMs is the last millisecond that RFC 3339 can write.
const lastMs = 253402300799999

// timeOf is when a position was given, on the clock of the log.
func timeOf(at Position) time.Time { return time.UnixMilli(int64(min(at.Ms, lastMs))).UTC() }
