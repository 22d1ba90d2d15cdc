package streams_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/streams"
	"github.com/plugcast/plugcast/streams/redisserver/redistest"
)

func TestMain(m *testing.M) { redistest.Main(m) }

const sol, luna = domain.SystemID("clinica-sol"), domain.SystemID("centro-luna")

func open(t testing.TB, cfg streams.Config) *streams.Log {
	t.Helper()
	if cfg.URL == "" {
		cfg.URL = redistest.URL(t)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	l, err := streams.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func update(system domain.SystemID, n int) domain.Event {
	return domain.Event{
		Type: domain.TypeDeviceUpdate, Version: 1, SystemID: system, Actor: "test", CorrelationID: "c1",
		Data: json.RawMessage(fmt.Sprintf(`{"deviceId":"plug-%d","relayOn":true,"powerW":%d.5}`, n, n)),
	}
}

func updates(system domain.SystemID, n int) []domain.Event {
	events := make([]domain.Event, n)
	for i := range events {
		events[i] = update(system, i)
	}
	return events
}

func mustAppend(t testing.TB, l *streams.Log, events ...domain.Event) []domain.Position {
	t.Helper()
	appended, err := l.Append(context.Background(), events, domain.AppendOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return appended.Positions
}

func TestAppendedEventsAreReadAsGiven(t *testing.T) {
	t.Parallel()
	l := open(t, streams.Config{})
	given := domain.Event{
		ID: "0192f0a0-0000-7000-8000-000000000001", Type: "of-the-future", Version: 3, SystemID: sol,
		Time: time.Date(2026, 11, 24, 10, 0, 0, 123456000, time.UTC), Actor: "Ana \"ñ\"", CorrelationID: "c", CausationID: "x",
		Data: json.RawMessage(`{"a": [1, 2.50, "\u00e9"], "b":null}`),
	}
	given.Position = mustAppend(t, l, given)[0]
	got, err := l.Read(t.Context(), l.Partition(sol), domain.Position{}, 10)
	if err != nil || len(got) != 1 {
		t.Fatalf("read %d events, %v", len(got), err)
	}
	given.Data = json.RawMessage(`{"a":[1,2.50,"\u00e9"],"b":null}`) // kept token for token, as one line
	if fmt.Sprintf("%+v", got[0]) != fmt.Sprintf("%+v", given) {
		t.Errorf("read   %+v\nappended %+v", got[0], given)
	}
}

func TestAppendStampsIDAndTime(t *testing.T) {
	t.Parallel()
	l := open(t, streams.Config{})
	mustAppend(t, l, updates(sol, 3)...)
	got, err := l.Read(t.Context(), l.Partition(sol), domain.Position{}, 10)
	if err != nil {
		t.Fatal(err)
	}
	ids := map[string]bool{}
	for _, e := range got {
		ids[e.ID] = true
		if age := time.Since(e.Time); age < 0 || age > time.Minute {
			t.Errorf("time %v", e.Time)
		}
	}
	if len(got) != 3 || len(ids) != 3 {
		t.Errorf("%d events with %d ids; want 3 and 3", len(got), len(ids))
	}
}

func TestAppendOfSeveralPartitionsKeepsTheOrderOfTheAnswer(t *testing.T) {
	t.Parallel()
	l := open(t, streams.Config{})
	var events []domain.Event
	for i := range 300 {
		events = append(events, update(domain.SystemID(fmt.Sprintf("s%d", i%40)), i))
	}
	at := mustAppend(t, l, events...)
	for i, e := range events {
		got, err := l.Read(t.Context(), l.Partition(e.SystemID), domain.Position{Ms: at[i].Ms, N: at[i].N - 1}, 1)
		if at[i].N == 0 {
			got, err = l.Read(t.Context(), l.Partition(e.SystemID), domain.Position{Ms: at[i].Ms - 1, N: 1 << 62}, 1)
		}
		if err != nil || len(got) != 1 || got[0].SystemID != e.SystemID || string(got[0].Data) != string(e.Data) {
			t.Fatalf("event %d: at %s there is %+v, %v", i, at[i], got, err)
		}
	}
}

func TestOpenRefusesAnotherNumberOfPartitions(t *testing.T) {
	t.Parallel()
	url := redistest.URL(t)
	open(t, streams.Config{URL: url, Partitions: 4})
	_, err := streams.Open(t.Context(), streams.Config{URL: url, Partitions: 8})
	if err == nil || !strings.Contains(err.Error(), "created with 4 partitions") {
		t.Fatalf("got %v", err)
	}
	open(t, streams.Config{URL: url, Partitions: 8, Prefix: "other"})
}

func TestExpectation(t *testing.T) {
	t.Parallel()
	l := open(t, streams.Config{})
	expect := func(head domain.Position) domain.AppendOptions {
		return domain.AppendOptions{Expect: &domain.Expectation{Aggregate: domain.AggregateInventory, Head: head}}
	}
	first, err := l.Append(t.Context(), updates(sol, 2), expect(domain.Position{}))
	if err != nil {
		t.Fatal(err)
	}
	_, err = l.Append(t.Context(), updates(sol, 1), expect(domain.Position{}))
	var conflict *domain.ConflictError
	if !errors.As(err, &conflict) || conflict.Head != first.Last() {
		t.Fatalf("got %v, want a conflict with head %s", err, first.Last())
	}
	if _, err := l.Append(t.Context(), updates(luna, 1), expect(domain.Position{})); err != nil {
		t.Errorf("another system: %v", err)
	}
	later := first.Last()
	later.Ms += 1000
	if _, err := l.Append(t.Context(), updates(sol, 1), expect(later)); err != nil {
		t.Errorf("a decision on a later state than the head: %v", err)
	}
	both := []domain.Event{update(sol, 1), update(luna, 1)}
	if _, err := l.Append(t.Context(), both, expect(later)); err == nil {
		t.Error("an expectation over two systems was taken")
	}
}

func TestIdempotency(t *testing.T) {
	t.Parallel()
	l := open(t, streams.Config{})
	key := domain.Idempotency{Scope: "ana", Key: "k:1", Fingerprint: "f 1"}
	opts := domain.AppendOptions{Idempotency: &key}
	unknown, err := l.Recall(t.Context(), sol, key)
	if err != nil || unknown.Replayed || unknown.Positions != nil {
		t.Fatalf("recall of an unknown key: %+v, %v", unknown, err)
	}
	first, err := l.Append(t.Context(), updates(sol, 5), opts)
	if err != nil || first.Replayed {
		t.Fatalf("%+v, %v", first, err)
	}
	again, err := l.Append(t.Context(), updates(sol, 5), opts)
	if err != nil || !again.Replayed || fmt.Sprint(again.Positions) != fmt.Sprint(first.Positions) {
		t.Fatalf("repeat: %+v, %v; first %+v", again, err, first)
	}
	recalled, err := l.Recall(t.Context(), sol, key)
	if err != nil || !recalled.Replayed || fmt.Sprint(recalled.Positions) != fmt.Sprint(first.Positions) {
		t.Fatalf("recall: %+v, %v", recalled, err)
	}
	other := key
	other.Fingerprint = "f 2"
	_, err = l.Append(t.Context(), updates(sol, 5), domain.AppendOptions{Idempotency: &other})
	if !domain.HasCode(err, domain.CodeKeyReused) {
		t.Errorf("another request under the key: %v", err)
	}
	if _, err := l.Recall(t.Context(), sol, other); !domain.HasCode(err, domain.CodeKeyReused) {
		t.Errorf("recall for another request: %v", err)
	}
	scoped := domain.Idempotency{Scope: "ana:k", Key: "1", Fingerprint: "f 3"}
	if got, err := l.Append(t.Context(), updates(sol, 1), domain.AppendOptions{Idempotency: &scoped}); err != nil || got.Replayed {
		t.Errorf("a key that only looks the same: %+v, %v", got, err)
	}
	got, err := l.Read(t.Context(), l.Partition(sol), domain.Position{}, 100)
	if err != nil || len(got) != 6 {
		t.Errorf("%d events in the log, %v; want 6", len(got), err)
	}
	for i, at := range first.Positions {
		if got[i].Position != at {
			t.Errorf("event %d is at %s, answered %s", i, got[i].Position, at)
		}
	}
}

// A caller that makes up keys gets a bounded number of them: a key is not forgotten before its
// time, because a repeat under it would append twice.
func TestKeysOfOneSystemAreBounded(t *testing.T) {
	t.Parallel()
	url := redistest.URL(t)
	const most = 50
	l := open(t, streams.Config{URL: url, Partitions: 2, MaxIdempotencyKeys: most})
	client := redistest.Connect(t, url)
	ctx := t.Context()
	keys := func() int64 {
		found, err := client.Keys(ctx, "*:idem:*").Result()
		if err != nil {
			t.Fatal(err)
		}
		return int64(len(found))
	}
	under := func(scope string, n int) domain.AppendOptions {
		key := fmt.Sprint(strings.Repeat("k", 200), n)
		return domain.AppendOptions{Idempotency: &domain.Idempotency{Scope: scope, Key: key, Fingerprint: "f", CallerChosen: true}}
	}
	refused := func(err error) {
		t.Helper()
		e := new(domain.Error)
		if !errors.As(err, &e) || e.Code != domain.CodeTooManyKeys || e.Kind != domain.KindLimited {
			t.Fatalf("not refused: %v", err)
		}
		if ms := e.Params["retryAfterMs"].(int64); ms <= (24*time.Hour-time.Minute).Milliseconds() || ms > (25*time.Hour).Milliseconds() {
			t.Errorf("to come back in %d ms", ms)
		}
	}
	for n := range 3 * most {
		_, err := l.Append(ctx, updates(sol, 1), under("mallory", n))
		if n < most && err != nil {
			t.Fatal(err)
		}
		if n >= most {
			refused(err)
		}
	}
	_, err := l.Append(ctx, updates(sol, 1), under("eva", 1))
	refused(err)
	if n := keys(); n != most {
		t.Errorf("%d keys", n)
	}
	// Nothing is forgotten, and requests without a key or of another system continue.
	if again, err := l.Append(ctx, updates(sol, 1), under("mallory", 0)); err != nil || !again.Replayed {
		t.Errorf("a repeat: %+v, %v", again, err)
	}
	own := domain.AppendOptions{Idempotency: &domain.Idempotency{Scope: "heartbeats", Key: "k", Fingerprint: "f"}}
	for _, opts := range []domain.AppendOptions{{}, own} {
		if _, err := l.Append(ctx, updates(sol, 1), opts); err != nil {
			t.Error(err)
		}
	}
	if _, err := l.Append(ctx, updates("another", 1), under("eva", 2)); err != nil {
		t.Error(err)
	}
	// A batch for several systems is refused as a whole if one of them has used up its keys.
	before := l.Stats().Appends
	var several []domain.Event
	for i := range 10 {
		several = append(several, update(domain.SystemID(fmt.Sprint("s", i)), i))
	}
	_, err = l.Append(ctx, append(several, update(sol, 1)), under("eva", 3))
	refused(err)
	if n := l.Stats().Appends; n != before {
		t.Errorf("%d of them were appended", n-before)
	}
	// The cost of a key, for the table in docs/architecture.md.
	for _, key := range []string{client.Keys(ctx, "*:idem:*").Val()[0], client.Keys(ctx, "*:idem-counts:*").Val()[0]} {
		used, left := client.MemoryUsage(ctx, key).Val(), client.TTL(ctx, key).Val()
		if used > 256 || left <= 0 || left > 25*time.Hour {
			t.Errorf("%s is %d bytes for %v", key, used, left)
		}
	}
}

// A repeat completes an append of which only some partitions took their part, even if the
// systems of the others have used up their keys since: it is not a new request.
func TestHalfDoneAppendIsCompletedWithoutKeys(t *testing.T) {
	t.Parallel()
	l := open(t, streams.Config{Partitions: 2, MaxIdempotencyKeys: 1})
	systems := [2]domain.SystemID{}
	for i := 0; systems[0] == "" || systems[1] == ""; i++ {
		system := domain.SystemID(fmt.Sprint("s", i))
		systems[l.Partition(system)] = system
	}
	under := func(key string) domain.AppendOptions {
		return domain.AppendOptions{Idempotency: &domain.Idempotency{Scope: "eva", Key: key, Fingerprint: "f", CallerChosen: true}}
	}
	batch := []domain.Event{update(systems[0], 1), update(systems[1], 2)}
	first, err := l.Append(t.Context(), batch[:1], under("batch")) // as if the other partition had failed
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Append(t.Context(), updates(systems[1], 1), under("another")); err != nil {
		t.Fatal(err)
	}
	completed, err := l.Append(t.Context(), batch, under("batch"))
	if err != nil || completed.Replayed || completed.Positions[0] != first.Positions[0] || completed.Positions[1].IsZero() {
		t.Fatalf("the repeat answers %+v, %v; want %s first", completed, err, first.Positions[0])
	}
	again, err := l.Append(t.Context(), batch, under("batch"))
	if err != nil || !again.Replayed || fmt.Sprint(again.Positions) != fmt.Sprint(completed.Positions) {
		t.Errorf("a further repeat answers %+v, %v; want %v", again, err, completed.Positions)
	}
	if _, err := l.Append(t.Context(), batch, under("new")); !domain.HasCode(err, domain.CodeTooManyKeys) {
		t.Errorf("a new key: %v", err)
	}
}

// Hours whose keys have all expired no longer count, and their counts are removed.
func TestKeysOfPastHoursDoNotCount(t *testing.T) {
	t.Parallel()
	url := redistest.URL(t)
	l := open(t, streams.Config{URL: url, Partitions: 1, MaxIdempotencyKeys: 1})
	client := redistest.Connect(t, url)
	hour := time.Now().Unix() / 3600
	made := "plugcast:{p00}:idem-counts:" + string(sol)
	if err := client.HSet(t.Context(), made, hour-25, 1_000, hour-26, 1_000).Err(); err != nil {
		t.Fatal(err)
	}
	opts := domain.AppendOptions{Idempotency: &domain.Idempotency{Scope: "eva", Key: "k", Fingerprint: "f", CallerChosen: true}}
	if _, err := l.Append(t.Context(), updates(sol, 1), opts); err != nil {
		t.Fatal(err)
	}
	if n := client.HLen(t.Context(), made).Val(); n != 1 {
		t.Errorf("%d hours are counted", n)
	}
}

func TestIdempotencyOverSeveralPartitions(t *testing.T) {
	t.Parallel()
	l := open(t, streams.Config{Partitions: 2})
	var events []domain.Event
	for i := range 20 {
		events = append(events, update(domain.SystemID(fmt.Sprintf("s%d", i)), i))
	}
	opts := domain.AppendOptions{Idempotency: &domain.Idempotency{Scope: "a", Key: "b", Fingerprint: "c"}}
	first, err := l.Append(t.Context(), events, opts)
	if err != nil {
		t.Fatal(err)
	}
	again, err := l.Append(t.Context(), events, opts)
	if err != nil || !again.Replayed || fmt.Sprint(again.Positions) != fmt.Sprint(first.Positions) {
		t.Fatalf("repeat: %+v, %v", again, err)
	}
	opts.Idempotency.Fingerprint = "d"
	if _, err := l.Append(t.Context(), append(events, update("another", 1)), opts); !domain.HasCode(err, domain.CodeKeyReused) {
		t.Errorf("another request: %v", err)
	}
	if n := l.Stats().Appends; n != 20 {
		t.Errorf("%d appends, want 20", n)
	}
}

func TestTrimAndExpire(t *testing.T) {
	t.Parallel()
	l := open(t, streams.Config{Retention: time.Hour})
	p := l.Partition(sol)
	at := mustAppend(t, l, updates(sol, 10)...)
	if err := l.Expire(t.Context(), p, at[9], time.Now()); err != nil {
		t.Fatal(err)
	}
	if got, err := l.Read(t.Context(), p, domain.Position{}, 100); err != nil || len(got) != 10 {
		t.Fatalf("within the retention %d are left, %v", len(got), err)
	}
	if err := l.Expire(t.Context(), p, at[3], time.Now().Add(2*time.Hour)); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Read(t.Context(), p, at[2], 100); !errors.Is(err, streams.ErrTrimmed) {
		t.Errorf("a reader behind the trim: %v", err)
	}
	if got, err := l.Read(t.Context(), p, at[3], 100); err != nil || len(got) != 6 {
		t.Errorf("a reader at the trim: %d, %v; want 6", len(got), err)
	}
	if err := l.Trim(t.Context(), p, at[3]); err != nil { // an earlier trim changes nothing
		t.Fatal(err)
	}
	if o, err := l.Origin(t.Context(), p); err != nil || o != at[3] {
		t.Errorf("origin %s, %v; want %s", o, err, at[3])
	}
	if tail, err := l.Tail(t.Context(), p); err != nil || tail != at[9] {
		t.Errorf("tail %s, %v; want %s", tail, err, at[9])
	}
	ahead := at[9]
	ahead.Ms++
	if _, err := l.Read(t.Context(), p, ahead, 1); !errors.Is(err, streams.ErrRewound) {
		t.Errorf("a reader ahead of the log: %v", err)
	}
	for _, c := range []struct{ at, want domain.Position }{{at[2], at[3]}, {at[3], at[3]}, {at[5], at[5]}, {at[9], at[9]}, {ahead, at[9]}} {
		if got, err := l.Nearest(t.Context(), p, c.at); err != nil || got != c.want {
			t.Errorf("nearest to %s is %s, %v; want %s", c.at, got, err, c.want)
		}
	}
}

// Nearest ends with its context or with the log if Redis does not answer.
func TestNearestEndsWithTheLog(t *testing.T) {
	t.Parallel()
	l := open(t, streams.Config{URL: redistest.URL(t)})
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.Nearest(ended, 0, domain.Position{}); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that ended: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Nearest(t.Context(), 0, domain.Position{}); !errors.Is(err, streams.ErrClosed) {
		t.Errorf("of a closed log: %v", err)
	}
}

// Heads of aggregates that were last changed long ago, and are archived, are removed. A command
// that decides on a current state needs no such head. Aggregates that were changed since keep
// their heads.
func TestExpireForgetsHeads(t *testing.T) {
	t.Parallel()
	l := open(t, streams.Config{Retention: time.Minute})
	p, ctx := l.Partition(sol), t.Context()
	change := func(aggregate domain.Aggregate, head domain.Position) (domain.Position, error) {
		appended, err := l.Append(ctx, updates(sol, 1), domain.AppendOptions{Expect: &domain.Expectation{Aggregate: aggregate, Head: head}})
		if err != nil {
			return domain.Position{}, err
		}
		return appended.Positions[0], nil
	}
	const many = 1500
	var last domain.Position
	for i := range many {
		var err error
		if last, err = change(domain.AggregateConnection(domain.ConnectionID(fmt.Sprint("c-", i))), domain.Position{}); err != nil {
			t.Fatal(err)
		}
	}
	heads := func() int64 { return l.Client().HLen(ctx, l.Slot(p)+"heads").Val() }
	// Neither archived, nor old enough for a command that is under way.
	for _, now := range []time.Time{time.Now().Add(2 * time.Minute), time.Now().Add(59 * time.Minute)} {
		if err := l.Expire(ctx, p, last, now); err != nil || heads() != many {
			t.Fatalf("%d heads, %v", heads(), err)
		}
	}
	fresh, err := change("inventory", domain.Position{})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Expire(ctx, p, last, time.Now().Add(2*time.Hour)); err != nil || heads() != 1 {
		t.Errorf("%d heads, %v; want that of what is not archived", heads(), err)
	}
	if _, err := change("inventory", last); err == nil {
		t.Errorf("a command that has not seen the last change: %v", err)
	}
	if _, err := change("inventory", fresh); err != nil {
		t.Error(err)
	}
	if _, err := change(domain.AggregateConnection("c-0"), last); err != nil {
		t.Errorf("a command on what has no head any more: %v", err)
	}
}
