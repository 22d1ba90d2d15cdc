package claims

import (
	"context"
	"errors"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/streams"
)

// Recent returns the relay commands and their outcomes that were appended to a partition
// since a time, by the clock of Redis, or since the beginning of what Redis has, in
// order.
func (s *Store) Recent(ctx context.Context, partition int, since time.Time) (recent []domain.Event, err error) {
	at := domain.Position{Ms: uint64(max(since.UnixMilli(), 0))}
	for {
		events, err := s.log.Read(ctx, partition, at, recentPage)
		if errors.Is(err, streams.ErrTrimmed) {
			origin, originErr := s.log.Origin(ctx, partition)
			if originErr != nil {
				return nil, originErr
			}
			if !origin.After(at) {
				return nil, err
			}
			at = origin
			continue
		}
		if errors.Is(err, streams.ErrRewound) {
			return recent, nil // nothing is newer than the time
		}
		if err != nil || len(events) == 0 {
			return recent, err
		}
		for i := range events {
			if t := events[i].Type; t == domain.TypeRelaySwitchRequested || t == domain.TypeRelaySwitchCompleted {
				recent = append(recent, events[i])
			}
		}
		at = events[len(events)-1].Position
	}
}

const recentPage = 1000
