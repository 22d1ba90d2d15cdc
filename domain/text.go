package domain

import (
	"strings"
	"unicode/utf8"
)

// IsText reports whether s can be kept: UTF-8 without the character NUL, which
// no text of a database can hold.
func IsText(s string) bool { return utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 }

// CleanText turns any text into one that [IsText], by putting U+FFFD in place of the
// parts that cannot be kept. It is for texts of devices and other servers, which cannot
// be refused.
func CleanText(s string) string {
	if IsText(s) {
		return s
	}
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}

// CutText is [CleanText] of at most most bytes. What is longer is cut between two
// characters and ends in an ellipsis, which counts.
func CutText(s string, most int) string {
	if len(s) <= most && IsText(s) {
		return s
	}
	return cutText(s, most, utf8.RuneLen)
}

// CutLine is [CutText] with spaces in place of control characters, for logs and
// messages.
func CutLine(s string, most int) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, CutText(s, most))
}

// cutQuoted is [CutText] of at most most bytes as a JSON string, without its quotes.
func cutQuoted(s string, most int) string { return cutText(s, most, escapedLen) }

// cutText cuts a text to characters of at most most bytes, as size counts them. It
// cleans while it counts, because a clean text may be much shorter.
func cutText(s string, most int, size func(rune) int) string {
	mark := "…"
	if most < len(mark) {
		mark = ""
	}
	var kept strings.Builder
	used, fits := 0, 0 // fits is how much of kept leaves room for the mark
	broken := false    // the last byte was not UTF-8: the next ones are part of the same fault
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
		if used <= most-len(mark) {
			fits = kept.Len()
		}
		if used += size(r); used > most {
			return kept.String()[:fits] + mark
		}
		kept.WriteRune(r)
	}
	return kept.String()
}
