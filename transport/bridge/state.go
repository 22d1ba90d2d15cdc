package bridge

import (
	"encoding/json"
	"sync"
	"time"

	"github.com/plugcast/plugcast/domain"
)

// Status is how one system of one link goes, as the process that runs it says.
// Counts begin with that process.
type Status struct {
	Bridge      string          `json:"bridge"`
	Kind        string          `json:"kind"`
	System      domain.SystemID `json:"system"`
	Direction   Direction       `json:"direction"`
	Node        string          `json:"node"` // the process that runs it
	Connected   bool            `json:"connected"`
	Since       time.Time       `json:"since"`            // when Connected last changed
	Connections uint64          `json:"connections"`      // how often a connection was made
	Remote      string          `json:"remote,omitempty"` // the far end's id, once it said so
	LastError   string          `json:"lastError,omitempty"`
	LastErrorAt *time.Time      `json:"lastErrorAt,omitempty"`
	Pull        *Flow           `json:"pull,omitempty"`
	Push        *Flow           `json:"push,omitempty"`
	Detail      json.RawMessage `json:"detail,omitempty"` // what only this kind of link knows
	At          time.Time       `json:"at"`               // of this report
}

// Flow is one direction of a [Status].
type Flow struct {
	Position   domain.Position `json:"position"`     // in the log that is read: everything up to it went over
	At         *time.Time      `json:"at,omitempty"` // when that last moved
	Behind     uint64          `json:"behind"`       // events that are known to follow it
	Accepted   uint64          `json:"accepted"`     // appended at the receiving end
	Duplicates uint64          `json:"duplicates"`   // were there already
	Own        uint64          `json:"own"`          // came from the receiving end in the first place
	Filtered   uint64          `json:"filtered"`     // not among the types that are wanted
	Refused    uint64          `json:"refused"`      // unreadable, or of a device too many: went over as undecodable, or not at all
	Gaps       uint64          `json:"gaps"`         // events were found missing
}

// Moved says that the flow has come to a position, and whose word it is what
// became of a batch.
func (f *Flow) Moved(to domain.Position, t domain.ImportResult) {
	if to.After(f.Position) {
		now := time.Now().UTC()
		f.Position, f.At = to, &now
	}
	f.Accepted += uint64(t.Accepted)
	f.Duplicates += uint64(t.Duplicates)
	f.Own += uint64(t.Own)
}

// State gathers a [Status]. It is safe for concurrent use.
type State struct {
	mu     sync.Mutex
	status Status
}

// NewState makes the state of one system of a link that a process of that name runs.
func NewState(link Link, system System, node string) *State {
	s := &State{status: Status{
		Bridge: link.Name(), Kind: link.Kind(), System: system.System, Direction: system.Direction, Node: node,
		Since: time.Now().UTC(),
	}}
	if system.Direction.Pulls() {
		s.status.Pull = &Flow{}
	}
	if system.Direction.Pushes() {
		s.status.Push = &Flow{}
	}
	return s
}

// Connected says that there is a connection, to the far end of that id ("" when
// it has none).
func (s *State) Connected(remote string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.status.Connected {
		s.status.Connected, s.status.Since = true, time.Now().UTC()
		s.status.Connections++
	}
	if remote != "" {
		s.status.Remote = remote
	}
}

// Failed says that the connection is gone, or something else failed. The text is
// shown: it has no secrets in it.
func (s *State) Failed(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now().UTC()
	if s.status.Connected {
		s.status.Connected, s.status.Since = false, now
	}
	s.status.LastError, s.status.LastErrorAt = err.Error(), &now
}

// OnPull changes the pull flow. Without one it does nothing.
func (s *State) OnPull(change func(*Flow)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.status.Pull != nil {
		change(s.status.Pull)
	}
}

// OnPush changes the push flow. Without one it does nothing.
func (s *State) OnPush(change func(*Flow)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.status.Push != nil {
		change(s.status.Push)
	}
}

// SetDetail keeps what only this kind of link knows, as JSON.
func (s *State) SetDetail(detail json.RawMessage) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Detail = detail
}

// Status is a copy of what is known now.
func (s *State) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	status := s.status
	status.At = time.Now().UTC()
	for _, flow := range []**Flow{&status.Pull, &status.Push} {
		if *flow != nil {
			copied := **flow
			*flow = &copied
		}
	}
	return status
}
