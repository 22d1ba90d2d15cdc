package streams_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/streams"
	"github.com/plugcast/plugcast/streams/redisserver/redistest"
	"github.com/plugcast/plugcast/transport/testpeer"
)

// link is a network between a log and its Redis, with faults.
type link struct {
	listener net.Listener
	server   string
	cut      atomic.Pointer[string] // break the connection once this was sent, without an answer
	stall    atomic.Bool            // let no answer through
	cuts     atomic.Int64
	working  sync.WaitGroup
	ctx      context.Context
	end      context.CancelFunc
}

// newLink returns a link and the Redis URL that leads through it.
func newLink(t *testing.T, url string) (*link, string) {
	t.Helper()
	o, err := redis.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	k := &link{listener: listener, server: o.Addr, ctx: ctx, end: cancel}
	k.working.Go(k.accept)
	t.Cleanup(func() {
		cancel()
		_ = listener.Close()
		k.working.Wait()
	})
	return k, strings.Replace(url, o.Addr, listener.Addr().String(), 1)
}

func (k *link) accept() {
	for {
		client, err := k.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp4", k.server)
		if err != nil {
			_ = client.Close()
			continue
		}
		stop := context.AfterFunc(k.ctx, func() { _, _ = client.Close(), server.Close() })
		var silent atomic.Bool
		k.working.Go(func() { k.forward(client, server, &silent) })
		k.working.Go(func() { k.answer(client, server, &silent); stop() })
	}
}

func (k *link) forward(client, server net.Conn, silent *atomic.Bool) {
	buf := make([]byte, 1<<20)
	for {
		n, err := client.Read(buf)
		if err != nil {
			_ = server.Close()
			return
		}
		if word := k.cut.Load(); word != nil && bytes.Contains(buf[:n], []byte(*word)) {
			silent.Store(true)
		}
		if _, err := server.Write(buf[:n]); err != nil {
			return
		}
	}
}

func (k *link) answer(client, server net.Conn, silent *atomic.Bool) {
	defer client.Close()
	buf := make([]byte, 1<<20)
	for {
		n, err := server.Read(buf)
		if err != nil {
			return
		}
		if silent.Load() {
			k.cuts.Add(1)
			return // Redis has done it, but the answer is lost
		}
		if k.stall.Load() {
			<-k.ctx.Done()
			return
		}
		if _, err := client.Write(buf[:n]); err != nil {
			return
		}
	}
}

// If a connection breaks between the write and the answer, the outcome is unknown, and the
// events are in the log once: nothing is sent a second time.
func TestAConnectionThatBreaksAfterTheWrite(t *testing.T) {
	t.Parallel()
	key := func(n string) domain.AppendOptions {
		return domain.AppendOptions{Idempotency: &domain.Idempotency{Scope: "a", Key: n, Fingerprint: n}}
	}
	for name, c := range map[string]struct {
		events int
		opts   domain.AppendOptions
		word   string
	}{
		"one":      {1, domain.AppendOptions{}, "nomkstream"},
		"batch":    {10, domain.AppendOptions{}, "nomkstream"},
		"scripted": {10, key("k"), "evalsha"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k, url := newLink(t, redistest.URL(t))
			l := open(t, streams.Config{URL: url})
			if _, err := l.Append(t.Context(), updates(sol, c.events), key("warm")); err != nil { // the script is loaded
				t.Fatal(err)
			}
			mustAppend(t, l, updates(sol, c.events)...)
			k.cut.Store(&c.word)
			_, err := l.Append(t.Context(), updates(sol, c.events), c.opts)
			if !domain.HasCode(err, domain.CodeUnknownOutcome) {
				t.Fatalf("got %v", err)
			}
			k.cut.Store(nil)
			if n := k.cuts.Load(); n != 1 {
				t.Errorf("it was sent %d times", n)
			}
			want := 3 * c.events
			if c.opts.Idempotency != nil {
				again, err := l.Append(t.Context(), updates(sol, c.events), c.opts)
				if err != nil || !again.Replayed {
					t.Errorf("the repeat: %+v, %v", again, err)
				}
			}
			got, err := l.Read(t.Context(), l.Partition(sol), domain.Position{}, 100)
			if err != nil || len(got) != want {
				t.Errorf("%d events in the log, %v; want %d", len(got), err, want)
			}
		})
	}
}

func TestAppendWaitsNoLongerThanItsContext(t *testing.T) {
	t.Parallel()
	k, url := newLink(t, redistest.URL(t))
	l := open(t, streams.Config{URL: url})
	mustAppend(t, l, updates(sol, 1)...)
	mustAppend(t, l, updates(sol, 2)...)
	k.stall.Store(true)
	for n := 1; n <= 2; n++ {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(10*time.Millisecond, cancel)
		if _, err := l.Append(ctx, updates(sol, n), domain.AppendOptions{}); !domain.HasCode(err, domain.CodeUnknownOutcome) {
			t.Errorf("%d events: %v", n, err)
		}
		if _, err := l.Append(ctx, updates(sol, n), domain.AppendOptions{}); !domain.HasCode(err, domain.CodeUnavailable) {
			t.Errorf("%d events, after the context: %v", n, err)
		}
	}
	k.end() // else closing the log waits for Redis until it times out
}

func TestAppendWhileRedisIsAway(t *testing.T) {
	t.Parallel()
	server := redistest.New(t)
	hasty := open(t, streams.Config{URL: server.URL(), RetryFor: -1})
	patient := open(t, streams.Config{URL: server.URL(), RetryFor: patience})
	mustAppend(t, hasty, update(sol, 1))
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{1, 2} {
		if _, err := hasty.Append(t.Context(), updates(sol, n), domain.AppendOptions{}); !domain.HasCode(err, domain.CodeUnavailable) {
			t.Errorf("%d events: %v", n, err)
		}
	}
	if _, err := hasty.Recall(t.Context(), sol, domain.Idempotency{}); !domain.HasCode(err, domain.CodeUnavailable) {
		t.Errorf("recall: %v", err)
	}
	answer := make(chan error, 1)
	go func() {
		_, err := patient.Append(context.Background(), updates(sol, 2), domain.AppendOptions{})
		answer <- err
	}()
	redistest.Restart(t, server)
	if err := <-answer; err != nil {
		t.Errorf("an append that could wait: %v", err)
	}
	if got, err := hasty.Read(t.Context(), hasty.Partition(sol), domain.Position{}, 10); err != nil || len(got) != 3 {
		t.Errorf("%d events in the log, %v; want 3", len(got), err)
	}
}

func TestAnAppendAfterCloseIsRefused(t *testing.T) {
	t.Parallel()
	l := open(t, streams.Config{})
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for n := 1; n <= 2; n++ {
		if _, err := l.Append(t.Context(), updates(sol, n), domain.AppendOptions{}); !domain.HasCode(err, domain.CodeUnavailable) {
			t.Errorf("%d events: %v", n, err)
		}
	}
	if err := l.Follow(t.Context(), 0, domain.Position{}, nil); !errors.Is(err, streams.ErrClosed) {
		t.Errorf("follow: %v", err)
	}
}

// floors is an archive that only knows how far it is.
type floors struct {
	mu   sync.Mutex
	at   domain.Position
	down error // its error, if it fails

	asked int
}

func (f *floors) set(at domain.Position) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.at = at
}

// fail makes the archive fail with an error from now on, or work for nil.
func (f *floors) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.down = err
}

func (f *floors) Floor(context.Context, int) (domain.Position, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked++
	return f.at, f.down
}

func (f *floors) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked
}

// diary collects the logged lines.
type diary struct{ testpeer.Buffer }

func (d *diary) has(words string) bool { return d.count(words) > 0 }

func (d *diary) count(words string) int { return strings.Count(d.String(), words) }

// await waits until a line was logged so many times.
func (d *diary) await(t *testing.T, words string, times int) {
	t.Helper()
	testpeer.Eventually(t, words+" in the log", func() bool { return d.count(words) >= times }, d.Tail)
}

// After Redis lost everything, positions continue beyond the archived ones, also if its clock
// is behind.
func TestAWipedRedisGoesOnBeyondTheArchive(t *testing.T) {
	t.Parallel()
	url := redistest.URL(t)
	var archive floors
	var book diary
	l := open(t, streams.Config{URL: url, Partitions: 1, Floor: archive.Floor, Logger: slog.New(slog.NewTextHandler(&book, nil))})
	at := mustAppend(t, l, updates(sol, 3)...)
	ahead := domain.Position{Ms: at[2].Ms + 3_600_000, N: 7} // archived by a faster clock
	archive.set(ahead)
	if err := redistest.Connect(t, url).FlushDB(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	if next := mustAppend(t, l, updates(sol, 2)...)[0]; !next.After(ahead) {
		t.Errorf("appended at %s, archived up to %s", next, ahead)
	}
	if !book.has("level=ERROR") || !book.has("Redis lost a stream") {
		t.Error("the loss was not logged")
	}
	if o, err := l.Origin(t.Context(), 0); err != nil || o != ahead {
		t.Errorf("origin %s, %v; want %s", o, err, ahead)
	}
	if _, err := l.Read(t.Context(), 0, at[2], 10); !errors.Is(err, streams.ErrTrimmed) {
		t.Errorf("a reader from before: %v", err)
	}
	open(t, streams.Config{URL: url, Partitions: 1}) // the number of partitions is known again
	if _, err := streams.Open(t.Context(), streams.Config{URL: url, Partitions: 2}); err == nil {
		t.Error("another number of partitions was taken")
	}
}

// Opening asks the archive how far it is. Appends do not ask it again until they meet another
// run of Redis.
func TestAppendsDoWithoutTheArchiveInARedisThatIsKnown(t *testing.T) {
	t.Parallel()
	server := redistest.New(t)
	var archive floors
	l := open(t, streams.Config{URL: server.URL(), Partitions: 1, Floor: archive.Floor, RetryFor: -1})
	archive.fail(errors.New("the archive is down"))
	mustAppend(t, l, update(sol, 1))
	if n := archive.count(); n != 1 {
		t.Errorf("the archive was asked %d times for one partition", n)
	}
	redistest.Restart(t, server)
	if _, err := l.Append(t.Context(), updates(sol, 1), domain.AppendOptions{}); !domain.HasCode(err, domain.CodeUnavailable) {
		t.Errorf("to a Redis that is not known, without the archive: %v", err)
	}
	if archive.count() == 1 {
		t.Error("the archive was not asked for a Redis that is not known")
	}
	archive.fail(nil)
	mustAppend(t, l, update(sol, 2))
}

// A reader that comes first repairs the streams that it needs.
func TestAReaderOfAWipedRedisGoesOnFromTheArchive(t *testing.T) {
	t.Parallel()
	url := redistest.URL(t)
	var archive floors
	l := open(t, streams.Config{URL: url, Partitions: 1, Floor: archive.Floor})
	at := mustAppend(t, l, updates(sol, 3)...)
	archive.set(at[2])
	if err := redistest.Connect(t, url).FlushDB(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	if got, err := l.Read(t.Context(), 0, at[2], 10); err != nil || len(got) != 0 {
		t.Errorf("at the archive's end: %d events, %v", len(got), err)
	}
	if tail, err := l.Tail(t.Context(), 0); err != nil || tail != at[2] {
		t.Errorf("tail %s, %v; want %s", tail, err, at[2])
	}
}

// rollBack sets a Redis back to its content at an earlier moment, as a restored backup does,
// and restarts it.
func rollBack(t *testing.T, client *redis.Client, to string) {
	t.Helper()
	for _, key := range []string{"events", "origin"} {
		if err := client.Copy(t.Context(), to+key, "plugcast:{p00}:"+key, 0, true).Err(); err != nil {
			t.Fatal(err)
		}
	}
}

func remember(t *testing.T, client *redis.Client) (as string) {
	t.Helper()
	for _, key := range []string{"events", "origin"} {
		if err := client.Copy(t.Context(), "plugcast:{p00}:"+key, "then:{p00}:"+key, 0, true).Err(); err != nil {
			t.Fatal(err)
		}
	}
	return "then:{p00}:"
}

func TestARolledBackRedisIsNoticed(t *testing.T) {
	t.Parallel()
	server := redistest.New(t)
	var archive floors
	var book diary
	l := open(t, streams.Config{
		URL: server.URL(), Partitions: 1, Floor: archive.Floor, RetryFor: patience, Logger: slog.New(slog.NewTextHandler(&book, nil)),
	})
	client := redistest.Connect(t, server.URL())
	old := mustAppend(t, l, updates(sol, 5)...)
	then := remember(t, client)
	lost := mustAppend(t, l, updates(sol, 5)...)
	archive.set(lost[2])
	seen := follow(t, l, 0, old[4]) // has seen more than is archived
	behind := follow(t, l, 0, old[0])
	for range lost {
		seen.next(t)
	}
	for range 9 {
		behind.next(t)
	}
	rollBack(t, client, then)
	redistest.Restart(t, server)

	next := mustAppend(t, l, update(sol, 1))[0]
	if !next.After(lost[2]) {
		t.Errorf("appended at %s, archived up to %s", next, lost[2])
	}
	for _, f := range []*following{seen, behind} {
		if err := f.end(t); !errors.Is(err, streams.ErrRewound) {
			t.Errorf("a reader of what was lost ended with %v", err)
		}
	}
	if !book.has("Redis was set back behind the archive") {
		t.Error("the loss was not logged")
	}
	again := follow(t, l, 0, lost[2])
	if e := again.next(t); e.Position != next {
		t.Errorf("a reader from the archive's end got %s, want %s", e.Position, next)
	}
}

// No archived entry was lost, so nothing is repaired. But a reader that has had entries that no
// longer exist must get an error.
func TestARollBackBeyondTheArchiveIsNoticedByWhoSawMore(t *testing.T) {
	t.Parallel()
	server := redistest.New(t)
	l := open(t, streams.Config{URL: server.URL(), Partitions: 1, RetryFor: patience})
	client := redistest.Connect(t, server.URL())
	old := mustAppend(t, l, updates(sol, 5)...)
	then := remember(t, client)
	mustAppend(t, l, update(sol, 6))
	busy, release := make(chan struct{}, 1), make(chan struct{})
	seen := make(chan error, 1)
	go func() {
		calls := 0
		seen <- l.Follow(context.Background(), 0, old[4], func(events []domain.Event) error {
			if calls++; calls > 1 {
				return errors.New("more was given")
			}
			busy <- struct{}{}
			<-release
			return nil
		})
	}()
	<-busy
	rollBack(t, client, then)
	redistest.Restart(t, server)
	next := mustAppend(t, l, update(sol, 7))[0]
	close(release)
	if err := <-seen; !errors.Is(err, streams.ErrRewound) {
		t.Errorf("ended with %v", err)
	}
	fine := follow(t, l, 0, old[4])
	if e := fine.next(t); e.Position != next {
		t.Errorf("got %s, want %s", e.Position, next)
	}
}
