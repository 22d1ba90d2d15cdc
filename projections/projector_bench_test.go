package projections_test

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/projections"
	"github.com/plugcast/plugcast/projections/pgserver/pgtest"
)

// benchUpdates returns device updates as a Shelly source writes them: 10 systems with 20
// devices each.
func benchUpdates(n int, first uint64) []domain.Event {
	events := make([]domain.Event, n)
	for i := range events {
		data, _ := json.Marshal(domain.DeviceUpdate{ // never fails
			DeviceID: domain.DeviceID(fmt.Sprintf("shellyplugsg3-%012x", i/10%20)), Online: domain.Some(true), RelayOn: domain.Some(true),
			Channel: domain.Some(0), PowerW: domain.Some(float64(i%3000) / 10), VoltageV: domain.Some(231.4), CurrentA: domain.Some(1.886),
			EnergyWh: domain.Some(2574466.629), TemperatureC: domain.Some(46.3), Changed: []string{"powerW", "currentA"},
			DeviceTime: domain.Some(time.UnixMilli(int64(first)).UTC()), ConnectionID: domain.Some(domain.ConnectionID("acc1")),
		})
		system := fmt.Sprintf("bench-%d", i%10)
		events[i] = domain.Event{
			ID: fmt.Sprintf("019aaf2c-%04x-7000-8000-%012x", i%10, i), Type: domain.TypeDeviceUpdate, Version: 1, SystemID: domain.SystemID(system),
			Time: time.UnixMilli(int64(first)).UTC(), Actor: "shelly:acc1", CorrelationID: fmt.Sprintf("c-%d", i), Data: data,
			Position: domain.Position{Ms: first + uint64(i/10), N: uint64(i % 10)},
		}
	}
	return events
}

// everything is a log with one partition.
type everything struct {
	*script
	events []domain.Event
	batch  int
}

func (l *everything) Follow(_ context.Context, _ int, _ domain.Position, fn func([]domain.Event) error) error {
	for events := l.events; len(events) > 0; {
		n := min(l.batch, len(events))
		if err := fn(events[:n]); err != nil {
			return err
		}
		events = events[n:]
	}
	return errEnd
}

// BenchmarkProject measures one projector on one connection, with a Postgres that syncs each
// commit as in production.
func BenchmarkProject(b *testing.B) {
	server := pgtest.New(b)
	if err := migrate(b.Context(), server.URL()); err != nil {
		b.Fatal(err)
	}
	store := setupAt(b, server.URL()).store
	first := uint64(1_800_000_000_000)
	for partition, batch := range []int{1, 10, 100, 1000} {
		b.Run(fmt.Sprintf("batch=%d", batch), func(b *testing.B) {
			log := &everything{script: newScript(), batch: batch, events: benchUpdates(b.N, first)}
			first += uint64(b.N) + 1
			b.ReportAllocs()
			b.ResetTimer()
			if err := projections.NewProjector(store, log, partition).Run(b.Context()); err == nil {
				b.Fatal("it did not end")
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
		})
	}
}

// BenchmarkRead measures the most frequent reads, on a system with 20 devices and 10,000
// events.
func BenchmarkRead(b *testing.B) {
	bundle := setup(b)
	store := bundle.store
	log := &everything{script: newScript(), batch: 1000, events: benchUpdates(100_000, 1_800_000_000_000)}
	if err := projections.NewProjector(store, log, 0).Run(b.Context()); err == nil {
		b.Fatal("it did not end")
	}
	bundle.exec(b, "VACUUM ANALYZE")
	const system = domain.SystemID("bench-3")
	middle := domain.Position{Ms: 1_800_000_005_000}
	viewer := domain.Actor{Role: domain.RoleAuditor, Systems: []domain.SystemID{system}}
	for _, read := range []struct {
		name string
		do   func() error
	}{
		{"State", func() error { _, err := store.WholeState(b.Context(), staff, system, domain.Position{}); return err }},
		{"Base", func() error { _, _, err := store.Base(b.Context(), system); return err }},
		{"Locate", func() error { _, err := store.Locate(b.Context(), system, middle); return err }},
		{"Page1000", func() error { _, err := store.Page(b.Context(), system, middle, 1000); return err }},
		{"Device", func() error {
			needs := domain.Needs{Devices: []domain.DeviceID{"shellyplugsg3-000000000007"}}
			_, err := store.StateFor(b.Context(), viewer, system, needs, domain.Position{})
			return err
		}},
		{"Events/newest100", func() error {
			_, _, err := store.Events(b.Context(), viewer, system, domain.EventQuery{Limit: 100, Descending: true})
			return err
		}},
		{"Events/device", func() error {
			_, _, err := store.Events(b.Context(), viewer, system, domain.EventQuery{
				Limit: 100, Filter: domain.EventFilter{Devices: []domain.DeviceID{"shellyplugsg3-000000000007"}},
			})
			return err
		}},
		{"Events/unknownActor", func() error {
			_, _, err := store.Events(b.Context(), viewer, system, domain.EventQuery{Limit: 100, Actor: "maria"})
			return err
		}},
		{"StateAt/5000events", func() error { _, err := store.StateAt(b.Context(), viewer, system, middle); return err }},
		{"Export/10000events", func() error {
			return store.Export(b.Context(), viewer, system, domain.EventQuery{}, func(*domain.HashedEvent) error { return nil })
		}},
		{"Verify/10000events", func() error { _, err := store.Verify(b.Context(), viewer, system, nil); return err }},
	} {
		b.Run(read.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := read.do(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkRebuild measures a rebuild from 100,000 events.
func BenchmarkRebuild(b *testing.B) {
	store := setup(b).store
	log := &everything{script: newScript(), batch: 1000, events: benchUpdates(100_000, 1_800_000_000_000)}
	if err := projections.NewProjector(store, log, 0).Run(b.Context()); err == nil {
		b.Fatal("it did not end")
	}
	for b.Loop() {
		if _, err := store.Rebuild(b.Context(), nil, nil); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)*100_000/b.Elapsed().Seconds(), "events/s")
}
