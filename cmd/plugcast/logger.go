package main

import (
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/lmittmann/tint"
	"golang.org/x/term"
)

// Formats of the log; the third is auto.
const (
	formatText = "text" // for people
	formatJSON = "json"
)

// newLogger makes a log in a format: lines for people, with colours on a terminal,
// or JSON. auto is the first on a terminal and the second elsewhere.
func newLogger(w io.Writer, level, format string) *slog.Logger {
	var at slog.Level
	if err := at.UnmarshalText([]byte(level)); err != nil {
		at = slog.LevelInfo // unreachable through the command line, which knows the levels
	}
	terminal := isTerminal(w)
	if format == formatText || format != formatJSON && terminal {
		return slog.New(tint.NewTextHandler(w, &tint.Options{
			Level: at, TimeFormat: time.TimeOnly, NoColor: !terminal || os.Getenv("NO_COLOR") != "",
		}))
	}
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: at, ReplaceAttr: inUTC}))
}

// inUTC writes the times of a line for programs as those of events are, whatever the
// machine's zone is.
func inUTC(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindTime {
		a.Value = slog.TimeValue(a.Value.Time().UTC())
	}
	return a
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// oneLine is an error as scripts expect it on stderr.
func oneLine(err error) string { return plain(strings.Join(strings.Fields(err.Error()), " ")) }
