package projections

import (
	"context"
	"errors"
	"fmt"

	"github.com/plugcast/plugcast/domain"
)

// VerifyResult says how far a system's hash chain holds.
type VerifyResult struct {
	Checked uint64        // events that hold
	Head    domain.Cursor // of the last that holds
	Hash    domain.Hash   // its hash
	// Broken is the first event that does not hold, and why, or nil.
	Broken *domain.BrokenError
}

// Verify reads a system's whole history and checks its hash chain: that no event
// was altered, left out, put in or moved, and none cut off at the end. report,
// which may be nil, is told how many events are checked of how many there are.
// The error is about the reading; what the chain is like is in the result.
func (s *Store) Verify(ctx context.Context, actor domain.Actor, system domain.SystemID, report func(done, total uint64)) (VerifyResult, error) {
	head, err := s.ChainHead(ctx, actor, system)
	if err != nil {
		return VerifyResult{}, err
	}
	var chain domain.Chain
	var result VerifyResult
	stop := errors.New("enough")
	err = s.Export(ctx, actor, system, domain.EventQuery{}, func(l *domain.Link) error {
		l.Previous = nil // the chain has to hold by itself
		if l.Event.Seq > head.Head.Seq && chain.Checked() == head.Head.Seq {
			return stop // archived since
		}
		if err := chain.Check(l); err != nil {
			if !errors.As(err, &result.Broken) {
				return err
			}
			return stop
		}
		if report != nil && chain.Checked()%MaxPage == 0 {
			report(chain.Checked(), head.Head.Seq)
		}
		return nil
	})
	if err != nil && !errors.Is(err, stop) {
		return VerifyResult{}, err
	}
	result.Checked = chain.Checked()
	if last := chain.Last(); last != nil {
		result.Head, result.Hash = last.Event.Cursor(), last.Hash
	}
	if result.Broken == nil {
		result.Broken = compareHead(head, &result)
	}
	if report != nil {
		report(result.Checked, head.Head.Seq)
	}
	return result, nil
}

// compareHead tells a chain that ends elsewhere than its head says.
func compareHead(head *System, result *VerifyResult) *domain.BrokenError {
	switch {
	case result.Checked < head.Head.Seq:
		return &domain.BrokenError{Cursor: head.Head, Reason: fmt.Sprintf("events are missing at the end: the head is at seq %d, history ends at %d",
			head.Head.Seq, result.Checked)}
	case result.Head != head.Head || result.Hash != head.Hash:
		return &domain.BrokenError{Cursor: result.Head, Reason: "the last event is not the one that the head names"}
	}
	return nil
}
