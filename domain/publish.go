package domain

import (
	"context"
	"fmt"
)

// PublishResult is the result of [Service.Publish].
type PublishResult struct {
	Accepted  int // number of updates
	Positions map[SystemID]PositionRange
	Replayed  bool // the result of an earlier run under the same key
}

// PositionRange contains the first and the last position of a system's events in one batch.
type PositionRange struct {
	First Position `json:"first"`
	Last  Position `json:"last"`
}

// Publish appends the device updates unchanged and in order, one event each. If one is invalid, or the actor may not
// publish to its system, Publish appends nothing and returns an [Error] with the index of that update. Other errors:
// [CodeBatchTooLarge] beyond [MaxUpdatesPerBatch], and those of the log. It ignores the request's BeforeAppend.
func (s *Service) Publish(ctx context.Context, updates []SystemUpdate, r Request) (PublishResult, error) {
	if len(updates) > MaxUpdatesPerBatch {
		return PublishResult{}, Fail(KindTooLarge, CodeBatchTooLarge, fmt.Sprintf("a batch holds at most %d updates", MaxUpdatesPerBatch))
	}
	events := make([]Event, len(updates))
	cause := Cause{Actor: r.Actor.Subject, CorrelationID: r.CorrelationID}
	if cause.CorrelationID == "" {
		cause.CorrelationID = s.newID()
	}
	for i := range updates {
		u := &updates[i]
		err := u.Validate()
		if err == nil {
			err = r.Actor.Authorize(ActionPublish, u.SystemID)
		}
		if err == nil {
			events[i], err = NewEvent(u.SystemID, u.DeviceUpdate, cause)
		}
		if err != nil {
			return PublishResult{}, AtIndex(err, i)
		}
	}
	appended, err := s.log.Append(ctx, events, AppendOptions{Idempotency: r.idempotency()})
	if err != nil {
		return PublishResult{}, err
	}
	return publishResult(events, appended), nil
}

func publishResult(events []Event, appended Appended) PublishResult {
	p := PublishResult{Accepted: len(events), Positions: map[SystemID]PositionRange{}, Replayed: appended.Replayed}
	for i := range events {
		at := appended.Positions[i]
		positions, known := p.Positions[events[i].SystemID]
		if !known {
			positions.First = at
		}
		positions.Last = at
		p.Positions[events[i].SystemID] = positions
	}
	return p
}
