package childproc

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
)

const (
	// tailLines is how many of a child's last lines an error shows.
	tailLines = 5
	// maxLine bounds a line, in bytes; a longer one is cut in pieces.
	maxLine = 4096
)

// output takes what a child prints: it logs each line and keeps the last few
// to explain an unexpected end.
type output struct {
	logger *slog.Logger
	name   string

	mu      sync.Mutex
	partial []byte
	last    []string
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.partial = append(o.partial, p...)
	for {
		end := bytes.IndexByte(o.partial, '\n')
		rest := end + 1
		if end < 0 {
			if len(o.partial) < maxLine {
				return len(p), nil
			}
			end, rest = maxLine, maxLine
		}
		o.add(strings.TrimSpace(string(o.partial[:end])))
		o.partial = o.partial[rest:]
	}
}

func (o *output) add(line string) {
	if line == "" {
		return
	}
	o.logger.Debug(o.name, "line", line)
	o.last = append(o.last, line)
	if len(o.last) > tailLines {
		o.last = o.last[1:]
	}
}

func (o *output) tail() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.last) == 0 {
		return "it printed nothing"
	}
	return strings.Join(o.last, " | ")
}
