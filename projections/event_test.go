package projections_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/plugcast/plugcast/domain"
)

// picks reports whether an event matches a query, without a database.
func picks(q domain.EventQuery, e *domain.Event) bool {
	return (q.After == nil || e.Position.After(*q.After)) &&
		(q.Before == nil || e.Position.Before(*q.Before)) &&
		(q.From == nil || !e.Time.Before(*q.From)) &&
		(q.To == nil || e.Time.Before(*q.To)) &&
		(len(q.Filter.Types) == 0 || slices.Contains(q.Filter.Types, e.Type)) &&
		(len(q.Filter.Devices) == 0 || slices.Contains(q.Filter.Devices, e.Device())) &&
		(q.Actor == "" || e.Actor == q.Actor) &&
		(q.CorrelationID == "" || e.CorrelationID == q.CorrelationID)
}

// Any combination of filters gives the same events as a loop over all events, and an export
// with the same filters can be checked link by link.
func TestAnyQueryPicksWhatALoopPicks(t *testing.T) {
	t.Parallel()
	b := setup(t)
	log := fill(t, b)
	var all []*naive
	for partition := range testPartitions {
		for _, n := range naively(log.events[partition]) {
			all = append(all, n)
		}
	}
	slices.SortFunc(all, func(a, b *naive) int { return bytes.Compare([]byte(a.state.SystemID), []byte(b.state.SystemID)) })
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.SampledFrom(all).Draw(t, "system")
		position := rapid.Custom(func(t *rapid.T) *domain.Position {
			if rapid.IntRange(0, 9).Draw(t, "zero") == 0 {
				return &domain.Position{} // a valid bound
			}
			at := rapid.SampledFrom(n.events).Draw(t, "at").Position
			return &at
		})
		instant := rapid.Custom(func(t *rapid.T) *time.Time {
			if rapid.IntRange(0, 9).Draw(t, "zero") == 0 {
				return &time.Time{}
			}
			then := rapid.SampledFrom(n.events).Draw(t, "then").Time.Add(time.Duration(rapid.IntRange(0, 1).Draw(t, "part")) * time.Microsecond)
			return &then
		})
		sometimes := func(name string) bool { return rapid.IntRange(0, 3).Draw(t, name) == 0 }
		var q domain.EventQuery
		if sometimes("after") {
			q.After = position.Draw(t, "after")
		}
		if sometimes("before") {
			q.Before = position.Draw(t, "before")
		}
		if sometimes("from") {
			q.From = instant.Draw(t, "from")
		}
		if sometimes("to") {
			q.To = instant.Draw(t, "to")
		}
		if sometimes("type") {
			q.Filter.Types = rapid.SliceOfN(rapid.Custom(func(t *rapid.T) domain.EventType {
				return rapid.SampledFrom(n.events).Draw(t, "of").Type
			}), 1, 3).Draw(t, "types")
		}
		if sometimes("device") {
			q.Filter.Devices = rapid.SliceOfN(rapid.SampledFrom([]domain.DeviceID{"d1", "d2", "none"}), 1, 3).Draw(t, "devices")
		}
		if sometimes("actor") {
			q.Actor = rapid.SampledFrom(n.events).Draw(t, "actor").Actor
		}
		q.Limit = rapid.IntRange(0, 10).Draw(t, "limit")
		q.Descending = rapid.Bool().Draw(t, "descending")
		want := []domain.Event{}
		for i := range n.events {
			if picks(q, &n.events[i]) {
				want = append(want, n.events[i])
			}
		}
		picked := slices.Clone(want)
		if q.Descending {
			slices.Reverse(want)
		}
		if q.Limit > 0 && len(want) > q.Limit {
			want = want[:q.Limit]
		}
		got, _, err := b.store.Events(context.Background(), staff, n.state.SystemID, q)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, append([]domain.Event{}, got...)); diff != "" {
			t.Fatalf("(-loop +query)\n%s", diff)
		}
		checkExport(t, b, n.state.SystemID, q, picked)
	})
}

// Bounds of time apply to the events' times, although positions define the order: the clocks
// differ, also those of two appenders.
func TestTimesAreTheEvents(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const system, base = domain.SystemID("clocks-0"), 1_800_000_000_000
	log := newScript()
	// In milliseconds after base: the position by the clock of the log, and the time by the
	// clock of the event's appender.
	for _, clocks := range [][2]int{{0, -18}, {10, 2}, {20, 15}, {21, 4}, {40, 39}, {41, 60_030}, {90_000, 30_001}} {
		e := must(t, system, uint64(base+clocks[0]), domain.DeviceUpdate{DeviceID: "d", PowerW: domain.Some(1.0)})
		e.Time = time.UnixMilli(base + int64(clocks[1])).UTC()
		log.add(e)
	}
	projectAll(t, b.store, log)
	when := func(ms int) time.Time { return time.UnixMilli(base + int64(ms)) }
	for ms, want := range map[int]int{-19: -1, -18: 0, 1: 0, 2: 10, 3: 10, 4: 21, 15: 21, 38: 21, 39: 40, 30_000: 40,
		30_001: 90_000, 1 << 40: 90_000} {
		at, err := b.store.PositionAt(t.Context(), staff, system, when(ms))
		expected := domain.Position{}
		if want >= 0 {
			expected.Ms = uint64(base + want)
		}
		if err != nil || at != expected {
			t.Errorf("at %d ms: %s, %v; want %s", ms, at, err, expected)
		}
	}
	stranger := domain.Actor{Role: domain.RoleAuditor, Systems: []domain.SystemID{"other-0"}}
	if at, err := b.store.PositionAt(t.Context(), stranger, system, when(100)); err != nil || !at.IsZero() {
		t.Errorf("a stranger is told %s, %v", at, err)
	}
	for _, c := range []struct {
		from, to int
		seqs     []uint64
	}{
		{-18, 2, []uint64{1}}, {2, 3, []uint64{2}}, {4, 15, []uint64{4}}, {4, 16, []uint64{3, 4}},
		{39, 30_001, []uint64{5}}, {39, 60_031, []uint64{5, 6, 7}}, {16, 39, nil},
	} {
		from, to := when(c.from), when(c.to)
		events, _, err := b.store.Events(t.Context(), staff, system, domain.EventQuery{From: &from, To: &to})
		if err != nil {
			t.Fatal(err)
		}
		var seqs []uint64
		for i := range events {
			seqs = append(seqs, events[i].Seq)
		}
		if !slices.Equal(seqs, c.seqs) {
			t.Errorf("from %d to %d ms: events %v, want %v", c.from, c.to, seqs, c.seqs)
		}
	}
}

func checkExport(t *rapid.T, b *bundle, system domain.SystemID, q domain.EventQuery, want []domain.Event) {
	if q.Limit > 0 && len(want) > q.Limit {
		want = want[:q.Limit]
	}
	var chain domain.ChainVerifier
	exported := []domain.Event{}
	err := b.store.Export(context.Background(), staff, system, q, func(l *domain.HashedEvent) error {
		line := l.AppendCloudEvent(nil)
		read, err := domain.ParseCloudEvent(line)
		if err != nil {
			return err
		}
		exported = append(exported, l.Event)
		return chain.Verify(&read)
	})
	if err != nil {
		t.Fatalf("export: %v", err)
	}
	if diff := cmp.Diff(append([]domain.Event{}, want...), exported); diff != "" {
		t.Fatalf("export (-loop +export)\n%s", diff)
	}
}

func TestExportEndsWithTheErrorOfItsFunction(t *testing.T) {
	t.Parallel()
	b := setup(t)
	twoTenants(t, b)
	enough := errors.New("enough")
	calls := 0
	err := b.store.Export(t.Context(), staff, "sol-1", domain.EventQuery{}, func(*domain.HashedEvent) error { calls++; return enough })
	if !errors.Is(err, enough) || calls != 1 {
		t.Errorf("%d calls, %v", calls, err)
	}
}

// Verify finds the first event that any tampering with history affects.
func TestVerifyFindsTampering(t *testing.T) {
	t.Parallel()
	const system = domain.SystemID("sol-1")
	for _, tampering := range []struct {
		name, statement string
		seq             uint64 // of the reported event
	}{
		{"altered data", `UPDATE history SET data = replace(data, '"powerW":7', '"powerW":8') WHERE system_id = 'sol-1'`, 7},
		{"altered actor", `UPDATE history SET actor = 'nobody' WHERE seq = 5`, 5},
		{"altered time", `UPDATE history SET time = time + interval '1 microsecond' WHERE seq = 3`, 3},
		{"removed", `DELETE FROM history WHERE seq = 4`, 5},
		{"removed first", `DELETE FROM history WHERE seq = 1`, 2},
		{"cut off", `DELETE FROM history WHERE seq > 8`, 10},
		{"all gone", `DELETE FROM history`, 10},
		{"moved", `UPDATE history SET position_seq = 5 WHERE seq = 6`, 6},
		{"damaged hash", `UPDATE history SET hash = 'x' WHERE seq = 9`, 9},
		{"altered with its hash", `UPDATE history SET id = 'x', hash = sha256('x') WHERE seq = 2`, 2},
		{"altered head", `UPDATE heads SET hash = sha256('x')`, 10},
	} {
		t.Run(tampering.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			log := newScript()
			for i := range 10 {
				log.add(must(t, system, uint64(1000+i), domain.DeviceUpdate{DeviceID: "d", PowerW: domain.Some(float64(i + 1))}))
			}
			projectAll(t, b.store, log)
			result, err := b.store.Verify(t.Context(), staff, system, nil)
			if err != nil || result.Broken != nil || result.Checked != 10 {
				t.Fatalf("untouched: %+v, %v", result, err)
			}
			b.exec(t, tampering.statement)
			result, err = b.store.Verify(t.Context(), staff, system, nil)
			if err != nil || result.Broken == nil {
				t.Fatalf("not found: %+v, %v", result, err)
			}
			if result.Broken.Cursor.Seq != tampering.seq || result.Broken.Reason == "" {
				t.Errorf("found at %s: %s; want seq %d (hash %s)", result.Broken.Cursor, result.Broken.Reason, tampering.seq,
					hex.EncodeToString(result.Hash[:4]))
			}
		})
	}
}
