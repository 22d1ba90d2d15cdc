// Package snapshot encodes the snapshot of a system once for all clients that request it at
// about the same time. A snapshot may take megabytes, and stays in memory until its last
// holder has sent it; the memory of all snapshots is limited.
package snapshot

import (
	"bytes"
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/admission"
)

// A snapshot is stored as the frame of the native protocol. That frame contains the JSON
// that other faces send.
const (
	framePrefix = `{"event":"snapshot","data":`
	frameSuffix = `}`
)

// Snapshot is the encoded state of a system at one place. Its bytes are read-only. Each
// caller that gets it from [Cache.Snapshot] must Release it once.
type Snapshot struct {
	Cursor domain.Cursor

	frame   []byte
	grant   *admission.Grant // for its bytes and those of wrapped
	holders atomic.Int64
	free    func() // called when the last holder is gone; may be nil

	mu      sync.Mutex
	size    int // the bytes that the grant covers
	wrapped map[wrapping][]byte
}

type wrapping struct{ prefix, suffix string }

// Frame returns the frame of the native protocol.
func (s *Snapshot) Frame() []byte { return s.frame }

// JSON returns the JSON of the [domain.Snapshot].
func (s *Snapshot) JSON() []byte { return s.frame[len(framePrefix) : len(s.frame)-len(frameSuffix)] }

// Wrap returns the JSON between a prefix and a suffix, for a face with other frames. Equal
// calls share the result, which lives as long as the snapshot. It fails with
// [admission.CodeBusy] if the system holds as many bytes as it may.
func (s *Snapshot) Wrap(prefix, suffix string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := wrapping{prefix, suffix}
	if made := s.wrapped[key]; made != nil {
		return made, nil
	}
	json := s.JSON()
	size := len(prefix) + len(json) + len(suffix)
	if err := s.grant.Grow(s.size + size); err != nil {
		return nil, err
	}
	s.size += size
	made := append(append(append(make([]byte, 0, size), prefix...), json...), suffix...)
	if s.wrapped == nil {
		s.wrapped = map[wrapping][]byte{}
	}
	s.wrapped[key] = made
	return made, nil
}

// Release ends the caller's use of the snapshot. The caller must not read its bytes after
// that.
func (s *Snapshot) Release() {
	if s != nil && s.holders.Add(-1) == 0 && s.free != nil {
		s.free()
	}
}

// hold adds a holder, unless the last one is gone.
func (s *Snapshot) hold() bool {
	for {
		n := s.holders.Load()
		if n == 0 {
			return false
		}
		if s.holders.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// Of encodes an existing snapshot, for one holder. Its bytes are not counted.
func Of(s *domain.Snapshot) (*Snapshot, error) {
	var b bytes.Buffer
	b.WriteString(framePrefix)
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false) // attributes stay as their publisher wrote them
	if err := e.Encode(s); err != nil {
		return nil, fmt.Errorf("snapshot: write %s as JSON: %w", s.SystemID, err)
	}
	b.Truncate(b.Len() - len("\n"))
	b.WriteString(frameSuffix)
	made := &Snapshot{Cursor: domain.Cursor{Position: s.Position, Seq: s.Seq}, frame: b.Bytes()}
	made.holders.Store(1)
	return made, nil
}
