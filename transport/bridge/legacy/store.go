package legacy

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/plugcast/plugcast/domain"
)

// Rows is where a [Store] keeps its contents.
type Rows interface {
	// LinkState returns what is kept of a link's system, or nil.
	LinkState(ctx context.Context, link string, system domain.SystemID) (json.RawMessage, error)
	// SaveLinkState replaces it if it is of the revision was, and reports whether it is.
	SaveLinkState(ctx context.Context, link string, system domain.SystemID, was uint64, kept json.RawMessage) (bool, error)
	// AddFindings adds findings of one link's system, and counts to the counts that are
	// there.
	AddFindings(ctx context.Context, link string, system domain.SystemID,
		findings []domain.Finding, counts map[string]uint64, dropped uint64) error
}

// NewStore makes a [Store] that keeps JSON in rows.
func NewStore(rows Rows) Store { return jsonStore{rows} }

type jsonStore struct{ rows Rows }

// LoadState implements [Store].
func (s jsonStore) LoadState(ctx context.Context, link string, system domain.SystemID) (saved SavedState, err error) {
	raw, err := s.rows.LinkState(ctx, link, system)
	if err != nil || raw == nil {
		return saved, err
	}
	if err := json.Unmarshal(raw, &saved); err != nil {
		return saved, fmt.Errorf("what the bridge %s keeps of %s: %w", link, system, err)
	}
	return saved, nil
}

// SaveState implements [Store].
func (s jsonStore) SaveState(ctx context.Context, link string, system domain.SystemID, was uint64, saved SavedState) error {
	raw, err := json.Marshal(saved)
	if err != nil {
		return err
	}
	done, err := s.rows.SaveLinkState(ctx, link, system, was, raw)
	if err == nil && !done {
		err = ErrSuperseded
	}
	return err
}

// AddFindings implements [Store].
func (s jsonStore) AddFindings(ctx context.Context, link string, system domain.SystemID,
	findings []domain.Finding, counts map[string]uint64, dropped uint64,
) error {
	return s.rows.AddFindings(ctx, link, system, findings, counts, dropped)
}
