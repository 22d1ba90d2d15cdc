package projections

import (
	"context"
	"errors"
	"fmt"

	"github.com/plugcast/plugcast/domain"
)

// VerifyResult says how far a system's hash chain is intact.
type VerifyResult struct {
	Checked uint64        // number of intact events
	Head    domain.Cursor // cursor of the last intact event
	Hash    domain.Hash   // its hash
	// Broken is the first event that is not intact, and why, or nil.
	Broken *domain.IntegrityError
}

// Verify reads a system's whole history and checks its hash chain: that no event was altered,
// left out, inserted or moved, and none cut off at the end. report, which may be nil, is called
// with the number of checked events and the number of all events. The error is about reading;
// the result says whether the chain is intact.
func (s *Store) Verify(
	ctx context.Context, actor domain.Actor, system domain.SystemID, report func(done, total uint64),
) (VerifyResult, error) {
	head, hash, err := s.Head(ctx, actor, system)
	if err != nil {
		return VerifyResult{}, err
	}
	var chain domain.ChainVerifier
	var result VerifyResult
	stop := errors.New("stop")
	err = s.Export(ctx, actor, system, domain.EventQuery{}, func(l *domain.HashedEvent) error {
		l.Previous = nil // the chain must be intact by itself
		if l.Event.Seq > head.Seq && chain.Verified() == head.Seq {
			return stop // this event was archived after Verify began
		}
		if err := chain.Verify(l); err != nil {
			if !errors.As(err, &result.Broken) {
				return err
			}
			return stop
		}
		if report != nil && chain.Verified()%MaxPage == 0 {
			report(chain.Verified(), head.Seq)
		}
		return nil
	})
	if err != nil && !errors.Is(err, stop) {
		return VerifyResult{}, err
	}
	result.Checked = chain.Verified()
	if last := chain.Last(); last != nil {
		result.Head, result.Hash = last.Event.Cursor(), last.Hash
	}
	if result.Broken == nil {
		result.Broken = compareHead(head, hash, &result)
	}
	if report != nil {
		report(result.Checked, head.Seq)
	}
	return result, nil
}

// compareHead reports a chain that does not end at its head.
func compareHead(head domain.Cursor, hash domain.Hash, result *VerifyResult) *domain.IntegrityError {
	switch {
	case result.Checked < head.Seq:
		return &domain.IntegrityError{Cursor: head, Reason: fmt.Sprintf(
			"events are missing at the end: the head is at seq %d, history ends at %d", head.Seq, result.Checked)}
	case result.Head != head || result.Hash != hash:
		return &domain.IntegrityError{Cursor: result.Head, Reason: "the last event is not the one that the head names"}
	}
	return nil
}
