package timeline_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/streams"
	"github.com/plugcast/plugcast/streams/redisserver/redistest"
	"github.com/plugcast/plugcast/streams/timeline"
)

func TestMain(m *testing.M) { redistest.Main(m) }

const patience = 30 * time.Second

// archive is a History that holds the whole log in memory and counts from the start every time.
type archive struct {
	log *streams.Log

	mu         sync.Mutex
	partitions map[int][]domain.Event
	lie        uint64                                                  // added to every seq
	trouble    func(ctx context.Context, system domain.SystemID) error // called first by Base, unless nil
}

func newArchive(l *streams.Log) *archive {
	return &archive{log: l, partitions: map[int][]domain.Event{}}
}

// advance archives up to n more entries of a partition.
func (a *archive) advance(ctx context.Context, partition, n int) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	events, err := a.log.Read(ctx, partition, a.checkpoint(partition), n)
	a.partitions[partition] = append(a.partitions[partition], events...)
	return len(events), err
}

func (a *archive) checkpoint(partition int) domain.Position {
	if all := a.partitions[partition]; len(all) > 0 {
		return all[len(all)-1].Position
	}
	return domain.Position{}
}

func (a *archive) Floor(_ context.Context, partition int) (domain.Position, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.checkpoint(partition), nil
}

func (a *archive) numbered(system domain.SystemID) []domain.Event {
	var list []domain.Event
	for _, e := range a.partitions[a.log.Partition(system)] {
		if e.SystemID == system {
			e.Seq = uint64(len(list)+1) + a.lie
			list = append(list, e)
		}
	}
	return list
}

func (a *archive) Base(ctx context.Context, system domain.SystemID) (domain.Position, domain.Cursor, error) {
	a.mu.Lock()
	trouble := a.trouble
	a.mu.Unlock()
	if trouble != nil {
		if err := trouble(ctx, system); err != nil {
			return domain.Position{}, domain.Cursor{}, err
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	list := a.numbered(system)
	if len(list) == 0 {
		return a.checkpoint(a.log.Partition(system)), domain.Cursor{}, nil
	}
	return a.checkpoint(a.log.Partition(system)), list[len(list)-1].Cursor(), nil
}

func (a *archive) Locate(_ context.Context, system domain.SystemID, at domain.Position) (c domain.Cursor, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, e := range a.numbered(system) {
		if !e.Position.After(at) {
			c = e.Cursor()
		}
	}
	return c, nil
}

func (a *archive) Page(_ context.Context, system domain.SystemID, after domain.Position, limit int) ([]domain.Event, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var page []domain.Event
	for _, e := range a.numbered(system) {
		if e.Position.After(after) && len(page) < limit {
			page = append(page, e)
		}
	}
	return page, nil
}

// bundle is the fixture of a test.
type bundle struct {
	log      *streams.Log
	archive  *archive
	timeline *timeline.Timeline
}

func setup(t testing.TB, url string, cfg timeline.Config) *bundle {
	t.Helper()
	options, err := streams.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	return setupWith(t, options, cfg)
}

func setupWith(t testing.TB, options *redis.UniversalOptions, cfg timeline.Config) *bundle {
	t.Helper()
	logger := slog.New(slog.NewTextHandler(t.Output(), nil))
	b := &bundle{}
	l, err := streams.Open(t.Context(), streams.Config{
		Options: options, Partitions: 2, Logger: logger, RetryFor: patience,
		Floor: func(ctx context.Context, p int) (domain.Position, error) {
			if b.archive == nil {
				return domain.Position{}, nil
			}
			return b.archive.Floor(ctx, p)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	b.log, b.archive = l, newArchive(l)
	cfg.Logger = logger
	b.timeline = timeline.New(l, b.archive, cfg)
	t.Cleanup(func() {
		if err := errors.Join(b.timeline.Close(), l.Close()); err != nil {
			t.Error(err)
		}
	})
	return b
}

func event(system domain.SystemID, n int) domain.Event {
	return domain.Event{
		Type: domain.TypeDeviceUpdate, Version: 1, SystemID: system, Actor: "test",
		Data: json.RawMessage(fmt.Sprintf(`{"deviceId":"d","n":%d}`, n)),
	}
}

func (b *bundle) append(t testing.TB, system domain.SystemID, n int) []domain.Position {
	t.Helper()
	events := make([]domain.Event, n)
	for i := range events {
		events[i] = event(system, i)
	}
	appended, err := b.log.Append(t.Context(), events, domain.AppendOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return appended.Positions
}

func (b *bundle) project(t testing.TB, system domain.SystemID, n int) {
	t.Helper()
	if got, err := b.archive.advance(t.Context(), b.log.Partition(system), n); err != nil || got != n {
		t.Fatalf("archived %d of %d, %v", got, n, err)
	}
}

// subscriber checks events as they come.
type subscriber struct {
	mu     sync.Mutex
	last   domain.Cursor
	events []domain.Event
	broken error // the first event that was wrong
	ended  error // the error that the subscription ended with
	change chan struct{}
	cancel func()
	start  domain.Cursor
}

func (b *bundle) subscribe(t testing.TB, system domain.SystemID) *subscriber {
	t.Helper()
	s := &subscriber{change: make(chan struct{}, 1)}
	var err error
	if s.start, s.cancel, err = b.timeline.Subscribe(t.Context(), system, s.take); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.cancel)
	return s
}

func (s *subscriber) take(events []domain.Event, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.ended = err
	}
	for _, e := range events {
		if s.last.Seq != 0 && (e.Seq != s.last.Seq+1 || !e.Position.After(s.last.Position)) && s.broken == nil {
			s.broken = fmt.Errorf("%s follows %s", e.Cursor(), s.last)
		}
		s.last = e.Cursor()
		s.events = append(s.events, e)
	}
	select {
	case s.change <- struct{}{}:
	default:
	}
}

// until waits until the subscriber is in a state.
func (s *subscriber) until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(patience)
	for {
		s.mu.Lock()
		done, broken := ok(), s.broken
		s.mu.Unlock()
		if broken != nil {
			t.Fatal(broken)
		}
		if done {
			return
		}
		select {
		case <-s.change:
		case <-deadline:
			t.Fatalf("timed out waiting for %s; last %s, ended %v", what, s.last, s.ended)
		}
	}
}

func (s *subscriber) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.events)
}

func (s *subscriber) reaches(t testing.TB, at domain.Position) {
	t.Helper()
	s.until(t, "event at "+at.String(), func() bool { return s.last.Position == at })
}

func TestSubscribeStartsWhereTheLogIs(t *testing.T) {
	t.Parallel()
	b := setup(t, redistest.URL(t), timeline.Config{})
	b.append(t, "a", 10)
	b.project(t, "a", 4)
	first := b.subscribe(t, "a")
	if first.start.Seq != 4 {
		t.Errorf("starts at %s, want the archive's end, seq 4", first.start)
	}
	at := b.append(t, "a", 1)
	first.reaches(t, at[0])
	if first.last.Seq != 11 || len(first.events) != 7 || first.events[0].Seq != 5 {
		t.Errorf("%d events, the last %s", len(first.events), first.last)
	}
	second := b.subscribe(t, "a") // joins what is followed already
	if second.start != first.last {
		t.Errorf("starts at %s, want %s", second.start, first.last)
	}
	second.cancel()
	second.cancel()
	at = b.append(t, "a", 1)
	first.reaches(t, at[0])
	if len(second.events) != 0 {
		t.Errorf("a cancelled subscription got %d events", len(second.events))
	}
}

func TestSubscribeCountsWhatTheWindowNoLongerHolds(t *testing.T) {
	t.Parallel()
	b := setup(t, redistest.URL(t), timeline.Config{Window: 1})
	if b.log.Partition("a") != b.log.Partition("c") {
		t.Fatal("the systems of this test must share a partition")
	}
	a := b.subscribe(t, "a")
	at := b.append(t, "c", 2500)
	at = append(at, b.append(t, "a", 1)...)
	a.reaches(t, at[2500])
	c := b.subscribe(t, "c")
	if c.start.Seq != 2500 || c.start.Position != at[2499] {
		t.Errorf("starts at %s", c.start)
	}
	next := b.append(t, "c", 1)
	c.reaches(t, next[0])
	if c.last.Seq != 2501 {
		t.Errorf("last %s", c.last)
	}
}

func TestPageCrossesTheSeam(t *testing.T) {
	t.Parallel()
	for _, followed := range []bool{false, true} {
		t.Run(fmt.Sprintf("followed=%v", followed), func(t *testing.T) {
			t.Parallel()
			b := setup(t, redistest.URL(t), timeline.Config{})
			at := b.append(t, "a", 50)
			b.append(t, "c", 20)
			at = append(at, b.append(t, "a", 50)...)
			if followed {
				b.subscribe(t, "a").reaches(t, at[99])
			}
			b.project(t, "a", 60)
			if err := b.log.Trim(t.Context(), b.log.Partition("a"), at[40]); err != nil {
				t.Fatal(err)
			}
			var cursor domain.Cursor
			for i := 0; i < 100; {
				page, err := b.timeline.Page(t.Context(), "a", cursor, 7)
				if err != nil || len(page) == 0 {
					t.Fatalf("after %s: %d events, %v", cursor, len(page), err)
				}
				for _, e := range page {
					if e.Seq != uint64(i+1) || e.Position != at[i] || e.SystemID != "a" {
						t.Fatalf("event %d is %s of %s", i, e.Cursor(), e.SystemID)
					}
					i++
				}
				cursor = page[len(page)-1].Cursor()
			}
			if page, err := b.timeline.Page(t.Context(), "a", cursor, 7); err != nil || len(page) != 0 {
				t.Fatalf("at the end: %d events, %v", len(page), err)
			}
			for _, wrong := range []domain.Cursor{{Position: at[10], Seq: 3}, {Position: at[49], Seq: 3}} {
				if _, err := b.timeline.Page(t.Context(), "a", wrong, 7); !errors.Is(err, domain.ErrGap) {
					t.Errorf("a wrong seq at %s: %v", wrong, err)
				}
			}
		})
	}
}

func TestLocate(t *testing.T) {
	t.Parallel()
	b := setup(t, redistest.URL(t), timeline.Config{})
	at := b.append(t, "a", 5)
	other := b.append(t, "c", 1)
	at = append(at, b.append(t, "a", 5)...)
	b.project(t, "a", 7)
	for _, followed := range []bool{false, true} {
		if followed {
			b.subscribe(t, "a").reaches(t, at[9])
		}
		for i, p := range at {
			got, err := b.timeline.Locate(t.Context(), "a", p)
			if err != nil || got != (domain.Cursor{Position: p, Seq: uint64(i + 1)}) {
				t.Errorf("at %s: %s, %v", p, got, err)
			}
		}
		if got, err := b.timeline.Locate(t.Context(), "a", other[0]); err != nil || got.Seq != 5 {
			t.Errorf("between two events: %s, %v", got, err)
		}
		if got, err := b.timeline.Locate(t.Context(), "a", domain.Position{}); err != nil || got.Seq != 0 {
			t.Errorf("before all: %s, %v", got, err)
		}
		ahead := domain.Position{Ms: at[9].Ms + 1}
		if _, err := b.timeline.Locate(t.Context(), "a", ahead); !errors.Is(err, domain.ErrAhead) {
			t.Errorf("ahead of the log: %v", err)
		}
		if _, err := b.timeline.Page(t.Context(), "a", domain.Cursor{Position: ahead, Seq: 11}, 1); !errors.Is(err, domain.ErrAhead) {
			t.Errorf("a page ahead of the log: %v", err)
		}
	}
}

func TestAWipedRedisEndsSubscriptions(t *testing.T) {
	t.Parallel()
	url := redistest.URL(t)
	b := setup(t, url, timeline.Config{})
	b.append(t, "a", 3)
	b.project(t, "a", 3)
	lost := b.append(t, "a", 1)
	s := b.subscribe(t, "a")
	s.reaches(t, lost[0])
	client := redistest.Connect(t, url)
	if err := client.FlushDB(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	at := b.append(t, "a", 1)
	s.until(t, "the end", func() bool { return s.ended != nil })
	if !errors.Is(s.ended, streams.ErrRewound) {
		t.Errorf("ended with %v", s.ended)
	}
	again := b.subscribe(t, "a")
	again.reaches(t, at[0])
	if again.last.Seq != 4 || !at[0].After(lost[0]) {
		t.Errorf("last %s after %s was lost", again.last, lost[0])
	}
}

func TestAMiscountEndsTheSubscription(t *testing.T) {
	t.Parallel()
	b := setup(t, redistest.URL(t), timeline.Config{CompareEvery: 5 * time.Millisecond})
	honest := b.subscribe(t, "b")
	s := b.subscribe(t, "a")
	at := b.append(t, "a", 3)
	s.reaches(t, at[2])
	b.archive.mu.Lock()
	b.archive.lie = 1
	b.archive.mu.Unlock()
	b.project(t, "a", 3)
	s.until(t, "the end", func() bool { return s.ended != nil })
	if !errors.Is(s.ended, timeline.ErrMiscounted) {
		t.Errorf("ended with %v", s.ended)
	}
	if honest.ended != nil {
		t.Errorf("another system ended with %v", honest.ended)
	}
}

// Systems for which the archive fails, hangs or panics do not keep the numbers of another
// system from being compared.
func TestOneSystemIsComparedByItself(t *testing.T) {
	t.Parallel()
	for name, trouble := range map[string]func(context.Context) error{
		"an error": func(context.Context) error { return errors.New("no") },
		"a panic":  func(context.Context) error { panic("no") },
		"a hang":   func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, redistest.URL(t), timeline.Config{CompareEvery: 5 * time.Millisecond})
			for n := range 20 {
				bad := domain.SystemID(fmt.Sprint("bad-", n))
				followed := b.subscribe(t, bad)
				followed.reaches(t, b.append(t, bad, 1)[0])
			}
			s := b.subscribe(t, "a")
			at := b.append(t, "a", 3)
			s.reaches(t, at[2])
			b.archive.mu.Lock()
			b.archive.lie = 1
			b.archive.trouble = func(ctx context.Context, system domain.SystemID) error {
				if system == "a" {
					return nil
				}
				return trouble(ctx)
			}
			b.archive.mu.Unlock()
			if _, err := b.archive.advance(t.Context(), b.log.Partition("a"), 100); err != nil {
				t.Fatal(err)
			}
			s.until(t, "the end", func() bool { return s.ended != nil })
		})
	}
}

func TestCloseEndsSubscriptions(t *testing.T) {
	t.Parallel()
	b := setup(t, redistest.URL(t), timeline.Config{})
	s := b.subscribe(t, "a")
	if err := b.timeline.Close(); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(s.ended, timeline.ErrClosed) {
		t.Errorf("ended with %v", s.ended)
	}
	if _, _, err := b.timeline.Subscribe(t.Context(), "a", s.take); !errors.Is(err, timeline.ErrClosed) {
		t.Errorf("subscribing afterwards: %v", err)
	}
}

// readAll reads the whole log and returns the events by system, numbered, and by id.
func (b *bundle) readAll(t testing.TB) (truth map[domain.SystemID][]domain.Event, found map[string]domain.Position) {
	t.Helper()
	truth = map[domain.SystemID][]domain.Event{}
	found = map[string]domain.Position{}
	for p := range 2 {
		var after domain.Position
		for {
			events, err := b.log.Read(t.Context(), p, after, 1000)
			if err != nil {
				t.Fatal(err)
			}
			if len(events) == 0 {
				break
			}
			for _, e := range events {
				if _, twice := found[e.ID]; twice {
					t.Errorf("event %s is in the log twice", e.ID)
				}
				found[e.ID] = e.Position
				e.Seq = uint64(len(truth[e.SystemID]) + 1)
				truth[e.SystemID] = append(truth[e.SystemID], e)
			}
			after = events[len(events)-1].Position
		}
	}
	return truth, found
}

// With appends, archiving, subscriptions that come and go, and a Redis that is killed, every
// subscriber gets every event once, in order, and every acknowledged event exists once.
func TestNothingIsLostOrDoubledOverKills(t *testing.T) {
	t.Parallel()
	server := redistest.New(t)
	b := setup(t, server.URL(), timeline.Config{Window: 20_000, CompareEvery: 10 * time.Millisecond})
	systems := []domain.SystemID{"a", "b", "c", "d", "e", "f"}
	steady := map[domain.SystemID]*subscriber{}
	for _, system := range systems {
		steady[system] = b.subscribe(t, system)
	}
	ctx, stop := context.WithCancel(t.Context())
	var acked sync.Map // id -> position
	var working sync.WaitGroup
	for w := range 4 {
		working.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				n := 1 + i%3
				events := make([]domain.Event, n)
				for j := range events {
					events[j] = event(systems[rand.N(len(systems))], i)
					events[j].ID = fmt.Sprintf("%d-%d-%d", w, i, j)
				}
				appended, err := b.log.Append(context.WithoutCancel(ctx), events, domain.AppendOptions{})
				for j, at := range appended.Positions {
					acked.Store(events[j].ID, at)
				}
				if err != nil && !domain.HasCode(err, domain.CodeUnknownOutcome) {
					t.Errorf("append: %v", errors.Unwrap(err))
				}
			}
		})
	}
	working.Go(func() {
		for ctx.Err() == nil {
			_, _ = b.archive.advance(ctx, rand.N(2), rand.N(50)) // Redis may be away
		}
	})
	working.Go(func() {
		for ctx.Err() == nil {
			b.subscribe(t, systems[rand.N(len(systems))]).cancel()
		}
	})
	for range 3 {
		more := steady["a"].count() + 100
		steady["a"].until(t, "traffic", func() bool { return len(steady["a"].events) >= more })
		server = redistest.Restart(t, server)
	}
	more := steady["a"].count() + 100
	steady["a"].until(t, "traffic after the last restart", func() bool { return len(steady["a"].events) >= more })
	stop()
	working.Wait()

	truth, found := b.readAll(t)
	acked.Range(func(id, at any) bool {
		if found[id.(string)] != at {
			t.Errorf("event %v was acknowledged at %v and is at %v", id, at, found[id.(string)])
		}
		return true
	})
	for _, system := range systems {
		s, want := steady[system], truth[system]
		s.reaches(t, want[len(want)-1].Position)
		if len(s.events) != len(want) {
			t.Fatalf("%s: got %d events of %d", system, len(s.events), len(want))
		}
		for i := range want {
			if s.events[i].ID != want[i].ID || s.events[i].Seq != want[i].Seq {
				t.Fatalf("%s: event %d is %s (seq %d), want %s (seq %d)", system, i, s.events[i].ID, s.events[i].Seq, want[i].ID, want[i].Seq)
			}
		}
		if s.ended != nil {
			t.Errorf("%s: ended with %v", system, s.ended)
		}
	}
	t.Logf("%d events in the log", len(found))
}
