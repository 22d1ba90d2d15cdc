package legacy

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/plugcast/plugcast/domain"
)

// SavedState is the state of one system of a link that survives restarts.
type SavedState struct {
	// PID and Offset let the server send the events that the link missed. Both are empty
	// if the server keeps no connection state.
	PID    string `json:"pid,omitempty"`
	Offset string `json:"offset,omitempty"`
	// Pushed is the position in our log up to which the link has emitted everything; nil
	// before the first connection.
	Pushed *domain.Position `json:"pushed,omitempty"`
	// Heard is the time up to which the link has appended everything that the server
	// emitted; zero before the first connection.
	Heard time.Time `json:"heard,omitzero"`
	// Open is true while a connection is open. If it is still true at the next start, the
	// process died, and may have emitted events after Pushed.
	Open bool `json:"open,omitempty"`
	// Revision grows by one each time that another process takes the link over.
	Revision uint64 `json:"revision,omitempty"`
}

// ErrSuperseded reports that another process has taken the link's system over, so that its
// saved state is newer than ours.
var ErrSuperseded = errors.New("legacy: another process has taken the link over")

// Store holds the saved states and the reports of links. It is durable, and safe for
// concurrent use.
type Store interface {
	// LoadState returns the saved state of a link's system, or zero if there is none.
	LoadState(ctx context.Context, link string, system domain.SystemID) (SavedState, error)
	// SaveState replaces the saved state, if the stored one has the revision was. Otherwise
	// it fails with [ErrSuperseded].
	SaveState(ctx context.Context, link string, system domain.SystemID, was uint64, state SavedState) error
	// AddFindings appends findings to the report of a link's system and adds the counts to
	// the stored ones, together. dropped is the number of findings that the link had to
	// discard before this call.
	AddFindings(
		ctx context.Context, link string, system domain.SystemID, findings []domain.Finding, counts map[string]uint64, dropped uint64,
	) error
}

// currentState is the state that the next save stores. It is safe for concurrent use.
type currentState struct {
	mu    sync.Mutex
	state SavedState
	dirty bool // it changed since the last save
}

func (c *currentState) get() SavedState {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state
}

func (c *currentState) change(change func(*SavedState)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change(&c.state)
	c.dirty = true
}

// clean returns the state, and whether it changed since the last call.
func (c *currentState) clean() (state SavedState, dirty bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	dirty, c.dirty = c.dirty, false
	return c.state, dirty
}
