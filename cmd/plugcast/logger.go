package main

import (
	"io"
	"log/slog"
	"os"
	"strings"
	"unicode"

	"golang.org/x/term"
)

// newLogger writes for people on a terminal and JSON for everything else.
func newLogger(w io.Writer, level string) *slog.Logger {
	var at slog.Level
	if err := at.UnmarshalText([]byte(level)); err != nil {
		at = slog.LevelInfo // unreachable through the command line, which knows the levels
	}
	options := &slog.HandlerOptions{Level: at}
	if isTerminal(w) {
		return slog.New(slog.NewTextHandler(w, options))
	}
	return slog.New(slog.NewJSONHandler(w, options))
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// oneLine is an error as scripts expect it on stderr.
func oneLine(err error) string { return plain(strings.Join(strings.Fields(err.Error()), " ")) }

// plain is a text without what would make a terminal do something, a new line too:
// it may be in the words of another server.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if r == ' ' || unicode.IsGraphic(r) {
			return r
		}
		return -1
	}, s)
}
