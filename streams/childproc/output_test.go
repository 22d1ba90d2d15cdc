package childproc

import (
	"log/slog"
	"strings"
	"testing"
)

func TestOutputKeepsTheLastLines(t *testing.T) {
	t.Parallel()
	o := &output{logger: slog.New(slog.DiscardHandler), name: "test"}
	for _, piece := range []string{"one\ntwo\nth", "ree\n\nfour\nfive\nsix\nunfinished"} {
		if n, err := o.Write([]byte(piece)); n != len(piece) || err != nil {
			t.Fatalf("wrote %d of %d bytes: %v", n, len(piece), err)
		}
	}
	if got, want := o.tail(), "two | three | four | five | six"; got != want {
		t.Errorf("tail %q, want %q", got, want)
	}
}

// A child that never ends a line does not make us keep all it prints.
func TestOutputBoundsALine(t *testing.T) {
	t.Parallel()
	o := &output{logger: slog.New(slog.DiscardHandler), name: "test"}
	for range 100 {
		if _, err := o.Write([]byte(strings.Repeat("x", 1000))); err != nil {
			t.Fatal(err)
		}
	}
	if len(o.partial) >= maxLine {
		t.Errorf("%d bytes wait for the end of a line, want less than %d", len(o.partial), maxLine)
	}
	if got := len(o.tail()); got > tailLines*(maxLine+3) {
		t.Errorf("a tail of %d bytes", got)
	}
}
