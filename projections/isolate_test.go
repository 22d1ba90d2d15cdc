package projections_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/projections"
	"github.com/plugcast/plugcast/streams/redisserver/redistest"
)

// poisons are events that cannot be projected, each for another reason.
var poisons = map[string]func(e *domain.Event){
	// These are devices without other events, because another event would overwrite the row.
	"a time that JSON cannot write": func(e *domain.Event) {
		e.Time, e.Data = time.Date(12_000, 1, 1, 0, 0, 0, 0, time.UTC), json.RawMessage(`{"deviceId":"`+e.ID+`"}`)
	},
	"a time before the year 0": func(e *domain.Event) {
		e.Time, e.Data = time.Date(-1, 1, 1, 0, 0, 0, 0, time.UTC), json.RawMessage(`{"deviceId":"`+e.ID+`"}`)
	},
	"a NUL in a device": func(e *domain.Event) { e.Data = json.RawMessage(`{"deviceId":"d\u0000"}`) },
	"a NUL in equipment": func(e *domain.Event) {
		e.Type, e.Data = domain.TypeEquipmentRegistered, json.RawMessage(`{"equipmentId":"\u0000","name":"x"}`)
	},
	"a NUL in a connection": func(e *domain.Event) {
		e.Type, e.Data = domain.TypeConnectionCreated, json.RawMessage(`{"connectionId":"c\u0000","kind":"cloud"}`)
	},
	"a NUL in an assignment": func(e *domain.Event) {
		e.Type, e.Data = domain.TypeAssignmentUpdated, json.RawMessage(`{"deviceId":"d","equipmentId":"\u0000"}`)
	},
	"a device id too long for an index": func(e *domain.Event) {
		e.Data = json.RawMessage(`{"deviceId":"` + noise(1<<14) + `"}`)
	},
	"a NUL in data":            func(e *domain.Event) { e.Data = json.RawMessage("{\"deviceId\":\"d\",\"name\":\"\x00\"}") },
	"data that is not UTF-8":   func(e *domain.Event) { e.Data = json.RawMessage("{\"deviceId\":\"d\",\"name\":\"\xff\"}") },
	"a NUL in the actor":       func(e *domain.Event) { e.Actor = "m\x00" },
	"an actor that is no text": func(e *domain.Event) { e.Actor = "\xc3\x28" },
	"a NUL in the id":          func(e *domain.Event) { e.ID = "\x00" },
	"a NUL in the type":        func(e *domain.Event) { e.Type = "x\x00" },
	"a NUL in the correlation": func(e *domain.Event) { e.CorrelationID = "\x00" },
	"a NUL in the origin":      func(e *domain.Event) { e.Origin = "\x00" },
	"an actor too long":        func(e *domain.Event) { e.Actor = noise(1 << 14) },
	"a time before all times":  func(e *domain.Event) { e.Time = time.Date(-200_000, 1, 1, 0, 0, 0, 0, time.UTC) },
}

// noise returns text that does not compress.
func noise(n int) string {
	var b strings.Builder
	for b.Len() < n {
		fmt.Fprintf(&b, "%x", rand.Uint64())
	}
	return b.String()
}

// Each poison has its own row in history, with a seq and a link of the chain, and does not
// affect the other events.
func TestPoisonIsIsolated(t *testing.T) {
	t.Parallel()
	for name, poison := range poisons {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			system := domain.SystemID(fmt.Sprintf("p%x-0", rand.Uint64()))
			other := system + "0"
			log := newScript()
			for ms := range uint64(9) {
				e := must(t, system, 1_700_000_000_000+3*ms, domain.DeviceUpdate{DeviceID: "d", PowerW: domain.Some(float64(ms))})
				if ms == 4 {
					poison(&e)
				}
				log.add(e, must(t, other, 1_700_000_000_001+3*ms, domain.DeviceUpdate{DeviceID: "d", PowerW: domain.Some(float64(ms))}))
			}
			store := setup(t).store // one for each, because a projector owns its partition
			projectAll(t, store, log)
			events := archived(t, store, system)
			if len(events) != 9 || events[4].Seq != 5 {
				t.Fatalf("%d events", len(events))
			}
			checkChain(t, store, system, 9)
			checkChain(t, store, other, 9)
			st, err := store.WholeState(t.Context(), staff, system, domain.Position{})
			if err != nil || *st.Devices["d"].PowerW != 8 {
				t.Errorf("%+v, %v", st, err)
			}
			inside, err := store.Quarantine(t.Context(), staff, domain.QuarantineQuery{System: system})
			if err != nil || len(inside.Entries) != 1 || inside.Entries[0].Position != events[4].Position || inside.Entries[0].Reason == "" {
				t.Errorf("quarantine: %+v, %v", inside, err)
			}
		})
	}
}

func checkChain(t testing.TB, store *projections.Store, system domain.SystemID, want uint64) {
	t.Helper()
	result, err := store.Verify(context.Background(), staff, system, nil)
	if err != nil || result.Broken != nil || result.Checked != want {
		t.Errorf("%s: %+v, %v; want %d events", system, result, err, want)
	}
}

// With any poison in any batches, the projector reaches the end of the log, no seq is left out,
// and systems without poison have the same state and history as without.
func TestPoisonNeverStopsAPartition(t *testing.T) {
	t.Parallel()
	names := make([]string, 0, len(poisons))
	for name := range poisons {
		names = append(names, name)
	}
	for range 3 {
		seed := rand.Uint64()
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(seed, 1))
			var all, good []domain.Event
			counts, poisoned := map[domain.SystemID]uint64{}, 0
			share := random.Float64()
			for ms := range uint64(100 + random.IntN(200)) {
				system := domain.SystemID(fmt.Sprintf("s%d-0", random.IntN(6)))
				e := must(t, system, 1_700_000_000_000+ms, domain.DeviceUpdate{
					DeviceID: domain.DeviceID(fmt.Sprint("d", random.IntN(3))), PowerW: domain.Some(random.Float64()),
				})
				if bad := system >= "s4"; bad && random.Float64() < share {
					poisons[names[random.IntN(len(names))]](&e)
					poisoned++
				} else if !bad {
					good = append(good, e)
				}
				all = append(all, e)
				counts[system]++
			}
			run := func(events []domain.Event) *projections.Store {
				b := setup(t)
				log := newScript(events...)
				log.batch = func() int { return 1 + random.IntN(1+random.IntN(200)) }
				projectAll(t, b.store, log)
				return b.store
			}
			with, without := run(all), run(good)
			for system, n := range counts {
				checkChain(t, with, system, n)
				if system >= "s4" {
					continue
				}
				if diff := cmp.Diff(archived(t, without, system), archived(t, with, system)); diff != "" {
					t.Errorf("%s (-without poison +with)\n%s", system, diff)
				}
				a, errA := without.WholeState(t.Context(), staff, system, domain.Position{})
				b, errB := with.WholeState(t.Context(), staff, system, domain.Position{})
				if diff := diffStates(a, b); diff != "" || errA != nil || errB != nil {
					t.Errorf("%s (-without poison +with)\n%s%v %v", system, diff, errA, errB)
				}
			}
			if n := with.Stats().Quarantined; n != uint64(poisoned) {
				t.Errorf("%d entries are in quarantine, and %d were poison", n, poisoned)
			}
		})
	}
}

// Raw entries, which any client of Redis can add, through the real log.
func TestRawPoisonThroughTheLog(t *testing.T) {
	t.Parallel()
	b := setup(t)
	log := openLog(t, redistest.URL(t), b.store)
	const system = domain.SystemID("raw-0")
	partition, bystander := log.Partition(system), domain.SystemID("by-0")
	for i := 0; log.Partition(bystander) != partition; i++ {
		bystander = domain.SystemID(fmt.Sprint("by-", i))
	}
	fields := func(change map[string]string) []any {
		all := map[string]string{
			"id": "0198-x", "type": "device-update", "version": "1", "systemId": string(system), "time": "2026-11-29T03:00:00Z",
			"actor": "maria", "correlationId": "", "causationId": "", "origin": "", "data": `{"deviceId":"d"}`,
		}
		var list []any
		for name, value := range all {
			if changed, ok := change[name]; ok {
				value = changed
			}
			if value != "-" {
				list = append(list, name, value)
			}
		}
		return list
	}
	deep := strings.Repeat(`{"a":`, 5000) + "1" + strings.Repeat("}", 5000)
	changes := []map[string]string{
		{"data": `{"deviceId":"d","deviceTime":"2026-11-29T03:00:00+24:00"}`}, {"data": `{"deviceId":"d\u0000"}`},
		{"data": "\x00"}, {"data": `{"deviceId":"d","powerW":1e999}`}, {"data": `{"deviceId":7}`}, {"data": `[]`}, {"data": "-"},
		{"data": deep}, {"data": `{"deviceId":"d","attributes":` + deep + `}`}, {"data": `{"deviceId":"d","name":"\u0000\ud800"}`},
		{"data": `{"deviceId":"` + noise(1<<15) + `"}`}, {"data": `{"deviceId":"d","name":"` + strings.Repeat("x", 3<<20) + `"}`},
		{"actor": "\x00"}, {"actor": "\xff"}, {"actor": noise(4000)}, {"actor": "-"}, {"id": "\x00"}, {"id": "no uuid"}, {"id": "-"},
		{"type": "\x00"}, {"type": "-"}, {"type": strings.Repeat("t", 3000)}, {"time": "-"}, {"time": "0000-01-01T00:00:00+23:59"},
		{"time": "9999-12-31T23:59:59-23:59"}, {"time": "yesterday"}, {"version": "99999999999"}, {"version": "0"}, {"version": "2147483647"},
		{"systemId": "-"}, {"systemId": "\x00"}, {"systemId": "a b"}, {"origin": "\x00"}, {"correlationId": noise(3000)},
	}
	counted := uint64(0)
	for _, change := range changes {
		if err := log.Client().Do(t.Context(), append([]any{"XADD", log.Slot(partition) + "events", "*"},
			fields(change)...)...).Err(); err != nil {
			t.Fatal(err)
		}
		if change["systemId"] == "" {
			counted++
		}
		e := must(t, bystander, 0, domain.DeviceUpdate{DeviceID: "good", Online: domain.Some(true)})
		e.ID = ""
		if _, err := log.Append(t.Context(), []domain.Event{e}, domain.AppendOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	tail, err := log.Tail(t.Context(), partition)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	done := make(chan error, 1)
	go func() { done <- projections.NewProjector(b.store, log, partition).Run(ctx) }()
	if err := b.store.WaitFor(ctx, partition, tail); err != nil {
		t.Fatalf("the projector is stuck: %v", err)
	}
	stop()
	<-done
	checkChain(t, b.store, system, counted)
	checkChain(t, b.store, bystander, uint64(len(changes)))
	for i, e := range archived(t, b.store, bystander) {
		if e.Seq != uint64(i+1) || e.Type != domain.TypeDeviceUpdate {
			t.Errorf("event %d: %+v", i, e)
		}
	}
	if _, err := b.store.Rebuild(t.Context(), nil, nil); err != nil {
		t.Error(err)
	}
}

// A panic is an error of its partition, and ends nothing else.
func TestPanicKeepsTheWorker(t *testing.T) {
	t.Parallel()
	b := setup(t)
	log := &panicking{script: newScript(must(t, "panic-0", 1_700_000_000_000, domain.DeviceUpdate{DeviceID: "d"}))}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- projections.NewWorker(projections.WorkerConfig{Store: b.store, Log: log}).Run(ctx) }()
	waiting, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := b.store.WaitFor(waiting, partitionOf("panic-0"), domain.Position{Ms: 1_700_000_000_000}); err != nil {
		t.Fatal(err)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// panicking is a log that panics the first times it is followed.
type panicking struct {
	*script
	times atomic.Int64
}

func (p *panicking) Follow(ctx context.Context, partition int, after domain.Position, fn func([]domain.Event) error) error {
	if p.times.Add(1) <= 6 {
		panic("boom")
	}
	if err := p.script.Follow(ctx, partition, after, fn); !errors.Is(err, errEnd) {
		return err
	}
	<-ctx.Done()
	return ctx.Err()
}

// A rebuild does not stop at such events in history, which another program may have written: it
// leaves them out and names them.
func TestRebuildLeavesPoisonOut(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const system, other = domain.SystemID("poisoned-0"), domain.SystemID("healthy-0")
	log := newScript()
	for ms := range uint64(3000) {
		device := domain.DeviceID("d")
		if ms == 17 || ms == 18 || ms == 2999 {
			device = domain.DeviceID(fmt.Sprint("p", ms))
		}
		log.add(must(t, system, 1_700_000_000_000+ms, domain.DeviceUpdate{DeviceID: device, PowerW: domain.Some(float64(ms))}))
	}
	log.add(must(t, other, 1_700_000_009_000, domain.DeviceUpdate{DeviceID: "d", Online: domain.Some(true)}))
	projectAll(t, b.store, log)
	for _, ms := range []int{17, 18, 2999} { // rows are JSON, which has no year 12000
		b.exec(t, "UPDATE history SET time = '12000-01-01Z' WHERE system_id = $1 AND position_ms = $2", system, 1_700_000_000_000+ms)
	}
	b.exec(t, "TRUNCATE projection.devices")
	rebuilt, err := b.store.Rebuild(t.Context(), nil, nil)
	if err != nil || rebuilt.Skipped != 3 || rebuilt.Events != 3001 || len(rebuilt.FirstSkipped) != 3 ||
		rebuilt.FirstSkipped[0].EventID == "" {
		t.Fatalf("%+v, %v", rebuilt, err)
	}
	st, err := b.store.WholeState(t.Context(), staff, system, domain.Position{})
	if err != nil || len(st.Devices) != 1 || *st.Devices["d"].PowerW != 2998 {
		t.Errorf("%+v, %v", st, err)
	}
	if st, err := b.store.WholeState(t.Context(), staff, other, domain.Position{}); err != nil || len(st.Devices) != 1 {
		t.Errorf("%+v, %v", st, err)
	}
	page, err := b.store.Quarantine(t.Context(), staff, domain.QuarantineQuery{Limit: 2})
	if err != nil || len(page.Entries) != 2 || !page.More || page.Entries[0].Position.Ms != 1_700_000_002_999 {
		t.Errorf("%+v, %v", page, err)
	}
	second := page.Entries[1].Cursor()
	page, err = b.store.Quarantine(t.Context(), staff, domain.QuarantineQuery{Limit: 2, Before: &second})
	if err != nil || len(page.Entries) != 1 || page.More {
		t.Errorf("%+v, %v", page, err)
	}
	// Another rebuild finds the same events, and counts none of them again.
	if rebuilt, err := b.store.Rebuild(t.Context(), nil, nil); err != nil || rebuilt.Skipped != 3 {
		t.Errorf("%+v, %v", rebuilt, err)
	}
	if size, err := b.store.QuarantineSize(t.Context()); err != nil || size.Entries != 3 || size.ByPartition[partitionOf(system)] != 3 {
		t.Errorf("%+v, %v", size, err)
	}
}

// A damaged row of the read models stops neither its system nor others.
func TestDamagedRowIsLeftOut(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const system, other = domain.SystemID("damaged-0"), domain.SystemID("healthy-0")
	log := newScript(must(t, system, 1000, domain.DeviceUpdate{DeviceID: "d", Online: domain.Some(true)}))
	projectAll(t, b.store, log)
	b.exec(t, `UPDATE projection.devices SET document = '{"updatedAt": "never"}'`)
	log.add(
		must(t, system, 1001, domain.DeviceUpdate{DeviceID: "e", Online: domain.Some(true)}),
		must(t, other, 1002, domain.DeviceUpdate{DeviceID: "d", Online: domain.Some(true)}),
		must(t, system, 1003, domain.DeviceUpdate{DeviceID: "d", PowerW: domain.Some(3.0)}),
	)
	projectAll(t, b.store, log)
	st, err := b.store.WholeState(t.Context(), staff, system, domain.Position{})
	if err != nil || len(st.Devices) != 2 || *st.Devices["d"].PowerW != 3 {
		t.Errorf("%+v, %v", st, err)
	}
	checkChain(t, b.store, system, 3)
	checkChain(t, b.store, other, 1)
}

// The projector retries an unforeseen failure for a while, and then replaces the event. It
// retries a failure of the database without end, and replaces nothing.
func TestUnforeseenFailures(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const system, other = domain.SystemID("odd-0"), domain.SystemID("healthy-0")
	// The replacement contains the same text, and can be written.
	b.exec(t, `CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		IF NEW.type <> 'undecodable' AND NEW.data LIKE '%strange%' THEN RAISE EXCEPTION 'something odd' USING ERRCODE = 'P0001'; END IF;
		IF NEW.data LIKE '%away%' THEN RAISE EXCEPTION 'gone' USING ERRCODE = '58030'; END IF;
		RETURN NEW; END $$`)
	b.exec(t, "SELECT create_history_partition(1000)")
	b.exec(t, "CREATE TRIGGER refuse BEFORE INSERT ON history FOR EACH ROW EXECUTE FUNCTION refuse()")
	log := newScript(
		must(t, system, 1000, domain.DeviceUpdate{DeviceID: "d", Online: domain.Some(true)}),
		must(t, system, 1001, domain.DeviceUpdate{DeviceID: "d", Name: domain.Some("strange")}),
		must(t, other, 1002, domain.DeviceUpdate{DeviceID: "d", Online: domain.Some(true)}),
	)
	projector := projections.NewProjector(b.store, log, partitionOf(system))
	tries := 1
	for ; ; tries++ {
		err := projector.Run(t.Context())
		if errors.Is(err, errEnd) {
			break
		}
		if tries > 20 {
			t.Fatal(err)
		}
	}
	if tries < 3 {
		t.Errorf("the event was taken out at the %d. try", tries)
	}
	checkChain(t, b.store, system, 2)
	checkChain(t, b.store, other, 1)
	if size, err := b.store.QuarantineSize(t.Context()); err != nil || size.Entries != 1 {
		t.Errorf("%+v, %v", size, err)
	}
	log.add(must(t, system, 1010, domain.DeviceUpdate{DeviceID: "d", Name: domain.Some("away")}))
	for range 20 {
		if err := projector.Run(t.Context()); err == nil || errors.Is(err, errEnd) {
			t.Fatalf("got %v", err)
		}
	}
	if size, err := b.store.QuarantineSize(t.Context()); err != nil || size.Entries != 1 {
		t.Errorf("%+v, %v", size, err)
	}
}
