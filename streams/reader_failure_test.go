package streams_test

import (
	"errors"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/plugcast/plugcast/streams"
	"github.com/plugcast/plugcast/streams/redisserver/redistest"
)

// awaitLive waits until so many consumers of a partition get the reader's batches, and
// the reader waits for news.
func awaitLive(t *testing.T, l *streams.Log, client *redis.Client, partition, consumers int) {
	t.Helper()
	waitFor(t, "the consumers to join the reader", func() bool { return l.Live(partition) == consumers })
	waitFor(t, "a read that blocks", func() bool { return len(readers(t, client)) > 0 })
}

// The reader began at an entry without reading it. Redis loses that entry and gets
// another one while the connections are away: the loss is noticed all the same.
func TestALossOfTheEntryWhereTheReaderBeganIsNoticed(t *testing.T) {
	t.Parallel()
	server := redistest.New(t)
	l := open(t, streams.Config{URL: server.URL(), Partitions: 1, Patience: patience})
	client := connect(t, server.URL())
	old := mustAppend(t, l, updates(sol, 5)...)
	then := remember(t, client)
	lost := mustAppend(t, l, update(sol, 6))[0]
	f := follow(t, l, 0, old[4])
	if e := f.next(t); e.Position != lost {
		t.Fatalf("got %s, want %s", e.Position, lost)
	}
	awaitLive(t, l, client, 0, 1)
	entry, err := client.XRange(t.Context(), l.Topic(0), lost.String(), lost.String()).Result()
	if err != nil || len(entry) != 1 {
		t.Fatalf("%d entries, %v", len(entry), err)
	}
	_, err = client.TxPipelined(t.Context(), func(p redis.Pipeliner) error {
		p.Do(t.Context(), "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
		for _, key := range []string{"events", "origin"} {
			p.Copy(t.Context(), then+key, "plugcast:{p00}:"+key, 0, true)
		}
		p.XAdd(t.Context(), &redis.XAddArgs{Stream: l.Topic(0), Values: entry[0].Values})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.end(t); !errors.Is(err, streams.ErrRewound) {
		t.Errorf("ended with %v", err)
	}
	if len(f.events) > 0 {
		t.Errorf("got %s after %s, which is lost", (<-f.events).Position, lost)
	}
}
