package domain

import (
	"strings"
	"unicode/utf8"
)

// IsStorableText reports whether s is UTF-8 without the character NUL, which no text column of a database can hold.
func IsStorableText(s string) bool { return utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 }

// CleanText returns s with U+FFFD in place of everything that [IsStorableText] rejects. It is for texts of devices and
// of other servers, which cannot be refused.
func CleanText(s string) string {
	if IsStorableText(s) {
		return s
	}
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}

// TruncateText is [CleanText] with a limit in bytes. It cuts a longer text between two characters and ends it with an
// ellipsis, which counts.
func TruncateText(s string, limit int) string {
	if len(s) <= limit && IsStorableText(s) {
		return s
	}
	return truncate(s, limit, utf8.RuneLen)
}

// TruncateLine is [TruncateText] with spaces in place of control characters, for logs and messages.
func TruncateLine(s string, limit int) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, TruncateText(s, limit))
}

// truncateQuoted is [TruncateText] with a limit for the JSON string without its quotes.
func truncateQuoted(s string, limit int) string { return truncate(s, limit, escapedLen) }

// truncate cleans s and cuts it so that the sizes of its characters add up to limit at most. It cleans while it
// counts, because a clean text may be much shorter.
func truncate(s string, limit int, size func(rune) int) string {
	mark := "…"
	if limit < len(mark) {
		mark = ""
	}
	var kept strings.Builder
	used, fits := 0, 0 // fits is the length of kept that leaves space for the mark
	broken := false    // the last byte was not UTF-8; further such bytes belong to the same fault
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		i += n
		again := broken
		if broken = r == utf8.RuneError && n == 1; broken && again {
			continue
		}
		if r == 0 {
			r = utf8.RuneError
		}
		if used <= limit-len(mark) {
			fits = kept.Len()
		}
		if used += size(r); used > limit {
			return kept.String()[:fits] + mark
		}
		kept.WriteRune(r)
	}
	return kept.String()
}
