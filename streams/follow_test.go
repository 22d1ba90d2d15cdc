package streams_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/streams"
	"github.com/plugcast/plugcast/streams/redisserver/redistest"
)

// following is a Follow that runs in the background of a test.
type following struct {
	events chan domain.Event
	done   chan error
	stop   context.CancelFunc
}

func follow(t testing.TB, l *streams.Log, partition int, after domain.Position) *following {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	f := &following{events: make(chan domain.Event, 100_000), done: make(chan error, 1), stop: cancel}
	go func() {
		f.done <- l.Follow(ctx, partition, after, func(events []domain.Event) error {
			for _, e := range events {
				f.events <- e
			}
			return nil
		})
	}()
	t.Cleanup(cancel)
	return f
}

const patience = 20 * time.Second

func (f *following) next(t testing.TB) domain.Event {
	t.Helper()
	select {
	case e := <-f.events:
		return e
	case err := <-f.done:
		t.Fatalf("the follow ended: %v", err)
	case <-time.After(patience):
		t.Fatal("no event came")
	}
	return domain.Event{}
}

func (f *following) end(t testing.TB) error {
	t.Helper()
	select {
	case err := <-f.done:
		return err
	case <-time.After(patience):
		t.Fatal("the follow did not end")
		return nil
	}
}

func TestFollowGivesAllInOrderAndStops(t *testing.T) {
	t.Parallel()
	l := open(t, streams.Config{})
	p := l.Partition(sol)
	at := mustAppend(t, l, updates(sol, 2500)...)
	f := follow(t, l, p, at[9])
	for i := 10; i < 2500; i++ {
		if e := f.next(t); e.Position != at[i] {
			t.Fatalf("event %d is at %s, want %s", i, e.Position, at[i])
		}
	}
	for range 20 {
		want := mustAppend(t, l, update(sol, 1))[0]
		if e := f.next(t); e.Position != want {
			t.Fatalf("event at %s, want %s", e.Position, want)
		}
	}
	f.stop()
	if err := f.end(t); !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
}

func TestFollowEndsWithTheLogAndWithItsFunction(t *testing.T) {
	t.Parallel()
	l := open(t, streams.Config{})
	mustAppend(t, l, update(sol, 1))
	mine := errors.New("mine")
	err := l.Follow(t.Context(), l.Partition(sol), domain.Position{}, func([]domain.Event) error { return mine })
	if err != mine { //nolint:errorlint // as it is
		t.Errorf("got %v", err)
	}
	f := follow(t, l, 0, domain.Position{})
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := f.end(t); !errors.Is(err, streams.ErrClosed) {
		t.Errorf("ended with %v", err)
	}
}

func TestFollowNoticesATrim(t *testing.T) {
	t.Parallel()
	l := open(t, streams.Config{})
	p := l.Partition(sol)
	mustAppend(t, l, updates(sol, 100)...)
	busy, release := make(chan struct{}, 100), make(chan struct{})
	done := make(chan error, 1)
	go func() {
		done <- l.Follow(context.Background(), p, domain.Position{}, func([]domain.Event) error {
			busy <- struct{}{}
			<-release // a slow reader: the log moves on beyond it
			return nil
		})
	}()
	<-busy
	more := mustAppend(t, l, updates(sol, 100)...)
	if err := l.Trim(t.Context(), p, more[50]); err != nil {
		t.Fatal(err)
	}
	close(release)
	select {
	case err := <-done:
		if !errors.Is(err, streams.ErrTrimmed) {
			t.Errorf("ended with %v", err)
		}
	case <-time.After(patience):
		t.Fatal("the gap was not noticed")
	}
}

func TestFollowNoticesAWipedRedis(t *testing.T) {
	t.Parallel()
	url := redistest.URL(t)
	l := open(t, streams.Config{URL: url})
	f := follow(t, l, l.Partition(sol), domain.Position{})
	mustAppend(t, l, update(sol, 1))
	f.next(t)
	if err := redistest.Connect(t, url).FlushDB(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, l, update(sol, 2)) // creates the stream again
	if err := f.end(t); !errors.Is(err, streams.ErrRewound) {
		t.Errorf("ended with %v", err)
	}
	if len(f.events) > 0 {
		t.Error("an event of the new stream was given as if nothing was missing")
	}
}

func TestFollowSurvivesAKilledRedis(t *testing.T) {
	t.Parallel()
	server := redistest.New(t)
	l := open(t, streams.Config{URL: server.URL()})
	f := follow(t, l, l.Partition(sol), domain.Position{})
	for range 3 {
		want := mustAppend(t, l, update(sol, 1))[0]
		if e := f.next(t); e.Position != want {
			t.Fatalf("event at %s, want %s", e.Position, want)
		}
		server = redistest.Restart(t, server)
	}
	want := mustAppend(t, l, update(sol, 1))[0]
	if e := f.next(t); e.Position != want {
		t.Fatalf("event at %s, want %s", e.Position, want)
	}
}
