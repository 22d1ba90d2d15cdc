package streams_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/streams"
	"github.com/plugcast/plugcast/streams/redisserver/redistest"
	"github.com/plugcast/plugcast/transport/testpeer"
)

// systemIn returns a system of a partition.
func systemIn(l *streams.Log, partition int) domain.SystemID {
	for n := 0; ; n++ {
		if system := domain.SystemID(fmt.Sprint("clinica-", n)); l.Partition(system) == partition {
			return system
		}
	}
}

// readers returns the connections that wait in an XREAD.
func readers(t *testing.T, client *redis.Client) (blocked []string) {
	t.Helper()
	list, err := client.ClientList(t.Context()).Result()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(list) {
		if strings.Contains(line, " flags=b ") && strings.Contains(line, " cmd=xread ") {
			blocked = append(blocked, line)
		}
	}
	return blocked
}

// One connection reads for any number of consumers; without consumers none does.
func TestOneConnectionReadsForAll(t *testing.T) {
	t.Parallel()
	server := redistest.New(t)
	client := redistest.Connect(t, server.URL())
	l := open(t, streams.Config{URL: server.URL(), Partitions: 4})
	for range 2 {
		var follows []*following
		for n := range 3 * l.Partitions() {
			follows = append(follows, follow(t, l, n%l.Partitions(), domain.Position{}))
		}
		for p := range l.Partitions() {
			at := mustAppend(t, l, update(systemIn(l, p), 1))[0]
			for n := p; n < len(follows); n += l.Partitions() {
				for follows[n].next(t).Position != at {
				}
			}
		}
		testpeer.Eventually(t, "a read that blocks", func() bool { return len(readers(t, client)) > 0 })
		if list := readers(t, client); len(list) != 1 {
			t.Errorf("%d connections read:\n%s", len(list), strings.Join(list, ""))
		}
		for _, f := range follows {
			f.stop()
			if err := f.end(t); !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		}
		testpeer.Eventually(t, "the reader to stop", func() bool { return len(readers(t, client)) == 0 })
	}
}

// A busy partition beside many idle ones is read in large batches, also right after the
// connection broke.
func TestIdlePartitionsTakeNothingFromABusyOne(t *testing.T) {
	t.Parallel()
	const partitions, batches, size = 64, 20, 1000
	server := redistest.New(t)
	client := redistest.Connect(t, server.URL())
	l := open(t, streams.Config{URL: server.URL(), Partitions: partitions})
	followIdle(t, l, 1, partitions)
	busy := systemIn(l, 0)
	f := follow(t, l, 0, domain.Position{})
	reads := func(batches int) int64 {
		t.Helper()
		if err := client.ConfigResetStat(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		for range batches {
			at := mustAppend(t, l, updates(busy, size)...)
			for _, want := range at {
				if e := f.next(t); e.Position != want {
					t.Fatalf("got %s, want %s", e.Position, want)
				}
			}
		}
		return callsOf(t, client, "xread")
	}
	if n := reads(batches); n > 4*batches {
		t.Errorf("%d reads brought %d batches of %d events", n, batches, size)
	}
	var reader string
	testpeer.Eventually(t, "a read that blocks", func() bool {
		list := readers(t, client)
		if len(list) == 1 {
			reader = list[0]
		}
		return len(list) == 1
	})
	_, id, _ := strings.Cut(reader, "id=")
	id, _, _ = strings.Cut(id, " ")
	if err := client.Do(t.Context(), "client", "kill", "id", id).Err(); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, l, update(busy, 1))
	f.next(t)
	testpeer.Eventually(t, "a read that blocks again", func() bool { return len(readers(t, client)) == 1 })
	if n := reads(1); n > 4 {
		t.Errorf("after the connection broke, %d reads brought %d events", n, size)
	}
}

// followIdle follows partitions until the test ends, and returns once each of them has been
// heard of.
func followIdle(t testing.TB, l *streams.Log, from, to int) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	heard := make(chan struct{}, to-from)
	var following sync.WaitGroup
	t.Cleanup(func() {
		cancel()
		following.Wait()
	})
	for p := from; p < to; p++ {
		following.Go(func() {
			_ = l.Follow(ctx, p, domain.Position{}, func(events []domain.Event) error { // ctx ends it
				heard <- struct{}{}
				return nil
			})
		})
		mustAppend(t, l, update(systemIn(l, p), 1))
	}
	for range to - from {
		select {
		case <-heard:
		case <-time.After(patience):
			t.Fatal("an idle partition is not followed")
		}
	}
}

// callsOf returns how often Redis got a command since its statistics were reset.
func callsOf(t *testing.T, client *redis.Client, command string) (calls int64) {
	t.Helper()
	info, err := client.Info(t.Context(), "commandstats").Result()
	if err != nil {
		t.Fatal(err)
	}
	_, stats, called := strings.Cut(info, "cmdstat_"+command+":calls=")
	if !called {
		return 0
	}
	if _, err := fmt.Sscanf(stats, "%d", &calls); err != nil {
		t.Fatalf("calls of %s in %s: %v", command, info, err)
	}
	return calls
}

// A consumer that does not return delays no other, and gets everything later.
func TestASlowConsumerDelaysNobody(t *testing.T) {
	t.Parallel()
	l := open(t, streams.Config{})
	p := l.Partition(sol)
	busy, release := make(chan struct{}, 100_000), make(chan struct{})
	got := make(chan domain.Event, 100_000)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- l.Follow(ctx, p, domain.Position{}, func(events []domain.Event) error {
			busy <- struct{}{}
			<-release
			for _, e := range events {
				got <- e
			}
			return nil
		})
	}()
	fast := follow(t, l, p, domain.Position{})
	all := mustAppend(t, l, update(sol, 0))
	<-busy
	for range 20 { // more than one consumer's queue holds
		all = append(all, mustAppend(t, l, updates(sol, 500)...)...)
	}
	for _, want := range all {
		if e := fast.next(t); e.Position != want {
			t.Fatalf("the fast one got %s, want %s", e.Position, want)
		}
	}
	close(release)
	for _, want := range all {
		select {
		case e := <-got:
			if e.Position != want {
				t.Fatalf("the slow one got %s, want %s", e.Position, want)
			}
		case <-time.After(patience):
			t.Fatal("the slow one did not get everything")
		}
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// A key that is not a stream stops only its own partition, which is read again once the key is
// repaired.
func TestABrokenStreamStopsNoOther(t *testing.T) {
	t.Parallel()
	url := redistest.URL(t)
	client := redistest.Connect(t, url)
	l := open(t, streams.Config{URL: url, Partitions: 3})
	broken, fine := follow(t, l, 0, domain.Position{}), follow(t, l, 1, domain.Position{})
	mustAppend(t, l, update(systemIn(l, 0), 1))
	broken.next(t)
	key := l.Topic(0)
	if err := client.Rename(t.Context(), key, "aside").Err(); err != nil {
		t.Fatal(err)
	}
	if err := client.Set(t.Context(), key, "no stream", 0).Err(); err != nil {
		t.Fatal(err)
	}
	for n := range 5 {
		want := mustAppend(t, l, update(systemIn(l, 1), n))[0]
		if e := fine.next(t); e.Position != want {
			t.Fatalf("got %s, want %s", e.Position, want)
		}
	}
	late := follow(t, l, 2, domain.Position{}) // joins a reader whose partition is broken
	want := mustAppend(t, l, update(systemIn(l, 2), 1))[0]
	if e := late.next(t); e.Position != want {
		t.Fatalf("got %s, want %s", e.Position, want)
	}
	if err := client.Rename(t.Context(), "aside", key).Err(); err != nil {
		t.Fatal(err)
	}
	want = mustAppend(t, l, update(systemIn(l, 0), 2))[0]
	if e := broken.next(t); e.Position != want {
		t.Fatalf("got %s, want %s", e.Position, want)
	}
}

// Consumers that come and go while events are appended, each from some position in the past,
// get every event from there on.
func TestConsumersComeAndGo(t *testing.T) {
	t.Parallel()
	l := open(t, streams.Config{Partitions: 3})
	truth := make([][]domain.Position, l.Partitions())
	var mu sync.Mutex
	var working sync.WaitGroup
	done := make(chan struct{})
	working.Go(func() {
		defer close(done)
		for range 400 {
			p := rand.N(l.Partitions())
			at := mustAppend(t, l, updates(systemIn(l, p), 1+rand.N(20))...)
			mu.Lock()
			truth[p] = append(truth[p], at...)
			mu.Unlock()
		}
	})
	for range 12 {
		working.Go(func() {
			for {
				p := rand.N(l.Partitions())
				mu.Lock()
				known := truth[p]
				mu.Unlock()
				n := rand.N(len(known) + 1)
				var after domain.Position
				if n > 0 {
					after = known[n-1]
				}
				want := 1 + rand.N(500)
				got := takeSome(t, l, p, after, want, done)
				mu.Lock()
				known = truth[p]
				mu.Unlock()
				for i, at := range got {
					if n+i < len(known) && at != known[n+i] { // the other positions are not known yet
						t.Errorf("event %d after %s is at %s, want %s", i, after, at, known[n+i])
						return
					}
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	working.Wait()
}

// takeSome follows until it has some events, or until done.
func takeSome(t *testing.T, l *streams.Log, partition int, after domain.Position, want int, done <-chan struct{}) (got []domain.Position) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		select {
		case <-done:
			cancel()
		case <-stop:
		}
	}()
	enough := errors.New("enough")
	err := l.Follow(ctx, partition, after, func(events []domain.Event) error {
		for i := range events {
			got = append(got, events[i].Position)
		}
		if len(got) >= want {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	return got
}
