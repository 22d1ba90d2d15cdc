package timeline_test

import (
	"context"
	"fmt"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/streams"
	"github.com/plugcast/plugcast/streams/redisserver/redistest"
	"github.com/plugcast/plugcast/streams/timeline"
)

// An event is appended to the log, and a reader follows its system from a position. In production the second argument of
// New is the archive in Postgres. Here it is an empty one, so that all events come from Redis.
func ExampleFollow() {
	err := redistest.Use(func(url string) error {
		ctx := context.Background()
		log, err := streams.Open(ctx, streams.Config{URL: url})
		if err != nil {
			return err
		}
		defer log.Close()
		reader := timeline.New(log, newArchive(log), timeline.Config{})
		defer reader.Close()

		// Append returns once Redis has the events. They get consecutive positions.
		var events []domain.Event
		for _, watts := range []float64{60, 0} {
			data := domain.DeviceUpdate{DeviceID: "plug-1", PowerW: domain.Some(watts)}
			e, err := domain.NewEvent("clinica-sol", data, domain.Cause{Actor: "maria"})
			if err != nil {
				return err
			}
			events = append(events, e)
		}
		if _, err := log.Append(ctx, events, domain.AppendOptions{}); err != nil {
			return err
		}

		// The zero position is before the first event. A reader that stores the position of the last event that it took
		// continues there after a restart. Follow waits for new events until ctx ends or the function returns an error.
		seen := uint64(0)
		err = timeline.Follow(ctx, reader, "clinica-sol", domain.Position{}, func(events []domain.Event, _ uint64) error {
			for _, e := range events {
				fmt.Println(e.Seq, e.Type, e.Actor)
				seen = e.Seq
			}
			if seen == 2 {
				return errEnough
			}
			return nil
		})
		fmt.Println(err)
		return nil
	})
	if err != nil {
		fmt.Println(err)
	}
	// Output:
	// 1 device-update maria
	// 2 device-update maria
	// enough
}
