package domain

import (
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

// A truncated text is the longest beginning of the clean text that fits with an ellipsis. A text that fits is whole.
func TestTruncateText(t *testing.T) {
	t.Parallel()
	one := rapid.SampledFrom([]string{
		"x", "é", "世", "😀", "\xff", "\xff\xff\xff\xff", "\xf0\x9f", "\x00", "\x01", "\u2028", `"`, "\uFFFD",
	})
	lengths := map[string]struct {
		of  func(string) int
		cut func(string, int) string
	}{
		"bytes":         {func(s string) int { return len(s) }, TruncateText},
		"bytes of JSON": {quotedLen, truncateQuoted},
	}
	for name, length := range lengths {
		t.Run(name, rapid.MakeCheck(func(t *rapid.T) {
			s, limit := strings.Join(rapid.SliceOfN(one, 0, 40).Draw(t, "text"), ""), rapid.IntRange(-2, 60).Draw(t, "limit")
			got, clean := length.cut(s, limit), CleanText(s)
			if length.of(clean) <= limit {
				if got != clean {
					t.Fatalf("%q fits in %d and becomes %q", s, limit, got)
				}
				return
			}
			mark := ""
			if limit >= len("…") {
				mark = "…"
			}
			begin, marked := strings.CutSuffix(got, mark)
			rest, begins := strings.CutPrefix(clean, begin)
			if !marked || !begins || !IsStorableText(got) || length.of(got) > max(limit, 0) {
				t.Fatalf("%q becomes %q within %d", s, got, limit)
			}
			_, n := utf8.DecodeRuneInString(rest)
			if length.of(begin+rest[:n]+mark) <= limit {
				t.Fatalf("%q becomes %q, and more fits in %d", s, got, limit)
			}
		}))
	}
}

func TestTruncateLine(t *testing.T) {
	t.Parallel()
	for given, want := range map[string]string{
		"a\nb\tc\x7fd": "a b c d", "\x00\xff": "\uFFFD\uFFFD", "123456789é": "1234567…", "12345678é": "12345678é",
	} {
		if got := TruncateLine(given, 10); got != want {
			t.Errorf("%q becomes %q, want %q", given, got, want)
		}
	}
}

// An error that quotes a caller's text truncates it between two characters.
func TestQuotedInputIsCut(t *testing.T) {
	t.Parallel()
	_, err := ParseConnectionID(strings.Repeat("é", 100))
	if detail := AsError(err).Detail; !strings.HasSuffix(detail, `é…"`) || strings.Contains(detail, `\x`) {
		t.Errorf("it says %s", detail)
	}
}
