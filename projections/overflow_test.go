package projections_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/projections"
	"github.com/plugcast/plugcast/streams"
	"github.com/plugcast/plugcast/streams/redisserver/redistest"
	"github.com/plugcast/plugcast/transport/testpeer"
)

// An entry with an id that history cannot hold stops its partition, with an error, until the
// stream is repaired as SECURITY.md describes. The other partitions continue.
func TestPositionBeyondHistory(t *testing.T) {
	t.Parallel()
	b := setup(t)
	log, err := streams.Open(t.Context(), streams.Config{URL: redistest.URL(t), Partitions: testPartitions})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = log.Close() })
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- projections.NewWorker(projections.WorkerConfig{Store: b.store, Log: log}).Run(ctx) }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	var in [testPartitions]domain.SystemID
	for n, i := 0, 0; n < len(in); i++ {
		system := domain.SystemID(fmt.Sprint("beyond-", i))
		if p := log.Partition(system); in[p] == "" {
			in[p], n = system, n+1
		}
	}
	appended := func(partition int) domain.Position {
		e := must(t, in[partition], 0, domain.DeviceUpdate{DeviceID: "d", Online: domain.Some(true)})
		e.ID = ""
		done, err := log.Append(t.Context(), []domain.Event{e}, domain.AppendOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return done.Positions[0]
	}
	projected := func(partition int, at domain.Position) {
		t.Helper()
		waiting, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if err := b.store.WaitFor(waiting, partition, at); err != nil {
			t.Fatalf("partition %d is stuck: %v", partition, err)
		}
	}
	redis := func(args ...any) {
		t.Helper()
		if err := log.Client().Do(t.Context(), args...).Err(); err != nil {
			t.Fatal(err)
		}
	}
	for partition, id := range []string{"9223372036854775808-0", "9000000000000-9223372036854775808"} {
		good, stream := appended(partition), log.Slot(partition)+"events"
		redis("XADD", stream, id, "systemId", string(in[partition]))
		later := appended(partition)
		testpeer.Eventually(t, "it says what is wrong", func() bool {
			for _, one := range b.store.Failing() {
				if one.Partition == partition {
					return strings.Contains(one.Reason, id) && strings.Contains(one.Reason, "SECURITY.md")
				}
			}
			return false
		})
		projected(partition, good)
		if at, err := b.store.Checkpoint(t.Context(), partition); err != nil || at != good {
			t.Errorf("partition %d is at %s, %v; want %s", partition, at, err, good)
		}
		projected(3, appended(3))

		redis("XDEL", stream, id, later.String())
		redis("XSETID", stream, good.String(), "ENTRIESADDED", 1, "MAXDELETEDID", "0-0")
		projected(partition, appended(partition))
		if e := archived(t, b.store, in[partition]); len(e) != 2 {
			t.Errorf("history has %d events", len(e))
		}
	}
}
