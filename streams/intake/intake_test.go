package intake_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/migrations"
	"github.com/plugcast/plugcast/projections"
	"github.com/plugcast/plugcast/projections/pgserver/pgtest"
	"github.com/plugcast/plugcast/streams"
	"github.com/plugcast/plugcast/streams/intake"
	"github.com/plugcast/plugcast/streams/redisserver/redistest"
	"github.com/plugcast/plugcast/transport/testpeer"
)

func TestMain(m *testing.M) {
	os.Exit(redistest.Run(func() int { return pgtest.Run(m.Run) }))
}

const (
	system domain.SystemID = "clinica-sol"
	us     string          = "us"
)

// bundle is an intake with its own Redis and Postgres, and the worker that archives.
type bundle struct {
	t     *testing.T
	log   *streams.Log
	store *projections.Store
	*intake.Intake
	stop func() // the worker
}

func setup(t *testing.T) *bundle {
	t.Helper()
	b := &bundle{t: t}
	url := pgtest.Database(t, func(ctx context.Context, url string) error { return migrations.Apply(ctx, url, nil) })
	var err error
	b.store, err = projections.Open(t.Context(), projections.Config{
		URL: url, Partition: func(s domain.SystemID) int { return b.log.Partition(s) },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.store.Close)
	b.log, err = streams.Open(t.Context(), streams.Config{URL: redistest.New(t).URL(), Partitions: 2, Floor: b.store.Checkpoint})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.log.Close() })
	b.Intake = intake.New(b.log, b.store, nil, us, nil)
	return b
}

// archive runs a worker until stop is called.
func (b *bundle) archive() { b.archiveFrom(b.log) }

func (b *bundle) archiveFrom(log projections.Log) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(b.t.Context()))
	worker := projections.NewWorker(projections.WorkerConfig{Store: b.store, Log: log})
	var running sync.WaitGroup
	running.Go(func() { _ = worker.Run(ctx) })
	b.stop = func() {
		cancel()
		running.Wait()
	}
}

// archived waits until the whole log is in history, and returns it.
func (b *bundle) archived() []domain.Event {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), 30*time.Second)
	defer cancel()
	newest, err := b.log.Newest(ctx, system)
	if err == nil {
		err = b.store.WaitForSystem(ctx, system, newest)
	}
	var all []domain.Event
	for at := (domain.Position{}); err == nil; {
		var page []domain.Event
		if page, err = b.store.Page(ctx, system, at, 1000); len(page) == 0 {
			break
		}
		all = append(all, page...)
		at = page[len(page)-1].Position
	}
	if err != nil {
		b.t.Fatal(err)
	}
	return all
}

func update(id, origin string, at uint64) domain.Event {
	return domain.Event{
		ID: id, Type: domain.TypeDeviceUpdate, Version: 1, SystemID: system, Origin: origin, Actor: "far", Position: domain.Position{Ms: at},
		Time: time.Date(2026, 11, 23, 18, 0, 0, 123456000, time.UTC), Data: json.RawMessage(`{"deviceId":"d1", "relayOn":true}`),
	}
}

func batch(source string, after uint64, events ...domain.Event) domain.ImportBatch {
	return domain.ImportBatch{
		System: system, Source: source, After: domain.Position{Ms: after}, Through: events[len(events)-1].Position, Events: events,
	}
}

func (b *bundle) take(batch domain.ImportBatch) domain.ImportResult {
	b.t.Helper()
	taken, err := b.Import(b.t.Context(), batch)
	if err != nil {
		b.t.Fatal(err)
	}
	return taken
}

func (b *bundle) expect(got domain.ImportResult, accepted, duplicates, own int, cursor uint64) {
	b.t.Helper()
	if want := (domain.ImportResult{Accepted: accepted, Duplicates: duplicates, Own: own, Cursor: domain.Position{Ms: cursor}}); got != want {
		b.t.Errorf("took %+v, want %+v", got, want)
	}
}

func TestTake(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.archive()
	defer func() { b.stop() }()
	b.expect(b.take(batch("a", 0, update("1", "", 10), update("2", us, 20), update("3", "z", 30))), 2, 0, 1, 30)
	b.expect(b.take(batch("a", 0, update("1", "", 10), update("2", us, 20), update("3", "z", 30))), 0, 2, 1, 30)
	b.expect(b.take(batch("a", 20, update("3", "z", 30), update("4", "", 40))), 1, 1, 0, 40)
	b.expect(b.take(batch("b", 0, update("3", "z", 7), update("1", "a", 8), update("1", "b", 9))), 1, 2, 0, 9) // by another route
	b.expect(b.take(domain.ImportBatch{System: system, Source: "a", After: domain.Position{Ms: 40},
		Through: domain.Position{Ms: 90}}), 0, 0, 0, 90)
	behind := new(domain.ImportGapError)
	if _, err := b.Import(t.Context(), batch("a", 91, update("5", "", 95))); !errors.As(err, &behind) || behind.Cursor.Ms != 90 {
		t.Errorf("a batch that leaves a hole: %v", err)
	}
	var got []string
	for _, e := range b.archived() {
		got = append(got, e.Origin+"/"+e.ID)
		if string(e.Data) != `{"deviceId":"d1","relayOn":true}` || e.Actor != "far" ||
			domain.FormatTime(e.Time) != "2026-11-23T18:00:00.123456Z" {
			t.Errorf("history has %+v", e)
		}
	}
	if want := "[a/1 z/3 a/4 b/1]"; fmt.Sprint(got) != want {
		t.Errorf("history has %v, want %s", got, want)
	}
	result, err := b.store.Verify(t.Context(), domain.Actor{Role: domain.RoleStaff}, system, nil)
	if err != nil || result.Broken != nil || result.Checked != 4 {
		t.Errorf("the chain: %+v, %v", result, err)
	}
}

func TestTakeRefuses(t *testing.T) {
	t.Parallel()
	b := setup(t)
	other := update("1", "", 10)
	other.SystemID = "centro-luna"
	platform := batch("a", 0, update("1", "", 10))
	platform.System = domain.PlatformSystem
	nameless := update("", "", 10)
	for name, c := range map[string]struct {
		batch domain.ImportBatch
		code  domain.Code
	}{
		"ourselves":         {batch(us, 0, update("1", "", 10)), domain.CodeInvalidDeployment},
		"no source":         {batch("", 0, update("1", "", 10)), domain.CodeInvalidDeployment},
		"a bad origin":      {batch("a", 0, update("1", "x/y", 10)), domain.CodeInvalidDeployment},
		"another system":    {batch("a", 0, other), domain.CodeInvalidSystemID},
		"the platform's":    {platform, domain.CodeForbidden},
		"before the batch":  {batch("a", 10, update("1", "", 10)), domain.CodeInvalidPosition},
		"out of order":      {batch("a", 0, update("1", "", 20), update("2", "", 10)), domain.CodeInvalidPosition},
		"an event of no id": {batch("a", 0, nameless), domain.CodeInvalidUpdate},
	} {
		if _, err := b.Import(t.Context(), c.batch); !domain.HasCode(err, c.code) {
			t.Errorf("%s: %v, want %s", name, err, c.code)
		}
	}
}

// An event whose data does not fit its type is stored as undecodable, and an event of an
// unknown type is stored unchanged.
func TestTakeUnreadable(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.archive()
	defer func() { b.stop() }()
	bad, unknown := update("bad", "", 10), update("new", "", 20)
	bad.Data = json.RawMessage(`{"deviceId":7}`)
	unknown.Type, unknown.Data = "robot-danced", json.RawMessage(`{"deviceId":7}`)
	b.expect(b.take(batch("a", 0, bad, unknown)), 2, 0, 0, 20)
	all := b.archived()
	if len(all) != 2 || all[0].Type != domain.TypeUndecodable || all[0].ID != "bad" || all[1].Type != "robot-danced" {
		t.Fatalf("history has %+v", all)
	}
	data, err := all[0].Decode()
	if kept, ok := data.(domain.Undecodable); err != nil || !ok || kept.Fields["data"] != `{"deviceId":7}` ||
		kept.Fields["type"] != "device-update" {
		t.Errorf("kept %+v, %v", data, err)
	}
}

// An event that a source got over a link of another kind has that link as its origin.
func TestTakeWhatCameOverALink(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.archive()
	defer func() { b.stop() }()
	origin := "socketio:" + strings.Repeat("x", 64) // the longest name that a link has
	b.expect(b.take(batch("a", 0, update("1", origin, 10))), 1, 0, 0, 10)
	b.expect(b.take(batch("b", 0, update("1", origin, 7))), 0, 1, 0, 7)
	if all := b.archived(); len(all) != 1 || all[0].Origin != origin {
		t.Errorf("history has %+v", all)
	}
}

// A command that has not seen an imported event is decided again.
func TestTakeMovesHeads(t *testing.T) {
	t.Parallel()
	b := setup(t)
	e := update("1", "", 10)
	e.Type, e.Data = domain.TypeEquipmentRegistered, json.RawMessage(`{"equipmentId":"e1","name":"laser"}`)
	b.take(batch("a", 0, e))
	local, err := domain.NewEvent(system, domain.EquipmentRegistered{EquipmentID: "e1", Name: "lamp"}, domain.Cause{Actor: "x"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = b.log.Append(t.Context(), []domain.Event{local},
		domain.AppendOptions{Expect: &domain.Expectation{Aggregate: domain.AggregateInventory}})
	if conflict := new(domain.ConflictError); !errors.As(err, &conflict) {
		t.Errorf("a command that has not seen the equipment: %v", err)
	}
}

// SkipTo skips the past of a source for good, also if Redis is lost right after it. Rewind goes
// back.
func TestStartAndRewind(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ctx := t.Context()
	at := func(want uint64, wantKnown bool) {
		t.Helper()
		if got, known, err := b.Cursor(ctx, system, "a"); err != nil || got.Ms != want || known != wantKnown {
			t.Errorf("the cursor is %s, %v, %v; want %d", got, known, err, want)
		}
	}
	at(0, false)
	for _, ms := range []uint64{50, 90} { // the second has no effect
		if err := b.SkipTo(ctx, system, "a", domain.Position{Ms: ms}); err != nil {
			t.Fatal(err)
		}
		at(50, true)
	}
	b.wipe()
	at(50, true)
	for _, ms := range []uint64{70, 20} { // the first is not before the cursor
		if err := b.Rewind(ctx, system, "a", domain.Position{Ms: ms}); err != nil {
			t.Fatal(err)
		}
	}
	at(20, true)
	b.wipe()
	at(20, true)
}

// A token for a bridge must not fill Redis and the database with cursors: each system has a
// bound, and known sources continue.
func TestTooManySources(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t), t.Context()
	for n := range 128 {
		if err := b.SkipTo(ctx, system, fmt.Sprint("far-", n), domain.Position{Ms: 1}); err != nil {
			t.Fatal(n, err)
		}
	}
	_, taking := b.Import(ctx, batch("one-more", 0, update("x", "", 1)))
	for what, err := range map[string]error{
		"start": b.SkipTo(ctx, system, "one-more", domain.Position{Ms: 1}), "take": taking,
	} {
		if domain.AsError(err).Code != domain.CodeTooManySources {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, known, err := b.Cursor(ctx, system, "one-more"); known || err != nil {
		t.Errorf("it is known: %v, %v", known, err)
	}
	b.expect(b.take(batch("far-3", 1, update("y", "", 2))), 1, 0, 0, 2)
	if err := b.SkipTo(ctx, "another", "one-more", domain.Position{Ms: 1}); err != nil {
		t.Error(err)
	}
}

// rewinder is an archive in which a cursor is rewound right before it is saved.
type rewinder struct {
	*projections.Store
	rewind func()
}

func (r *rewinder) SaveBridgeCursor(ctx context.Context, system domain.SystemID, source string, at domain.Position) error {
	if rewind := r.rewind; rewind != nil {
		r.rewind = nil
		rewind()
	}
	return r.Store.SaveBridgeCursor(ctx, system, source, at)
}

// A cursor that is rewound while it is saved must not be saved as it was: if Redis was lost
// then, the events in between would be left out.
func TestRewindWhileSaving(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.archive()
	defer func() { b.stop() }()
	b.take(batch("a", 0, update("1", "", 10), update("2", "", 90)))
	archive := &rewinder{Store: b.store}
	in := intake.New(b.log, archive, nil, us, nil)
	archive.rewind = func() {
		if err := in.Rewind(t.Context(), system, "a", domain.Position{Ms: 20}); err != nil {
			t.Error(err)
		}
	}
	if err := in.SaveCursors(t.Context(), b.log.Partition(system)); err != nil {
		t.Fatal(err)
	}
	b.wipe()
	if at, known, err := in.Cursor(t.Context(), system, "a"); err != nil || !known || at.Ms != 20 {
		t.Errorf("the cursor is %s, %v, %v", at, known, err)
	}
}

func (b *bundle) wipe() {
	b.t.Helper()
	if err := b.log.Client().FlushAll(b.t.Context()).Err(); err != nil {
		b.t.Fatal(err)
	}
}

// far is a source of the property test below: its log, and how it sends.
type far struct {
	name   string
	events []domain.Event
}

// batch returns a random part of the log that begins at or before the cursor.
func (f *far) batch(cursor domain.Position) domain.ImportBatch {
	next := 0
	for next < len(f.events) && !f.events[next].Position.After(cursor) {
		next++
	}
	first := rand.IntN(next + 1)
	if rand.IntN(3) > 0 {
		first = next
	}
	last := min(len(f.events), first+1+rand.IntN(40))
	b := domain.ImportBatch{System: system, Source: f.name, Events: f.events[first:last]}
	if first > 0 {
		b.After = f.events[first-1].Position
	}
	b.Through = b.After
	if last > first {
		b.Through = f.events[last-1].Position
	}
	return b
}

// send sends random parts until everything is imported. Two senders run at once, and do not
// know of losses in the receiver's Redis.
func (f *far) send(ctx context.Context, in *intake.Intake) error {
	end := f.events[len(f.events)-1].Position
	for {
		cursor, _, err := in.Cursor(ctx, system, f.name)
		if err != nil {
			continue
		}
		if !cursor.Before(end) {
			return nil
		}
		giveUp, cancel := context.WithTimeout(ctx, 5*time.Second)
		if rand.IntN(8) == 0 {
			giveUp, cancel = context.WithTimeout(ctx, rand.N(3*time.Millisecond)) // a sender that dies
		}
		_, err = in.Import(giveUp, f.batch(cursor))
		cancel()
		switch behind := new(domain.ImportGapError); {
		case err == nil, errors.As(err, &behind):
		case domain.AsError(err).Kind == domain.KindUnavailable, domain.AsError(err).Kind == domain.KindUnknownOutcome:
		case errors.Is(err, context.DeadlineExceeded):
		default:
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// Sources share events, and each has two concurrent senders that repeat themselves and die,
// while the archive stops and continues and Redis loses everything: history has each event
// once.
func TestEachEventOnce(t *testing.T) {
	t.Parallel()
	for run := range 3 {
		t.Run(fmt.Sprint(run), func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.archive()
			defer func() { b.stop() }()
			sources, want := farEnds(300)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			var sending sync.WaitGroup
			sendAll := func() {
				for _, f := range sources {
					for range 2 {
						sending.Go(func() {
							if err := f.send(ctx, b.Intake); err != nil {
								t.Errorf("%s: %v", f.name, err)
							}
						})
					}
				}
			}
			sendAll()
			for range 4 {
				switch rand.IntN(3) {
				case 0:
					b.stop()
					b.archive()
				case 1:
					_ = b.SaveCursors(ctx, b.log.Partition(system)) // also after a loss of Redis
				}
				b.wipe()
				_ = b.archived()
			}
			sending.Wait()
			sendAll() // sends again what Redis lost after the last answer
			sending.Wait()
			got := map[intake.Key]int{}
			for _, e := range b.archived() {
				got[intake.Key{Origin: e.Origin, ID: e.ID}]++
			}
			for key, n := range got {
				if n != 1 || !want[key] {
					t.Errorf("history has %v %d times", key, n)
				}
			}
			for key := range want {
				if got[key] == 0 {
					t.Errorf("history lacks %v", key)
				}
			}
		})
	}
}

// farEnds returns three sources. Each has events of its own, some of the others, and some of
// ours.
func farEnds(count int) ([]*far, map[intake.Key]bool) {
	sources := []*far{{name: "a"}, {name: "b"}, {name: "c"}}
	want := map[intake.Key]bool{}
	for i := range count {
		own := sources[rand.IntN(len(sources))]
		for _, f := range sources {
			e := update(fmt.Sprint("e", i), "", uint64(1+i))
			switch {
			case rand.IntN(20) == 0:
				e.ID, e.Origin = "ours-"+e.ID, us
			case f != own && rand.IntN(2) == 0:
				e.Origin = own.name
			case f != own:
				continue
			default:
			}
			if e.Origin != us {
				origin := e.Origin
				if origin == "" {
					origin = f.name
				}
				want[intake.Key{Origin: origin, ID: e.ID}] = true
			}
			f.events = append(f.events, e)
		}
	}
	return sources, want
}

// If Redis is lost, or archived events are cleared, between the lookup and the append, the
// append fails.
func TestTakeAfterALookThatIsOutOfDate(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ctx := t.Context()
	incarnation, err := b.log.Incarnation(ctx, b.log.Partition(system))
	if err != nil {
		t.Fatal(err)
	}
	take := func(incarnation string, archived uint64, source string) error {
		_, err := b.log.Import(ctx, batch(source, 0, update("1", "z", 10)), streams.ArchiveView{
			Incarnation: incarnation, Archived: domain.Position{Ms: archived},
		})
		return err
	}
	if err := take(incarnation, 500, "a"); err != nil {
		t.Fatal(err)
	}
	if err := take(incarnation, 499, "b"); !errors.Is(err, streams.ErrStale) {
		t.Errorf("the archive was seen before something was forgotten: %v", err)
	}
	b.wipe()
	if err := take(incarnation, 500, "a"); !errors.Is(err, streams.ErrStale) {
		t.Errorf("the stream is gone: %v", err)
	}
	if _, err := b.log.Incarnation(ctx, b.log.Partition(system)); err != nil { // repairs the stream
		t.Fatal(err)
	}
	if err := take(incarnation, 500, "a"); !errors.Is(err, streams.ErrStale) {
		t.Errorf("the stream is another one: %v", err)
	}
}

// slowLog is a projector's log that pauses between reading the first events and writing them.
type slowLog struct {
	*streams.Log
	read, write chan struct{}
	once        sync.Once
}

func (l *slowLog) Follow(ctx context.Context, partition int, after domain.Position, fn func([]domain.Event) error) error {
	return l.Log.Follow(ctx, partition, after, func(events []domain.Event) error {
		l.once.Do(func() {
			close(l.read)
			<-l.write
		})
		return fn(events)
	})
}

// An archiver must not write events that it read from a lost Redis after the lookup.
func TestArchiverThatIsLate(t *testing.T) {
	t.Parallel()
	b := setup(t)
	slow := &slowLog{Log: b.log, read: make(chan struct{}), write: make(chan struct{})}
	b.archiveFrom(slow)
	defer func() { b.stop() }()
	b.expect(b.take(batch("a", 0, update("1", "", 10))), 1, 0, 0, 10)
	<-slow.read
	b.wipe()
	b.expect(b.take(batch("a", 0, update("1", "", 10))), 1, 0, 0, 10)
	close(slow.write)
	testpeer.Eventually(t, "the archive", func() bool { return len(b.archived()) > 0 })
	if all := b.archived(); len(all) != 1 {
		t.Errorf("history has %+v", all)
	}
}

// Every event of another deployment is stored, unchanged or as undecodable. None stops the
// archive.
func TestTakeOfWhatCannotBeWrittenAgain(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.archive()
	defer func() { b.stop() }()
	data := []string{
		`{"deviceId":"d1","deviceTime":"2026-11-29T03:00:00+24:00"}`,
		`{"deviceId":"d1","powerW":1e400}`,
		`{"deviceId":"d1","name":"\u0000","errors":["\ud800"]}`,
		"{\"deviceId\":\"d1\",\n\"attributes\":{\"a\":\"\\r\\n\"}\r\n}",
		`{"deviceId":"d1","attributes":{"a":"` + strings.Repeat("x", 70_000) + `"}}`,
		`[]`,
	}
	events := make([]domain.Event, len(data))
	for i := range data {
		events[i] = update(fmt.Sprint(i), "", uint64(10*i+10))
		events[i].Data = json.RawMessage(data[i])
	}
	b.expect(b.take(batch("a", 0, events...)), len(data), 0, 0, uint64(10*len(data)))
	got := b.archived()
	if len(got) != len(data) {
		t.Fatalf("history has %d events", len(got))
	}
	for i := range got {
		link := domain.HashedEvent{Event: got[i]}
		line := link.AppendCloudEvent(nil)
		if _, err := domain.ParseCloudEvent(line); err != nil || strings.ContainsAny(string(line), "\r\n") || len(line) > domain.MaxEventBytes {
			t.Errorf("%s: %d bytes, %v: %.300s", data[i][:min(len(data[i]), 80)], len(line), err, line)
		}
		if undecodable := got[i].Type == domain.TypeUndecodable; undecodable == (i == 3) {
			t.Errorf("%.80s is kept as %s", data[i], got[i].Type)
		}
	}
}
