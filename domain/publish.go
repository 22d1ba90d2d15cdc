package domain

import (
	"cmp"
	"context"
	"fmt"
	"slices"
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

// Publish appends the device updates unchanged and in order, one event each. If one is invalid, the actor may not
// publish to its system, or its device exceeds the system's quota ([CodeTooManyDevices]), Publish appends nothing and
// returns an [Error] with the index of that update. The quota does not
// refuse a repeat of a batch that is already in the log, in whole or in part. Other errors: [CodeBatchTooLarge] beyond
// [MaxUpdatesPerBatch], and those of the log. Publish ignores the request's BeforeAppend.
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
	key := r.idempotency()
	admissions, refusal := s.admit(ctx, updates)
	if refusal != nil {
		if begun, err := s.begun(ctx, updates, key); err != nil || !begun {
			return PublishResult{}, cmp.Or(err, refusal)
		}
	}
	appended, err := s.log.Append(ctx, events, AppendOptions{Idempotency: key})
	for _, a := range admissions {
		a.SettleAppend(err)
	}
	if err != nil {
		return PublishResult{}, err
	}
	return publishResult(events, appended), nil
}

// begun reports whether the log knows the key in a system of the batch. Publish needs to know only after a refusal, which
// therefore costs these round trips instead of every batch.
func (s *Service) begun(ctx context.Context, updates []SystemUpdate, key *Idempotency) (bool, error) {
	if key == nil {
		return false, nil
	}
	asked := map[SystemID]bool{}
	for i := range updates {
		system := updates[i].SystemID
		if asked[system] {
			continue
		}
		asked[system] = true
		if earlier, err := s.log.Recall(ctx, system, *key); err != nil || earlier.Replayed {
			return earlier.Replayed, err
		}
	}
	return false, nil
}

// admit asks the quota to admit the devices of a batch. The caller must settle the admissions; after a failure there are
// none.
func (s *Service) admit(ctx context.Context, updates []SystemUpdate) (map[SystemID]Admission, error) {
	if s.quota == nil {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, MaxQuotaWait)
	defer cancel()
	devices := map[SystemID][]DeviceID{}
	for i := range updates {
		devices[updates[i].SystemID] = append(devices[updates[i].SystemID], updates[i].DeviceID)
	}
	admissions, refused := make(map[SystemID]Admission, len(devices)), false
	giveBack := func() {
		for _, a := range admissions {
			a.Settle(false)
		}
	}
	for system, ids := range devices {
		a, err := s.quota.Admit(ctx, system, ids)
		if err != nil {
			giveBack()
			return nil, Fail(KindUnavailable, CodeUnavailable, "the request ended before the devices were looked up").WithCause(err)
		}
		admissions[system] = a
		refused = refused || a.Refused != nil
	}
	if !refused {
		return admissions, nil
	}
	giveBack()
	i := slices.IndexFunc(updates, func(u SystemUpdate) bool { return admissions[u.SystemID].Refused[u.DeviceID] })
	return nil, AtIndex(admissions[updates[i].SystemID].Refusal().With("deviceId", updates[i].DeviceID), i)
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
