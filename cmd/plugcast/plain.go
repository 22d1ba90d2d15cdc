package main

import (
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// isPlain reports whether a terminal shows the character and does nothing else.
func isPlain(r rune) bool { return r == ' ' || unicode.IsGraphic(r) }

// plain returns a text without the characters that control a terminal, including line
// breaks, because the text may come from another server.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if isPlain(r) {
			return r
		}
		return -1
	}, s)
}

// plainWriter is a terminal to which nothing is written that would make it do
// something, but for line breaks and tabs: other characters are escaped as JSON
// escapes them, so that JSON stays the same JSON.
type plainWriter struct {
	w    io.Writer
	rest []byte // the beginning of a character whose end is not written yet
}

// onTerminal is w, or a plainWriter when w is a terminal.
func onTerminal(w io.Writer) io.Writer {
	if isTerminal(w) {
		return &plainWriter{w: w}
	}
	return w
}

// Write implements [io.Writer].
func (p *plainWriter) Write(b []byte) (int, error) {
	text := append(p.rest, b...)
	out := make([]byte, 0, len(text))
	for len(text) > 0 && utf8.FullRune(text) {
		r, n := utf8.DecodeRune(text)
		switch {
		case r == utf8.RuneError && n == 1:
			out = append(out, "\uFFFD"...)
		case isPlain(r), r == '\n', r == '\t':
			out = append(out, text[:n]...)
		case r > 0xFFFF:
			high, low := utf16.EncodeRune(r)
			out = fmt.Appendf(out, `\u%04x\u%04x`, high, low)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
		text = text[n:]
	}
	p.rest = append([]byte(nil), text...)
	if _, err := p.w.Write(out); err != nil {
		return 0, err
	}
	return len(b), nil
}
