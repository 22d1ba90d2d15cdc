package testpeer

import (
	"bytes"
	"log/slog"
	"sync"
)

// Buffer keeps what is written to it, and may be read all the while. The zero value is
// empty.
type Buffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write implements [io.Writer].
func (b *Buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

// String is all that was written.
func (b *Buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// Tail is the end of it, enough to show beside a failure.
func (b *Buffer) Tail() string {
	const most = 8 << 10
	text := b.String()
	return text[max(0, len(text)-most):]
}

// Logger writes records of all levels to the buffer.
func (b *Buffer) Logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(b, &slog.HandlerOptions{Level: slog.LevelDebug}))
}
