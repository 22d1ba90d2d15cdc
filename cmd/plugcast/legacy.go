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

// Kept implements legacy.Store.
func (s legacyStore) Kept(ctx context.Context, link string, system domain.SystemID) (kept legacy.Kept, err error) {
	raw, err := s.store.LinkState(ctx, link, system)
	if err != nil || raw == nil {
		return kept, err
	}
	if err := json.Unmarshal(raw, &kept); err != nil {
		return kept, fmt.Errorf("what the bridge %s keeps of %s: %w", link, system, err)
	}
	return kept, nil
}

// Keep implements legacy.Store.
func (s legacyStore) Keep(ctx context.Context, link string, system domain.SystemID, was uint64, kept legacy.Kept) error {
	raw, err := json.Marshal(kept)
	if err != nil {
		return err
	}
	done, err := s.store.SaveLinkState(ctx, link, system, was, raw)
	if err == nil && !done {
		err = legacy.ErrSuperseded
	}
	return err
}

// Report implements legacy.Store.
func (s legacyStore) Report(ctx context.Context, link string, system domain.SystemID,
	findings []domain.Finding, counts map[string]uint64, dropped uint64,
) error {
	return s.store.AddFindings(ctx, link, system, findings, counts, dropped)
}
