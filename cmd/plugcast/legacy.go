package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/projections"
	"github.com/plugcast/plugcast/transport/bridge/legacy"
)

// legacyStore is [legacy.Store].
type legacyStore struct{ store *projections.Store }

// LoadState implements legacy.Store.
func (s legacyStore) LoadState(ctx context.Context, link string, system domain.SystemID) (saved legacy.SavedState, err error) {
	raw, err := s.store.LinkState(ctx, link, system)
	if err != nil || raw == nil {
		return saved, err
	}
	if err := json.Unmarshal(raw, &saved); err != nil {
		return saved, fmt.Errorf("what the bridge %s keeps of %s: %w", link, system, err)
	}
	return saved, nil
}

// SaveState implements legacy.Store.
func (s legacyStore) SaveState(ctx context.Context, link string, system domain.SystemID, was uint64, saved legacy.SavedState) error {
	raw, err := json.Marshal(saved)
	if err != nil {
		return err
	}
	done, err := s.store.SaveLinkState(ctx, link, system, was, raw)
	if err == nil && !done {
		err = legacy.ErrSuperseded
	}
	return err
}

// AddFindings implements legacy.Store.
func (s legacyStore) AddFindings(ctx context.Context, link string, system domain.SystemID,
	findings []domain.Finding, counts map[string]uint64, dropped uint64,
) error {
	return s.store.AddFindings(ctx, link, system, findings, counts, dropped)
}
