package rooms_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/rooms"
	"github.com/plugcast/plugcast/transport/snapshot"
	"github.com/plugcast/plugcast/transport/testpeer/clienttest"
)

// fanSource delivers events to all subscribers, and does nothing else.
type fanSource struct {
	mu  sync.Mutex
	fns map[domain.SystemID]func([]domain.Event, error)
}

func (s *fanSource) Locate(context.Context, domain.SystemID, domain.Position) (domain.Cursor, error) {
	return domain.Cursor{}, nil
}

func (s *fanSource) Page(context.Context, domain.SystemID, domain.Cursor, int) ([]domain.Event, error) {
	return nil, nil
}

func (s *fanSource) Snapshot(context.Context, domain.SystemID) (*snapshot.Snapshot, error) {
	return nil, nil
}

func (s *fanSource) Subscribe(_ context.Context, system domain.SystemID, fn func([]domain.Event, error)) (domain.Cursor, func(), error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fns[system] = fn
	return domain.Cursor{}, func() {}, nil
}

// quickSink is a socket that is always ready.
type quickSink struct {
	sub    *rooms.Subscription
	ready  bool
	frames int
	bytes  int
}

func (s *quickSink) Deliver(f rooms.Frame) {
	s.ready = true
	s.frames++
	s.bytes += len(f.Bytes)
}

func (s *quickSink) Restarted(domain.Cursor) {}

// BenchmarkFanOut gives one event at a time to each of 40 rooms of 25 subscriptions;
// one operation is one delivery.
func BenchmarkFanOut(b *testing.B) {
	const systems, subscriptions = 40, 25
	for _, filtered := range []bool{false, true} {
		b.Run(fmt.Sprintf("filtered=%t", filtered), func(b *testing.B) {
			source := &fanSource{fns: map[domain.SystemID]func([]domain.Event, error){}}
			hub, err := rooms.New(source, rooms.Config{}, slog.New(slog.DiscardHandler))
			if err != nil {
				b.Fatal(err)
			}
			defer hub.Close()
			var o rooms.Options
			if filtered {
				o.Filter.Devices = []domain.DeviceID{"plug-0"}
			}
			var sinks [systems][]*quickSink
			for i := range sinks {
				for range subscriptions {
					s := &quickSink{}
					if s.sub, _, err = hub.Join(b.Context(), system(i), o, s); err != nil {
						b.Fatal(err)
					}
					s.sub.Start()
					sinks[i] = append(sinks[i], s)
				}
			}
			event, err := domain.NewEvent("", clienttest.Update("plug-0", 12.5), domain.Cause{Actor: "shelly:acc1"})
			if err != nil {
				b.Fatal(err)
			}
			event.ID = "0192f0a0-0000-7000-8000-000000000000"
			b.ReportAllocs()
			b.ResetTimer()
			for delivered, seq := 0, uint64(1); delivered < b.N; seq++ {
				for i := range sinks {
					e := event
					e.SystemID, e.Seq, e.Position = system(i), seq, domain.Position{Ms: seq}
					source.fns[e.SystemID]([]domain.Event{e}, nil)
					for _, s := range sinks[i] {
						if s.ready {
							s.ready = false
							delivered++
							s.sub.Sent()
						}
					}
				}
			}
		})
	}
}

func system(i int) domain.SystemID { return domain.SystemID(fmt.Sprint("system-", i)) }

// BenchmarkCatchUp lets a reader follow a tail that is always full frames ahead.
func BenchmarkCatchUp(b *testing.B) {
	for _, conflate := range []bool{false, true} {
		b.Run(fmt.Sprintf("conflate=%t", conflate), func(b *testing.B) {
			source := &fanSource{fns: map[domain.SystemID]func([]domain.Event, error){}}
			hub, err := rooms.New(source, rooms.Config{}, slog.New(slog.DiscardHandler))
			if err != nil {
				b.Fatal(err)
			}
			defer hub.Close()
			s := &quickSink{}
			if s.sub, _, err = hub.Join(b.Context(), "system-0", rooms.Options{Conflate: conflate}, s); err != nil {
				b.Fatal(err)
			}
			s.sub.Start()
			const batch = 500
			events := make([]domain.Event, batch)
			for i := range events {
				update := clienttest.Update(fmt.Sprint("plug-", i%10), float64(i))
				if events[i], err = domain.NewEvent("system-0", update, domain.Cause{Actor: "test"}); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportAllocs()
			b.ResetTimer()
			for seq := uint64(0); seq < uint64(b.N); {
				for i := range events {
					seq++
					events[i].Seq, events[i].Position = seq, domain.Position{Ms: seq}
				}
				source.fns["system-0"](events, nil)
				for s.ready {
					s.ready = false
					s.sub.Sent()
				}
			}
		})
	}
}
