package projections_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/projections"
)

// generation numbers the histories of a test binary, so that each has its own systems and
// positions and many can share a database.
var generation atomic.Uint64

// genHistory draws events of a few systems in log order: valid ones, unknown types, data that
// cannot be decoded, and entries without a system.
func genHistory() *rapid.Generator[[]domain.Event] {
	return rapid.Custom(func(t *rapid.T) []domain.Event {
		g := generation.Add(1)
		systems := []domain.SystemID{}
		for i := range 4 {
			systems = append(systems, domain.SystemID(fmt.Sprintf("g%d-%d", g, i*3)))
		}
		at := domain.Position{Ms: 1_800_000_000_000 + g*100_000_000}
		events := make([]domain.Event, rapid.IntRange(1, 40).Draw(t, "events"))
		for i := range events {
			at = domain.Position{Ms: at.Ms + rapid.Uint64Range(0, 2).Draw(t, "ms"), N: at.N + 1}
			e, err := domain.NewEvent(rapid.SampledFrom(systems).Draw(t, "system"), genData().Draw(t, "data"),
				domain.Cause{Actor: rapid.SampledFrom([]string{"maria", "shelly:acc1", "José \"✓\"", ""}).Draw(t, "actor")})
			if err != nil {
				t.Fatal(err)
			}
			e.ID, e.Position = fmt.Sprintf("id-%d-%d", g, i), at
			skew := rapid.Int64Range(-3000, 3000).Draw(t, "skew") // so that times are out of order
			e.Time = time.UnixMicro(int64(at.Ms)*1000 + skew).UTC()
			spoil(t, &e)
			events[i] = e
		}
		return events
	})
}

// spoil makes some events unusual.
func spoil(t *rapid.T, e *domain.Event) {
	switch rapid.IntRange(0, 24).Draw(t, "fault") {
	case 0:
		e.Type = "from-the-future"
	case 1:
		e.Data = json.RawMessage(`{"deviceId":7,"equipmentId":7,"connectionId":7}`)
	case 2:
		e.Version = 99
	case 3:
		e.Type, e.Data = domain.TypeUndecodable, json.RawMessage(`{"reason":"test","fields":{"data":"{"}}`)
	case 4:
		e.Type, e.Data, e.SystemID = domain.TypeUndecodable, json.RawMessage(`{"reason":"no system","fields":{}}`), ""
	}
}

func genData() *rapid.Generator[domain.Data] {
	devices := rapid.SampledFrom([]domain.DeviceID{"d1", "d2", "d3"})
	equipment := rapid.SampledFrom([]domain.EquipmentID{"e1", "e2"})
	connections := rapid.SampledFrom([]domain.ConnectionID{"c1", "c2"})
	attributes := rapid.SampledFrom([]json.RawMessage{nil, nil, json.RawMessage(`{"a":"<b>\u0000"}`), json.RawMessage("null")})
	return rapid.Custom(func(t *rapid.T) domain.Data {
		device, thing := devices.Draw(t, "device"), equipment.Draw(t, "equipment")
		command := domain.ConnectionCommand{ConnectionID: connections.Draw(t, "connection")}
		switch rapid.IntRange(0, 11).Draw(t, "type") {
		case 0, 1, 2:
			return domain.DeviceUpdate{
				DeviceID: device,
				Online:   genOptional(rapid.Bool()).Draw(t, "online"),
				RelayOn:  genOptional(rapid.Bool()).Draw(t, "relay"),
				PowerW:   genOptional(rapid.Float64()).Draw(t, "power"),
				Name:     genOptional(rapid.String()).Draw(t, "name"),
				Errors:   genOptional(rapid.Just([]string{})).Draw(t, "errors"),
				DeviceTime: genOptional(rapid.Custom(func(t *rapid.T) time.Time {
					skew := time.Duration(rapid.Int64Range(-5e9, 5e9).Draw(t, "skew"))
					return time.Unix(1_800_000_000, 0).Add(skew).In(time.FixedZone("", 3600))
				})).Draw(t, "time"),
				Attributes: attributes.Draw(t, "attributes"),
			}
		case 3:
			return domain.DeviceOfflineStatus{DeviceID: device, Online: rapid.Bool().Draw(t, "online"), Reason: domain.ReasonSocketClosed}
		case 4, 5:
			return domain.AssignmentUpdated{DeviceID: device, EquipmentID: &thing}
		case 6:
			return domain.AssignmentUpdated{DeviceID: device}
		case 7:
			return domain.EquipmentRegistered{EquipmentID: thing, Name: rapid.String().Draw(t, "name"), Attributes: attributes.Draw(t, "attributes")}
		case 8:
			return domain.EquipmentUpdated{EquipmentID: thing, Name: genOptional(rapid.String()).Draw(t, "name"),
				Attributes: attributes.Draw(t, "attributes")}
		case 9:
			return domain.EquipmentRetired{EquipmentID: thing}
		case 10:
			return domain.ConnectionCreated{ConnectionID: command.ConnectionID, Kind: domain.ConnectionShellyCloud}
		default:
			return rapid.SampledFrom([]domain.Data{
				domain.ConnectionStarted{ConnectionCommand: command}, domain.ConnectionStopped{ConnectionCommand: command},
				domain.ConnectionRestarted{ConnectionCommand: command}, domain.ConnectionDeleted{ConnectionCommand: command},
				domain.ConnectionStateChanged{ConnectionID: command.ConnectionID, State: "connected"},
			}).Draw(t, "command")
		}
	})
}

func genOptional[T any](of *rapid.Generator[T]) *rapid.Generator[domain.Optional[T]] {
	return rapid.OneOf(
		rapid.Just(domain.Optional[T]{}), rapid.Just(domain.Null[T]()),
		rapid.Map(of, func(v T) domain.Optional[T] { return domain.Some(v) }),
	)
}

// naive is the expected content of the database for one system, computed without one.
type naive struct {
	events []domain.Event
	state  *domain.State
	hash   domain.Hash
}

func naively(events []domain.Event) map[domain.SystemID]*naive {
	all := map[domain.SystemID]*naive{}
	for _, e := range events {
		if e.SystemID == "" {
			continue
		}
		n := all[e.SystemID]
		if n == nil {
			n = &naive{state: domain.NewState(e.SystemID)}
			all[e.SystemID] = n
		}
		e.Seq = uint64(len(n.events) + 1)
		n.events = append(n.events, e)
		n.hash = n.hash.Next(&e)
		_, _ = n.state.Apply(&e)
	}
	return all
}

// foldUntil folds from the start, because a state shares its rows with later ones.
func (n *naive) foldUntil(at domain.Position) *domain.State {
	st := domain.NewState(n.state.SystemID)
	for _, e := range n.events {
		if !e.Position.After(at) {
			_, _ = st.Apply(&e)
		}
	}
	return st
}

// check compares the database with the expected content.
func (n *naive) check(t fataler, store *projections.Store, at domain.Position) {
	t.Helper()
	ctx, system := context.Background(), n.state.SystemID
	state, err := store.WholeState(ctx, staff, system, domain.Position{})
	if err != nil {
		t.Fatalf("%v", err)
	}
	if diff := diffStates(n.state, state); diff != "" {
		t.Fatalf("state (-folded +stored)\n%s", diff)
	}
	if diff := cmp.Diff(n.events, archived(t, store, system)); diff != "" {
		t.Fatalf("history (-appended +archived)\n%.2000s", diff)
	}
	head, hash, err := store.Head(ctx, staff, system)
	if err != nil || hash != n.hash || head != n.state.Cursor {
		t.Fatalf("head %s with %s, %v; want %s and %s", head, hash, err, n.state.Cursor, n.hash)
	}
	verified, err := store.Verify(ctx, staff, system, nil)
	if err != nil || verified.Broken != nil || verified.Checked != uint64(len(n.events)) {
		t.Fatalf("verify: %+v, %v", verified, err)
	}
	past, err := store.StateAt(ctx, staff, system, at)
	if err != nil {
		t.Fatalf("%v", err)
	}
	if diff := diffStates(n.foldUntil(at), past); diff != "" {
		t.Fatalf("state at %s (-folded +as of)\n%s", at, diff)
	}
}

// archived returns a system's whole history.
func archived(t fataler, store *projections.Store, system domain.SystemID) []domain.Event {
	t.Helper()
	var events []domain.Event
	var after domain.Position
	for {
		page, err := store.Page(context.Background(), system, after, 700)
		if err != nil {
			t.Fatalf("%v", err)
		}
		if len(page) == 0 {
			return events
		}
		events = append(events, page...)
		after = page[len(page)-1].Position
	}
}

// For any events, and any division into batches and runs, the database holds the result of a
// fold in memory.
func TestAnyBatchingGivesTheSame(t *testing.T) {
	t.Parallel()
	b := setup(t)
	rapid.Check(t, func(t *rapid.T) {
		events := genHistory().Draw(t, "history")
		log := newScript()
		log.batch = func() int { return 1 + rand.IntN(20) }
		for len(events) > 0 {
			n := rapid.IntRange(1, len(events)).Draw(t, "run")
			log.add(events[:n]...)
			events = events[n:]
			projectAll(t, b.store, log)
		}
		var all []domain.Event
		for _, of := range log.events {
			all = append(all, of...)
		}
		at := rapid.SampledFrom(all).Draw(t, "at").Position
		for _, n := range naively(all) {
			n.check(t, b.store, at)
		}
	})
}

// With backends killed at random moments, every event is in history once and folded once.
func TestExactlyOnceUnderCrashes(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var events []domain.Event
	for i := range 1000 {
		system := domain.SystemID(fmt.Sprintf("crash-%d", i%7))
		events = append(events, must(t, system, uint64(1_800_000_000_000+i),
			domain.DeviceUpdate{DeviceID: domain.DeviceID(fmt.Sprint("d", i%5)), PowerW: domain.Some(float64(i))}))
	}
	log := newScript(events...)
	killing, stop := context.WithCancel(t.Context())
	round := make(chan struct{}) // the killer has done a round
	const mostKills = 60
	var batches, kills atomic.Int64
	log.batch = func() int {
		// Otherwise everything may be done before the killer comes, or hits.
		for wait := batches.Add(1)%10 == 0; wait; wait = kills.Load() == 0 {
			select {
			case <-round:
			case <-t.Context().Done():
				return 1
			}
		}
		return 1 + rand.IntN(30)
	}
	var killer sync.WaitGroup
	killer.Go(func() {
		for killing.Err() == nil {
			if kills.Load() < mostKills { // on a loaded machine no connection would live long enough to write
				var n int64
				// Not while it kills: a statement that is given up still kills.
				_ = b.owner.QueryRow(t.Context(), `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
					WHERE datname = current_database() AND application_name = 'plugcast' AND random() < 0.5`).Scan(&n)
				kills.Add(n)
			}
			select {
			case round <- struct{}{}:
			case <-time.After(rand.N(20 * time.Millisecond)):
			case <-killing.Done():
			}
		}
	})
	crashes := 0
	for partition := range testPartitions {
		projector := projections.NewProjector(b.store, log, partition)
		for {
			err := projector.Run(t.Context())
			if errors.Is(err, errEnd) {
				break
			}
			if errors.Is(err, projections.ErrStaleOwner) || t.Context().Err() != nil {
				t.Fatal(err)
			}
			crashes++
		}
	}
	stop()
	killer.Wait()
	if crashes == 0 {
		t.Fatalf("nothing crashed, with %d kills", kills.Load())
	}
	t.Logf("%d kills, %d crashes", kills.Load(), crashes)
	// Some of the store's idle connections may have been killed, which shows only when they are
	// used.
	store := openStore(t, b.url)
	for _, n := range naively(events) {
		n.check(t, store, events[len(events)/2].Position)
	}
}

// Of two concurrent owners one writes, and the other stops without writing.
func TestTwoOwners(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const system = domain.SystemID("both-0")
	var events []domain.Event
	for i := range 2000 {
		events = append(events, must(t, system, uint64(1000+i), domain.DeviceUpdate{DeviceID: "d", PowerW: domain.Some(float64(i))}))
	}
	log := newScript(events...)
	log.batch = func() int { return 1 + rand.IntN(10) }
	var owners, meeting sync.WaitGroup
	var stale atomic.Int64
	meeting.Add(2)
	for range 2 {
		projector := projections.NewProjector(openStore(t, b.url), &meet{script: log, both: &meeting}, partitionOf(system))
		owners.Go(func() {
			for {
				err := projector.Run(t.Context())
				switch {
				case errors.Is(err, projections.ErrStaleOwner):
					stale.Add(1)
				case errors.Is(err, errEnd):
					return
				default:
					t.Error(err)
					return
				}
			}
		})
	}
	owners.Wait()
	if stale.Load() == 0 {
		t.Error("both wrote from the same checkpoint")
	}
	naively(events)[system].check(t, b.store, domain.Position{Ms: 1500})
}

// meet is a log that two readers begin to follow at the same time.
type meet struct {
	*script
	once sync.Once
	both *sync.WaitGroup
}

func (m *meet) Follow(ctx context.Context, partition int, after domain.Position, fn func([]domain.Event) error) error {
	m.once.Do(func() {
		m.both.Done()
		m.both.Wait()
	})
	return m.script.Follow(ctx, partition, after, fn)
}

// A poison event stops nothing: it is archived, counted and in quarantine.
func TestPoison(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const system = domain.SystemID("poison-0")
	good := func(ms uint64) domain.Event {
		return must(t, system, ms, domain.DeviceUpdate{DeviceID: "d", PowerW: domain.Some(float64(ms))})
	}
	long := strings.Repeat("x", 5000)
	poison := func(ms uint64, change func(*domain.Event)) domain.Event {
		e := good(ms)
		change(&e)
		return e
	}
	events := []domain.Event{
		good(10),
		poison(20, func(e *domain.Event) { e.Data = json.RawMessage(`{"deviceId":[]}`) }),
		poison(30, func(e *domain.Event) { e.Type = "from-the-future" }),
		poison(60, func(e *domain.Event) { e.Data = json.RawMessage(`{"deviceId":"` + long + `","online":true}`) }),
		poison(70, func(e *domain.Event) { e.Data = json.RawMessage(`{"deviceId":"a\u0000b","online":true}`) }),
		poison(80, func(e *domain.Event) { e.Data = json.RawMessage(`{"deviceId":"d","name":"a\u0000b"}`) }),
		poison(100, func(e *domain.Event) {
			e.Type, e.Data = domain.TypeUndecodable, json.RawMessage(`{"reason":"torn","fields":{}}`)
		}),
		poison(110, func(e *domain.Event) {
			e.SystemID, e.Type, e.Data = "", domain.TypeUndecodable, json.RawMessage(`{"reason":"no well-formed systemId","fields":{"a":"b"}}`)
		}),
		good(120),
	}
	projectAll(t, b.store, newScript(events...))
	st, err := b.store.WholeState(t.Context(), staff, system, domain.Position{})
	if err != nil {
		t.Fatal(err)
	}
	if st.Cursor.Seq != 8 || len(st.Devices) != 1 || *st.Devices["d"].PowerW != 120 || *st.Devices["d"].Name != "a\x00b" {
		t.Errorf("cursor %s, devices %v", st.Cursor, st.Devices["d"])
	}
	quarantine, err := b.store.Quarantine(t.Context(), staff, domain.QuarantineQuery{})
	if err != nil {
		t.Fatal(err)
	}
	var at []uint64
	for _, q := range quarantine.Entries {
		at = append(at, q.Position.Ms)
		if q.Reason == "" || q.Data == "" {
			t.Errorf("no reason or data: %+v", q)
		}
	}
	if diff := cmp.Diff([]uint64{110, 100, 70, 60, 20}, at); diff != "" {
		t.Errorf("quarantine (-want +got)\n%s", diff)
	}
	if n, err := b.store.QuarantineSize(t.Context()); err != nil || n.Entries != 5 {
		t.Errorf("size %+v, %v", n, err)
	}
	own, err := b.store.Quarantine(t.Context(), domain.Actor{Role: domain.RoleAuditor, Systems: []domain.SystemID{system}},
		domain.QuarantineQuery{})
	if err != nil || len(own.Entries) != 4 {
		t.Errorf("an auditor sees %d, %v", len(own.Entries), err)
	}
	verified, err := b.store.Verify(t.Context(), staff, system, nil)
	if err != nil || verified.Broken != nil || verified.Checked != 8 {
		t.Errorf("verify: %+v, %v", verified, err)
	}
}
