package ratelimit

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/streams/redisserver/redistest"
)

func TestMain(m *testing.M) { redistest.Main(m) }

func newLimiter(t *testing.T, config Config) *Limiter {
	client := redistest.Connect(t, redistest.URL(t))
	return New(client, "test", config, slog.New(slog.DiscardHandler))
}

func TestAllow(t *testing.T) {
	t.Parallel()
	l := newLimiter(t, Config{domain.FlowJoins: {PerSecond: 1, Burst: 3}, domain.FlowDeviceUpdates: {PerSecond: 1, Burst: 10}})
	ctx := context.Background()
	for i := range 3 {
		if d := l.decide(ctx, domain.FlowJoins, "clinica-sol", 1); !d.Allowed || d.Remaining != 2-i {
			t.Fatalf("join %d: %+v", i, d)
		}
	}
	if d := l.decide(ctx, domain.FlowJoins, "clinica-sol", 1); d.Allowed || d.RetryAfter <= 0 || d.RetryAfter > time.Second {
		t.Errorf("beyond the burst: %+v", d)
	}
	if d := l.decide(ctx, domain.FlowJoins, "centro-luna", 1); !d.Allowed {
		t.Errorf("another system pays for the first: %+v", d)
	}
	if d := l.decide(ctx, domain.FlowRequests, "clinica-sol", 1); !d.Allowed {
		t.Errorf("a flow without a limit: %+v", d)
	}
}

// A flood of refused requests costs Redis next to nothing, a smaller request is not refused
// because a larger one was, and requests are allowed once the time has passed.
func TestRefusalsAreRemembered(t *testing.T) {
	t.Parallel()
	client := redistest.Connect(t, redistest.New(t).URL()) // a private server, because the test counts its commands
	l := New(client, "test", Config{domain.FlowDeviceUpdates: {PerSecond: 10, Burst: 10}}, slog.New(slog.DiscardHandler))
	asked := func() (calls int) {
		info, err := client.Info(t.Context(), "commandstats").Result()
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(info) {
			if name, rest, _ := strings.Cut(line, ":calls="); strings.HasPrefix(name, "cmdstat_eval") {
				n, _, _ := strings.Cut(rest, ",")
				of, _ := strconv.Atoi(n)
				calls += of
			}
		}
		return calls
	}
	if d := l.decide(t.Context(), domain.FlowDeviceUpdates, "clinica-sol", 8); !d.Allowed {
		t.Fatalf("%+v", d)
	}
	before := asked()
	for range 100 {
		if d := l.decide(t.Context(), domain.FlowDeviceUpdates, "clinica-sol", 9); d.Allowed || d.RetryAfter <= 0 {
			t.Fatalf("%+v", d)
		}
	}
	if n := asked() - before; n > 3 {
		t.Errorf("Redis was asked %d times", n)
	}
	if d := l.decide(t.Context(), domain.FlowDeviceUpdates, "clinica-sol", 1); !d.Allowed {
		t.Errorf("one update must wait for a batch: %+v", d)
	}
	for tries := 0; ; tries++ {
		d := l.decide(t.Context(), domain.FlowDeviceUpdates, "clinica-sol", 9)
		if d.Allowed {
			break
		}
		if tries == 20 {
			t.Fatalf("refused for good: %+v", d)
		}
		<-time.After(d.RetryAfter)
	}
}

// A remembered refusal reports the same end of the wait as the refusal of Redis, although it is
// used for less time.
func TestRefusalsTellTheWholeWait(t *testing.T) {
	t.Parallel()
	l := newLimiter(t, Config{domain.FlowDeviceUpdates: {PerSecond: 1, Burst: 3600}})
	if d := l.decide(t.Context(), domain.FlowDeviceUpdates, "clinica-sol", 3600); !d.Allowed {
		t.Fatalf("%+v", d)
	}
	const most = time.Hour
	for i := range 3 {
		// An hour, less what has passed: a slow machine does not take half of that.
		if d := l.decide(t.Context(), domain.FlowDeviceUpdates, "clinica-sol", 3600); d.Allowed || d.RetryAfter > most || d.RetryAfter < most/2 {
			t.Errorf("refusal %d: %+v", i, d)
		}
	}
}

// The limiter remembers a bounded number of refusals.
func TestRefusalsAreBounded(t *testing.T) {
	t.Parallel()
	var r refusals
	now := time.Now()
	for i := range maxRefusals + 100 {
		r.add(fmt.Sprint(i), 1, 0, now, time.Hour)
	}
	if len(r.byKey) != maxRefusals {
		t.Errorf("%d are remembered", len(r.byKey))
	}
	if _, ok := r.find("0", 1, now.Add(maxTrust)); ok {
		t.Error("trusted for longer than a second")
	}
	r.add("new", 1, 0, now.Add(maxTrust), time.Hour)
	if _, ok := r.find("new", 1, now.Add(maxTrust)); !ok || len(r.byKey) != 1 {
		t.Errorf("expired refusals keep out new ones: %d", len(r.byKey))
	}
}

// A batch is allowed as a whole or not at all, and a batch above the burst passes when the
// bucket is full.
func TestAllowBatch(t *testing.T) {
	t.Parallel()
	l := newLimiter(t, Config{domain.FlowDeviceUpdates: {PerSecond: 1, Burst: 10}})
	ctx := context.Background()
	if d := l.decide(ctx, domain.FlowDeviceUpdates, "clinica-sol", 7); !d.Allowed || d.Remaining != 3 {
		t.Fatalf("%+v", d)
	}
	if d := l.decide(ctx, domain.FlowDeviceUpdates, "clinica-sol", 4); d.Allowed {
		t.Errorf("4 of 3: %+v", d)
	}
	if d := l.decide(ctx, domain.FlowDeviceUpdates, "clinica-sol", 3); !d.Allowed {
		t.Errorf("a refused batch must take nothing: %+v", d)
	}
	if d := l.decide(ctx, domain.FlowDeviceUpdates, "centro-luna", 1000); !d.Allowed {
		t.Errorf("over the burst with a full bucket: %+v", d)
	}
}

func TestAllowWithoutRedis(t *testing.T) {
	t.Parallel()
	server := redistest.New(t)
	client := redistest.Connect(t, server.URL())
	l := New(client, "test", Defaults(), slog.New(slog.DiscardHandler))
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	if d := l.decide(context.Background(), domain.FlowJoins, "clinica-sol", 1); !d.Allowed {
		t.Errorf("refused while Redis is away: %+v", d)
	}
}

// A batch for several systems takes from all or from none: repeating a refused batch must not
// use up the tokens of the other systems.
func TestAllowAll(t *testing.T) {
	t.Parallel()
	l := newLimiter(t, Config{domain.FlowDeviceUpdates: {PerSecond: 1, Burst: 10}})
	ctx := context.Background()
	all := func(counts map[domain.SystemID]int, want domain.SystemID) {
		t.Helper()
		refused, wait := l.AllowAll(ctx, domain.FlowDeviceUpdates, counts)
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
	all(map[domain.SystemID]int{"of its own": 1000}, "") // a cost above the burst counts as the whole burst
	all(map[domain.SystemID]int{"new": 1000, "of its own": 1000}, "of its own")
}
