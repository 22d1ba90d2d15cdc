package bridge

import (
	"encoding/json"
	"sync"
	"time"

	"github.com/plugcast/plugcast/domain"
)

// Status is the status of one system of a link, as reported by the process that runs it.
// Counts start when that process takes the system.
type Status struct {
	Bridge      string          `json:"bridge"`
	Kind        string          `json:"kind"`
	System      domain.SystemID `json:"system"`
	Direction   Direction       `json:"direction"`
	Node        string          `json:"node"` // the process that runs it
	Connected   bool            `json:"connected"`
	Since       time.Time       `json:"since"`            // when Connected last changed
	Connections uint64          `json:"connections"`      // number of connections that were made
	Remote      string          `json:"remote,omitempty"` // the far end's id, once it is known
	LastError   string          `json:"lastError,omitempty"`
	LastErrorAt *time.Time      `json:"lastErrorAt,omitempty"`
	Pull        *Flow           `json:"pull,omitempty"`
	Push        *Flow           `json:"push,omitempty"`
	Detail      json.RawMessage `json:"detail,omitempty"` // members of this kind of link only
	At          time.Time       `json:"at"`               // time of this report
}

// Flow is one direction of a [Status].
type Flow struct {
	Position   domain.Position `json:"position"`     // in the log that is read: everything up to it was handled
	At         *time.Time      `json:"at,omitempty"` // when Position last moved
	Behind     uint64          `json:"behind"`       // number of events that are known to follow Position
	Accepted   uint64          `json:"accepted"`     // appended at the receiving end
	Duplicates uint64          `json:"duplicates"`   // the receiving end had them already
	Own        uint64          `json:"own"`          // the receiving end was their origin
	Filtered   uint64          `json:"filtered"`     // their types do not cross the link
	Refused    uint64          `json:"refused"`      // unreadable, or of a device beyond the quota: stored as undecodable, or left out
	Gaps       uint64          `json:"gaps"`         // number of times that events were missing
}

// Moved moves the flow to a position, if that is later, and adds the result of a batch.
func (f *Flow) Moved(to domain.Position, result domain.ImportResult) {
	if to.After(f.Position) {
		now := time.Now().UTC()
		f.Position, f.At = to, &now
	}
	f.Accepted += uint64(result.Accepted)
	f.Duplicates += uint64(result.Duplicates)
	f.Own += uint64(result.Own)
}

// State builds a [Status] while a link runs. It is safe for concurrent use.
type State struct {
	mu     sync.Mutex
	status Status
}

// NewState returns the state of one system of a link that the named process runs.
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

// Connected notes that a connection is up, and the far end's id, if it has one.
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

// Failed notes that the connection ended, and why. Status shows the error's text, so that it
// must not contain a secret.
func (s *State) Failed(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now().UTC()
	if s.status.Connected {
		s.status.Connected, s.status.Since = false, now
	}
	s.status.LastError, s.status.LastErrorAt = err.Error(), &now
}

// OnPull changes the pull flow, if there is one.
func (s *State) OnPull(change func(*Flow)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.status.Pull != nil {
		change(s.status.Pull)
	}
}

// OnPush changes the push flow, if there is one.
func (s *State) OnPush(change func(*Flow)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.status.Push != nil {
		change(s.status.Push)
	}
}

// SetDetail sets the part of the status that only this kind of link has.
func (s *State) SetDetail(detail json.RawMessage) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Detail = detail
}

// Status returns the current status. The caller owns it.
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
