package limits

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/streams/redisserver/redistest"
)

func TestMain(m *testing.M) { redistest.Main(m) }

func newLimiter(t *testing.T, config Config) *Limiter {
	options, err := redis.ParseURL(redistest.URL(t))
	if err != nil {
		t.Fatal(err)
	}
	client := redis.NewClient(options)
	t.Cleanup(func() { _ = client.Close() })
	return New(client, "test", config, slog.New(slog.DiscardHandler))
}

func TestAllow(t *testing.T) {
	t.Parallel()
	l := newLimiter(t, Config{Joins: {PerSecond: 1, Burst: 3}, DeviceUpdates: {PerSecond: 1, Burst: 10}})
	ctx := context.Background()
	for i := range 3 {
		if d := l.Allow(ctx, Joins, "clinica-sol", 1); !d.Allowed || d.Remaining != 2-i {
			t.Fatalf("join %d: %+v", i, d)
		}
	}
	if d := l.Allow(ctx, Joins, "clinica-sol", 1); d.Allowed || d.RetryAfter <= 0 || d.RetryAfter > time.Second {
		t.Errorf("beyond the burst: %+v", d)
	}
	if d := l.Allow(ctx, Joins, "centro-luna", 1); !d.Allowed {
		t.Errorf("another system pays for the first: %+v", d)
	}
	if d := l.Allow(ctx, Requests, "clinica-sol", 1); !d.Allowed {
		t.Errorf("a flow without a limit: %+v", d)
	}
}

// All or nothing; and a batch over the burst passes when the bucket is full.
func TestAllowBatch(t *testing.T) {
	t.Parallel()
	l := newLimiter(t, Config{DeviceUpdates: {PerSecond: 1, Burst: 10}})
	ctx := context.Background()
	if d := l.Allow(ctx, DeviceUpdates, "clinica-sol", 7); !d.Allowed || d.Remaining != 3 {
		t.Fatalf("%+v", d)
	}
	if d := l.Allow(ctx, DeviceUpdates, "clinica-sol", 4); d.Allowed {
		t.Errorf("4 of 3: %+v", d)
	}
	if d := l.Allow(ctx, DeviceUpdates, "clinica-sol", 3); !d.Allowed {
		t.Errorf("a refused batch must take nothing: %+v", d)
	}
	if d := l.Allow(ctx, DeviceUpdates, "centro-luna", 1000); !d.Allowed {
		t.Errorf("over the burst with a full bucket: %+v", d)
	}
}

func TestAllowWithoutRedis(t *testing.T) {
	t.Parallel()
	server := redistest.New(t)
	options, err := redis.ParseURL(server.URL())
	if err != nil {
		t.Fatal(err)
	}
	client := redis.NewClient(options)
	defer client.Close()
	l := New(client, "test", Defaults(), slog.New(slog.DiscardHandler))
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	if d := l.Allow(context.Background(), Joins, "clinica-sol", 1); !d.Allowed {
		t.Errorf("a dead guard closed the house: %+v", d)
	}
}

// A batch for several systems takes from all or from none: repeats of one that is
// refused must not use up what the other systems have.
func TestAllowAll(t *testing.T) {
	t.Parallel()
	l := newLimiter(t, Config{DeviceUpdates: {PerSecond: 1, Burst: 10}})
	ctx := context.Background()
	all := func(counts map[domain.SystemID]int, want domain.SystemID) {
		t.Helper()
		refused, wait := l.AllowAll(ctx, DeviceUpdates, counts)
		if refused != want || (wait > 0) != (want != "") || wait > 10*time.Second {
			t.Fatalf("refused %q for %v", refused, wait)
		}
	}
	all(map[domain.SystemID]int{"clinica-sol": 5, "centro-luna": 8}, "")
	for range 20 {
		all(map[domain.SystemID]int{"clinica-sol": 4, "centro-luna": 4, "another": 4}, "centro-luna")
	}
	all(map[domain.SystemID]int{"clinica-sol": 5, "another": 10}, "")
	all(map[domain.SystemID]int{"clinica-sol": 5}, "clinica-sol")
	all(map[domain.SystemID]int{"of its own": 1000}, "") // more than the burst is the whole burst
	all(map[domain.SystemID]int{"new": 1000, "of its own": 1000}, "of its own")
}
