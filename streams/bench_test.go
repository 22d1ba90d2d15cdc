package streams_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/streams"
	"github.com/plugcast/plugcast/streams/redisserver/redistest"
)

// realistic returns an update such as a metering plug sends.
func realistic(system domain.SystemID, n int) domain.Event {
	e := update(system, n)
	e.Data = fmt.Appendf(nil, `{"deviceId":"shellyplugsg3-8cbfea9a%04x","online":true,"relayOn":true,"powerW":%d.5,"voltageV":231.2,`+
		`"currentA":0.52,"energyWh":10432.881,"temperatureC":41.3,"changed":["powerW","currentA"],"deviceTime":"2026-11-24T10:00:00Z"}`,
		n%65536, n%2000)
	return e
}

func BenchmarkAppend(b *testing.B) {
	ctx := context.Background()
	b.Run("parallel", func(b *testing.B) {
		l := open(b, streams.Config{})
		var worker atomic.Int64
		b.SetParallelism(128)
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			system := domain.SystemID(fmt.Sprint("s", worker.Add(1)))
			for i := 0; pb.Next(); i++ {
				if _, err := l.Append(ctx, []domain.Event{realistic(system, i)}, domain.AppendOptions{}); err != nil {
					b.Error(err)
					return
				}
			}
		})
		perSecond(b, 1)
	})
	b.Run("batch=1000", func(b *testing.B) {
		l := open(b, streams.Config{})
		events := make([]domain.Event, 1000)
		for i := range events {
			events[i] = realistic(sol, i)
		}
		b.ReportAllocs()
		for b.Loop() {
			mustAppend(b, l, events...)
		}
		perSecond(b, len(events))
	})
	b.Run("scripted", func(b *testing.B) {
		l := open(b, streams.Config{})
		var worker atomic.Int64
		b.SetParallelism(64)
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			system := domain.SystemID(fmt.Sprint("s", worker.Add(1)))
			opts := domain.AppendOptions{Expect: &domain.Expectation{Aggregate: domain.AggregateInventory}}
			for i := 0; pb.Next(); i++ {
				appended, err := l.Append(ctx, []domain.Event{realistic(system, i)}, opts)
				if err != nil {
					b.Error(err)
					return
				}
				opts.Expect.Head = appended.Last()
			}
		})
		perSecond(b, 1)
	})
}

func perSecond(b *testing.B, events int) {
	b.ReportMetric(float64(b.N*events)/b.Elapsed().Seconds(), "events/s")
}

// filled opens a log with n events of one system.
func filled(b *testing.B, n int) *streams.Log {
	l := open(b, streams.Config{})
	for at := 0; at < n; at += 1000 {
		events := make([]domain.Event, 1000)
		for i := range events {
			events[i] = realistic(sol, at+i)
		}
		mustAppend(b, l, events...)
	}
	return l
}

func BenchmarkRead(b *testing.B) {
	l := filled(b, 20_000)
	p := l.Partition(sol)
	var after domain.Position
	b.ReportAllocs()
	for b.Loop() {
		events, err := l.Read(context.Background(), p, after, 1000)
		if err != nil {
			b.Fatal(err)
		}
		if after = (domain.Position{}); len(events) == 1000 {
			after = events[999].Position
		}
	}
	perSecond(b, 1000)
}

func BenchmarkFollow(b *testing.B) {
	const n = 20_000
	l := filled(b, n)
	p := l.Partition(sol)
	b.ReportAllocs()
	for b.Loop() {
		got := 0
		err := l.Follow(context.Background(), p, domain.Position{}, func(events []domain.Event) error {
			if got += len(events); got == n {
				return context.Canceled
			}
			return nil
		})
		if err != context.Canceled { //nolint:errorlint // as it is
			b.Fatal(err)
		}
	}
	perSecond(b, n)
}

// BenchmarkFollowOneBusy follows 64 partitions, of which one gets many events at once. The
// reader delivers them, because no consumer was behind it.
func BenchmarkFollowOneBusy(b *testing.B) {
	const partitions, n = 64, 50_000
	url := redistest.URL(b)
	client := redistest.Connect(b, url)
	l := open(b, streams.Config{URL: url, Partitions: partitions})
	followIdle(b, l, 1, partitions)
	first := realistic(systemIn(l, 0), 1)
	mustAppend(b, l, first)
	entries, err := client.XRange(b.Context(), l.Topic(0), "-", "+").Result()
	if err != nil {
		b.Fatal(err)
	}
	fields := []any{n}
	for name, value := range entries[0].Values {
		fields = append(fields, name, value)
	}
	ctx, cancel := context.WithCancel(context.Background())
	got, done := 0, make(chan struct{})
	var following sync.WaitGroup
	following.Go(func() {
		_ = l.Follow(ctx, 0, entryAt(b, entries[0].ID), func(events []domain.Event) error { // ctx ends it
			if got += len(events); got%n == 0 {
				done <- struct{}{}
			}
			return nil
		})
	})
	for b.Loop() {
		const add = `for i = 1, ARGV[1] do redis.call('XADD', KEYS[1], '*', unpack(ARGV, 2)) end`
		b.StopTimer() // the script's entries appear only when it ends
		if err := client.Eval(b.Context(), add, []string{l.Topic(0)}, fields...).Err(); err != nil && !errors.Is(err, redis.Nil) {
			b.Fatal(err)
		}
		b.StartTimer()
		<-done
	}
	perSecond(b, n)
	cancel()
	following.Wait()
}

func entryAt(b *testing.B, id string) domain.Position {
	b.Helper()
	at, err := domain.ParsePosition(id)
	if err != nil {
		b.Fatal(err)
	}
	return at
}
