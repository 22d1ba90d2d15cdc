package streams_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/streams"
	"github.com/plugcast/plugcast/streams/redisserver/redistest"
	"github.com/plugcast/plugcast/transport/testpeer"
)

// awaitLive waits until this many consumers of a partition get the reader's batches, and the
// reader waits for new entries.
func awaitLive(t *testing.T, l *streams.Log, client *redis.Client, partition, consumers int) {
	t.Helper()
	testpeer.Eventually(t, "the consumers to join the reader", func() bool { return l.Live(partition) == consumers })
	testpeer.Eventually(t, "a read that blocks", func() bool { return len(readers(t, client)) > 0 })
}

// The reader began at an entry without reading it. Redis loses that entry and gets another one
// while the connections are away. The loss is noticed nevertheless.
func TestALossOfTheEntryWhereTheReaderBeganIsNoticed(t *testing.T) {
	t.Parallel()
	server := redistest.New(t)
	l := open(t, streams.Config{URL: server.URL(), Partitions: 1, RetryFor: patience})
	client := redistest.Connect(t, server.URL())
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

// If a stream is missing, and the archive hangs that its repair needs, the other partitions
// continue.
func TestAnArchiveThatHangsStopsNoOtherPartition(t *testing.T) {
	t.Parallel()
	url := redistest.URL(t)
	client := redistest.Connect(t, url)
	opened, asked := make(chan struct{}), make(chan struct{}, 1)
	l := open(t, streams.Config{URL: url, Partitions: 2, Floor: func(ctx context.Context, _ int) (domain.Position, error) {
		select {
		case <-opened:
		default:
			return domain.Position{}, nil
		}
		select {
		case asked <- struct{}{}:
		default:
		}
		<-ctx.Done()
		return domain.Position{}, ctx.Err()
	}})
	close(opened)
	broken, fine := follow(t, l, 0, domain.Position{}), follow(t, l, 1, domain.Position{})
	mustAppend(t, l, update(systemIn(l, 0), 1))
	broken.next(t)
	mustAppend(t, l, update(systemIn(l, 1), 1))
	fine.next(t)
	awaitLive(t, l, client, 0, 1)
	awaitLive(t, l, client, 1, 1)
	if err := client.Del(t.Context(), l.Topic(0)).Err(); err != nil {
		t.Fatal(err)
	}
	<-asked
	for n := range 5 {
		want := mustAppend(t, l, update(systemIn(l, 1), n))[0]
		if e := fine.next(t); e.Position != want {
			t.Fatalf("got %s, want %s", e.Position, want)
		}
	}
	broken.stop()
	if err := broken.end(t); !errors.Is(err, context.Canceled) {
		t.Errorf("the consumer that waits for the archive ended with %v", err)
	}
}

// If the reader cannot reach Redis and the consumers can, the consumers read on their own, and
// join again when the reader is back.
func TestConsumersDoWithoutAReaderThatCannotRead(t *testing.T) {
	t.Parallel()
	server := redistest.New(t)
	client := redistest.Connect(t, server.URL())
	var book diary
	l := open(t, streams.Config{URL: server.URL(), Partitions: 1, Logger: slog.New(slog.NewTextHandler(&book, nil))})
	f := follow(t, l, 0, domain.Position{})
	for round := range 2 {
		awaitLive(t, l, client, 0, 1)
		for _, order := range [][]any{{"ACL", "SETUSER", "default", "-xread"}, {"CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"}} {
			if err := client.Do(t.Context(), order...).Err(); err != nil {
				t.Fatal(err)
			}
		}
		for n := range 3 {
			want := mustAppend(t, l, update(sol, n))[0]
			if e := f.next(t); e.Position != want {
				t.Fatalf("got %s, want %s", e.Position, want)
			}
		}
		if err := client.Do(t.Context(), "ACL", "SETUSER", "default", "+xread").Err(); err != nil {
			t.Fatal(err)
		}
		book.await(t, "following the log again", round+1)
	}
	if n := book.count("level=WARN msg=\"lost Redis while following the log"); n != 2 {
		t.Errorf("%d warnings after two outages", n)
	}
}

// A Redis that answers reads which do not block, and breaks off those that do, counts as away.
func TestAReadThatDoesNotWaitEndsNoOutage(t *testing.T) {
	t.Parallel()
	url := redistest.URL(t)
	client := redistest.Connect(t, url)
	k, through := newLink(t, url)
	var book diary
	l := open(t, streams.Config{
		URL: through, Partitions: 1, Logger: slog.New(slog.NewTextHandler(&book, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	f := follow(t, l, 0, domain.Position{})
	awaitLive(t, l, client, 0, 1)
	block := "\r\nblock\r\n"
	k.cut.Store(&block)
	book.await(t, "lost Redis while reading the log", 1)
	testpeer.Eventually(t, "more reads that are broken off", func() bool { return k.cuts.Load() >= 3 })
	if book.has("reading the log again") {
		t.Error("a read that does not wait counted as the end of the outage")
	}
	want := mustAppend(t, l, update(sol, 1))[0]
	if e := f.next(t); e.Position != want {
		t.Fatalf("got %s, want %s", e.Position, want)
	}
	k.cut.Store(nil)
	book.await(t, "following the log again", 1)
}
