package legacy

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/plugcast/plugcast/domain"
)

// Rows is the database behind a [Store]. It is safe for concurrent use.
type Rows interface {
	// LinkState returns the stored state of a link's system, or nil.
	LinkState(ctx context.Context, link string, system domain.SystemID) (json.RawMessage, error)
	// SaveLinkState replaces the stored state if its revision is was, and reports whether it
	// did.
	SaveLinkState(ctx context.Context, link string, system domain.SystemID, was uint64, state json.RawMessage) (bool, error)
	// AddFindings appends findings to the report of a link's system and adds the counts to
	// the stored ones, together.
	AddFindings(ctx context.Context, link string, system domain.SystemID,
		findings []domain.Finding, counts map[string]uint64, dropped uint64) error
}

// NewStore returns a [Store] that stores states as JSON in rows.
func NewStore(rows Rows) Store { return jsonStore{rows} }

// jsonStore adds findings as its Rows do.
type jsonStore struct{ Rows }

// LoadState implements [Store].
func (s jsonStore) LoadState(ctx context.Context, link string, system domain.SystemID) (saved SavedState, err error) {
	raw, err := s.LinkState(ctx, link, system)
	if err != nil || raw == nil {
		return saved, err
	}
	if err := json.Unmarshal(raw, &saved); err != nil {
		return saved, fmt.Errorf("legacy: decode the state of %s for %s: %w", link, system, err)
	}
	return saved, nil
}

// SaveState implements [Store].
func (s jsonStore) SaveState(ctx context.Context, link string, system domain.SystemID, was uint64, saved SavedState) error {
	raw, err := json.Marshal(saved)
	if err != nil {
		return err
	}
	done, err := s.SaveLinkState(ctx, link, system, was, raw)
	if err == nil && !done {
		err = ErrSuperseded
	}
	return err
}
