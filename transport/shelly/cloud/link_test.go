package cloud

import (
	"context"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/testpeer/shellycloud"
)

func TestFaultCasesLink(t *testing.T) {
	t.Parallel()
	begin := func(t *testing.T, change ...func(*Config)) (*bench, *shellycloud.Account, *shellycloud.Device) {
		cfg := quick()
		for _, f := range change {
			f(&cfg)
		}
		b := newBench(t, cfg, shellycloud.Config{})
		a, d := b.account(sol, "acc1")
		b.run(b.supervisor)
		b.connected(sol, "acc1")
		return b, a, d
	}
	acc1 := domain.ConnectionRef{System: sol, ID: "acc1"}
	again := func(b *bench, a *shellycloud.Account, dials int) {
		b.t.Helper()
		b.eventually("there is another socket", func() bool { return a.Counts().Dials >= dials && a.Counts().Sockets == 1 })
		b.eventually("it is connected", func() bool { return b.supervisor.Stats()[domain.StateConnected] == 1 })
	}

	t.Run("half-open (no pong)", func(t *testing.T) {
		t.Parallel()
		b, a, d := begin(t, func(c *Config) { c.PingEvery = 20 * time.Millisecond })
		a.Deaf(true)
		b.eventually("it is noticed", func() bool { return b.log.connection(sol, "acc1").State == domain.StateDisconnected })
		if reason := b.log.said("acc1")[1].Reason; reason != reasonNoPong {
			t.Errorf("the reason is %q", reason)
		}
		a.Deaf(false)
		again(b, a, 2)
		d.Press(0, true)
		b.relay(sol, plug, true)
	})
	t.Run("close during handshake", func(t *testing.T) {
		t.Parallel()
		b := newBench(t, quick(), shellycloud.Config{})
		var closed atomic.Int32
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, "/shelly/wss") && closed.Add(1) <= 3 {
				if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
					_ = conn.Close()
				}
				return
			}
			b.cloud.ServeHTTP(w, r)
		}))
		t.Cleanup(server.Close)
		b.url = server.URL
		a, _ := b.account(sol, "acc1")
		b.run(b.supervisor)
		b.connected(sol, "acc1")
		want := []domain.ConnectionState{domain.StateDisconnected, domain.StateConnected}
		if got := b.states("acc1"); !slices.Equal(got, want) || a.Counts().Exchanges != 1 {
			t.Errorf("states are %v, after %d exchanges", got, a.Counts().Exchanges)
		}
	})
	t.Run("backoff reset only after 60 s", func(t *testing.T) {
		t.Parallel()
		b := newBackoff(Config{}.withDefaults())
		b.Rand = func() float64 { return 1 }
		var waits []time.Duration
		for range 8 {
			waits = append(waits, b.Next()/time.Second)
			b.ResetIfStable(59 * time.Second) // let in, and thrown out
		}
		if want := []time.Duration{1, 2, 4, 8, 16, 32, 60, 60}; !slices.Equal(waits, want) {
			t.Errorf("waits are %v", waits)
		}
		b.ResetIfStable(60 * time.Second)
		if w := b.Next(); w != time.Second {
			t.Errorf("after a stable socket the wait is %s", w)
		}
	})
	t.Run("jitter across 1 000 credentials after a vendor outage", func(t *testing.T) {
		t.Parallel()
		random := rand.New(rand.NewPCG(1, 2))
		perSecond := map[time.Duration]int{}
		const credentials = 1000
		for range credentials {
			b := newBackoff(Config{}.withDefaults())
			b.Rand = random.Float64
			at := time.Duration(0)
			for at < 10*time.Minute { // the outage
				at += b.Next()
			}
			perSecond[(at-10*time.Minute)/time.Second]++
		}
		for second, n := range perSecond {
			if n > credentials/20 {
				t.Errorf("%d of %d come back in second %d", n, credentials, second)
			}
		}
		if len(perSecond) < 40 {
			t.Errorf("all are back within %d seconds", len(perSecond))
		}
	})
	t.Run("disconnect while reconnecting", func(t *testing.T) {
		t.Parallel()
		b, a, _ := begin(t, func(c *Config) { c.BackoffMin, c.BackoffMax = time.Hour, time.Hour })
		a.BreakSockets()
		b.eventually("it waits to reconnect", func() bool { return b.log.connection(sol, "acc1").State == domain.StateDisconnected })
		if n := b.supervisor.Drop(domain.ConnectionRef{System: sol, ID: "acc1"}, time.Now()); n != 0 {
			t.Errorf("%d sockets were dropped where there was none", n)
		}
		b.command(sol, domain.ConnectionStopped{ConnectionCommand: domain.ConnectionCommand{ConnectionID: "acc1", CommandID: "c"}})
		b.supervisor.Changed(0, acc1, domain.TypeConnectionStopped)
		b.eventually("it is stopped", func() bool { return len(b.supervisor.Stats()) == 0 })
		b.command(sol, domain.ConnectionStarted{ConnectionCommand: domain.ConnectionCommand{ConnectionID: "acc1", CommandID: "c"}})
		b.supervisor.Changed(0, acc1, domain.TypeConnectionStarted)
		again(b, a, 2)
		if n := b.supervisor.Drop(domain.ConnectionRef{System: sol, ID: "acc1"}, time.Now()); n != 1 {
			t.Errorf("%d sockets were dropped", n)
		}
		again(b, a, 3) // nobody stopped it
		if n := a.Counts().Most; n != 1 {
			t.Errorf("%d sockets at once", n)
		}
	})
	t.Run("double start", func(t *testing.T) {
		t.Parallel()
		b, a, d := begin(t)
		b.run(b.supervisor) // the same partition twice
		var starting sync.WaitGroup
		for range 8 {
			starting.Go(func() {
				for range 20 {
					b.supervisor.Changed(0, acc1, domain.TypeConnectionStarted)
					b.supervisor.Changed(0, acc1, domain.TypeConnectionCreated)
				}
			})
		}
		starting.Wait()
		d.Press(0, true)
		b.relay(sol, plug, true)
		if c := a.Counts(); c.Most != 1 || c.Dials != 1 {
			t.Errorf("%d sockets at once, %d dialled", c.Most, c.Dials)
		}
	})
	t.Run("restart during refresh", func(t *testing.T) {
		t.Parallel()
		b := newBench(t, quick(), shellycloud.Config{TokenLife: 40 * time.Millisecond})
		a, d := b.account(sol, "acc1")
		b.run(b.supervisor)
		b.connected(sol, "acc1")
		for n := range 20 {
			b.supervisor.Changed(0, acc1, domain.TypeConnectionRestarted)
			if n%3 == 0 {
				b.supervisor.Drop(domain.ConnectionRef{System: sol, ID: "acc1"}, time.Now())
			}
			before := a.Counts().Dials
			b.eventually("there is another socket", func() bool { return a.Counts().Dials > before })
		}
		d.Press(0, true)
		b.relay(sol, plug, true)
		if n := a.Counts().Most; n != 1 {
			t.Errorf("%d sockets at once", n)
		}
	})
	t.Run("one tenant's drop leaves others untouched", func(t *testing.T) {
		t.Parallel()
		b := newBench(t, quick(), shellycloud.Config{})
		one, d1 := b.account(sol, "acc1")
		two, d2 := b.account(luna, "acc2")
		b.run(b.supervisor)
		b.connected(sol, "acc1")
		b.connected(luna, "acc2")
		d1.Press(0, true)
		d2.Press(0, true)
		b.relay(sol, plug, true)
		b.relay(luna, plug, true)
		events := len(b.log.all())
		one.Revoke()
		one.BreakSockets()
		b.eventually("the one is refused", func() bool { return b.log.connection(sol, "acc1").State == domain.StateRefused })
		d2.Press(0, false)
		b.relay(luna, plug, false)
		if c := two.Counts(); c.Dials != 1 {
			t.Errorf("the other was dialled %d times", c.Dials)
		}
		for _, e := range b.log.all()[events:] {
			if e.SystemID == sol && e.Type != domain.TypeConnectionStateChanged || e.SystemID == luna && e.Type != domain.TypeDeviceUpdate {
				t.Errorf("%s of %s was appended", e.Type, e.SystemID)
			}
		}
		if got := b.log.device(sol, plug); !*got.RelayOn || !*got.Online {
			t.Errorf("a dropped credential changed a device: %+v", got)
		}
		if slices.ContainsFunc(b.beats.all(), func(s string) bool { return strings.HasSuffix(s, "false") }) {
			t.Errorf("a device was reported silent: %v", b.beats.all())
		}
	})
	t.Run("slow consumer", func(t *testing.T) {
		t.Parallel()
		b, a, d := begin(t, func(c *Config) { c.Inbox, c.StallAfter = 4, 30*time.Millisecond })
		release := b.log.hold()
		defer release()
		for i := range 2000 {
			d.Press(0, i%2 == 1)
		}
		d.Press(0, true)
		b.eventually("the socket is closed", func() bool { return a.Counts().Dials > 1 })
		release()
		again(b, a, 2)
		b.relay(sol, plug, true)
		b.eventually("the stall is told", func() bool { return len(b.states("acc1")) >= 3 || b.states("acc1")[0] == domain.StateConnected })
		if got := b.log.said("acc1"); len(got) > 1 && got[1].Reason != reasonStalled {
			t.Errorf("the reason is %q", got[1].Reason)
		}
	})
	t.Run("flood 600/min", func(t *testing.T) {
		t.Parallel()
		b, _, d := begin(t)
		d.SetPartial(true)
		for i := range 601 {
			d.Press(0, i%2 == 0)
		}
		b.eventually("each change of the relay is in the log", func() bool { return len(b.log.updates(sol, plug)) > 601 })
		b.relay(sol, plug, true)
	})
}

// Another process takes over from an owner that was killed, or that has lost the partition
// and still runs for a moment.
func TestTakeover(t *testing.T) {
	t.Parallel()
	cfg := quick()
	cfg.TakeoverDelay = 200 * time.Millisecond
	b := newBench(t, cfg, shellycloud.Config{})
	a, d := b.account(sol, "acc1")
	stop := b.run(b.supervisor)
	b.connected(sol, "acc1")
	second := b.another(cfg)
	begun := time.Now()
	b.run(second)
	stop()
	stopped := time.Since(begun)
	b.eventually("there is no socket", func() bool { return a.Counts().Sockets == 0 })
	d.Press(0, true) // nobody hears it
	d.Count(0, 12)
	b.eventually("the other has it", func() bool { return second.Stats()[domain.StateConnected] == 1 })
	b.relay(sol, plug, true)
	if got := b.log.device(sol, plug); *got.CounterWh != 12 {
		t.Errorf("the counter is %v", *got.CounterWh)
	}
	if c := a.Counts(); c.Most != 1 && stopped < cfg.TakeoverDelay {
		t.Errorf("%d sockets at once", c.Most)
	}
	if got := b.states("acc1"); len(got) != 1 {
		t.Errorf("a takeover was reported as %v", got)
	}
}

func TestStateIsSaidOncePerChange(t *testing.T) {
	t.Parallel()
	b := newBench(t, quick(), shellycloud.Config{})
	a, _ := b.account(sol, "acc1")
	b.cloud.Outage(true)
	stop := b.run(b.supervisor)
	b.eventually("the outage is told", func() bool { return len(b.states("acc1")) == 1 })
	stop()
	// Another owner has nothing new to report, also after a long outage.
	next := b.another(quick())
	stop = b.run(next)
	b.eventually("it was tried often", func() bool { return strings.Count(b.output.String(), "answered 503") > 10 })
	if got := b.states("acc1"); !slices.Equal(got, []domain.ConnectionState{domain.StateDisconnected}) {
		t.Errorf("states are %v", got)
	}
	b.cloud.Outage(false)
	b.connected(sol, "acc1")
	stop()
	if a.Counts().Sockets != 0 {
		t.Error("a supervisor that has ended has a socket")
	}
}

func TestStoppedAndDeleted(t *testing.T) {
	t.Parallel()
	b := newBench(t, quick(), shellycloud.Config{})
	a, _ := b.account(sol, "acc1")
	acc1 := domain.ConnectionRef{System: sol, ID: "acc1"}
	command := domain.ConnectionCommand{ConnectionID: "acc1", CommandID: "c"}
	b.command(sol, domain.ConnectionStopped{ConnectionCommand: command})
	b.supervisor.Changed(0, acc1, domain.TypeConnectionStopped) // not ours yet
	b.run(b.supervisor)
	b.command(sol, domain.ConnectionCreated{ConnectionID: "key1", Kind: domain.ConnectionShellyOutbound})
	b.eventually("what is stopped stays so", func() bool {
		b.supervisor.Changed(0, domain.ConnectionRef{System: sol, ID: "key1"}, domain.TypeConnectionCreated)
		b.supervisor.mu.Lock()
		defer b.supervisor.mu.Unlock()
		return b.supervisor.workers[sol]["acc1"] != nil && b.supervisor.workers[sol]["key1"] != nil
	})
	if a.Counts().Dials != 0 {
		t.Error("a stopped connection was dialled")
	}
	b.command(sol, domain.ConnectionStarted{ConnectionCommand: command})
	b.supervisor.Changed(0, acc1, domain.TypeConnectionStarted)
	b.connected(sol, "acc1")
	b.command(sol, domain.ConnectionUpdated{ConnectionID: "acc1", CommandID: "c", Name: domain.Some("first floor")})
	b.supervisor.Changed(0, acc1, domain.TypeConnectionUpdated)
	if r := b.send(to(true, "cmd-1")); r.Outcome != domain.OutcomeCompleted || a.Counts().Dials != 1 {
		t.Errorf("a name was changed: %+v after %d dials", r, a.Counts().Dials)
	}
	b.command(sol, domain.ConnectionDeleted{ConnectionCommand: command})
	b.supervisor.Changed(0, acc1, domain.TypeConnectionDeleted)
	b.eventually("it is forgotten", func() bool {
		b.supervisor.mu.Lock()
		defer b.supervisor.mu.Unlock()
		return b.supervisor.workers[sol]["acc1"] == nil && a.Counts().Sockets == 0
	})
}

// A worker that panics as its process loses the partition makes room for another, so the
// connection runs again when the partition returns.
func TestWorkerThatPanicsAsThePartitionIsLost(t *testing.T) {
	t.Parallel()
	b := newBench(t, quick(), shellycloud.Config{})
	b.account(sol, "acc1")
	asked := make(chan struct{})
	panicked := false // the first call is over before the second
	b.supervisor.parts.Store = &hookedStore{Store: b.store, before: func(ctx context.Context) {
		if !panicked {
			panicked = true
			close(asked)
			<-ctx.Done()
			panic("as the partition is lost")
		}
	}}
	stop := b.run(b.supervisor)
	<-asked
	stop()
	b.run(b.supervisor)
	b.connected(sol, "acc1")
}

// A session may end by itself while its worker looks whether to replace it. The worker
// then starts another one at once, because nothing would wake it again.
func TestSessionEndsWhileItIsToBeReplaced(t *testing.T) {
	t.Parallel()
	b := newBench(t, quick(), shellycloud.Config{})
	a, _ := b.account(sol, "acc1")
	given := b.store.get("acc1")
	b.log.fail = domain.Invalid(domain.CodeInvalidUpdate, "no")
	release := b.log.hold()
	looking := make(chan struct{})
	b.supervisor.parts.Store = &hookedStore{Store: b.store, before: func(ctx context.Context) {
		close(looking)
		<-ctx.Done() // the session has ended
		b.store.put("acc1", Secret{AuthCode: a.NewAuthCode()})
	}}
	w := newWorker(b.supervisor, domain.ConnectionRef{System: sol, ID: "acc1"})
	c, err := b.store.Connection(t.Context(), sol, "acc1")
	if err != nil {
		t.Fatal(err)
	}
	signal(w.wake)
	go func() {
		<-looking
		release()
	}()
	if !w.serve(t.Context(), newSession(b.supervisor.env, c, given, nil, w.logger)) {
		t.Error("the worker waits, although the session is to be replaced")
	}
}

// hookedStore is a store that calls before ahead of each read of one connection.
type hookedStore struct {
	Store
	before func(context.Context)
}

func (s *hookedStore) Connection(ctx context.Context, system domain.SystemID, id domain.ConnectionID) (Connection, error) {
	s.before(ctx)
	return s.Store.Connection(ctx, system, id)
}

// When the log refuses updates for good, the devices' state here differs from the log: a
// new session loads it again.
func TestRefusedAppendStartsANewSession(t *testing.T) {
	t.Parallel()
	b := newBench(t, quick(), shellycloud.Config{})
	_, d := b.account(sol, "acc1")
	b.run(b.supervisor)
	b.connected(sol, "acc1")
	b.log.mu.Lock()
	b.log.fail = domain.Invalid(domain.CodeInvalidUpdate, "no")
	b.log.mu.Unlock()
	d.Press(0, true)
	b.eventually("it is refused", func() bool { return strings.Contains(b.output.String(), "updates are not appended") })
	b.log.mu.Lock()
	b.log.fail = nil
	b.log.mu.Unlock()
	b.relay(sol, plug, true)
}

// A server that never answers a request or a handshake does not delay the end of a session.
func TestHungServer(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"/oauth/auth", "/device/all_status", "/shelly/wss/hk_sock"} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			cfg := quick()
			cfg.RequestTimeout = time.Hour
			b := newBench(t, cfg, shellycloud.Config{})
			reached, release := make(chan struct{}, 8), make(chan struct{})
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == path {
					reached <- struct{}{}
					<-release
					return
				}
				b.cloud.ServeHTTP(w, r)
			}))
			t.Cleanup(server.Close)
			defer close(release)
			b.url = server.URL
			b.account(sol, "acc1")
			stop := b.run(b.supervisor)
			select {
			case <-reached:
			case <-time.After(patience):
				t.Fatal("the server is not asked")
			}
			stop()
		})
	}
}

// A session waits after a 429, and loses nothing.
func TestLimited(t *testing.T) {
	t.Parallel()
	b := newBench(t, quick(), shellycloud.Config{})
	a, d := b.account(sol, "acc1")
	a.LimitNext(1)
	b.run(b.supervisor)
	b.eventually("the code is exchanged", func() bool { return a.Counts().Exchanges == 2 })
	a.LimitNext(1)
	d.Press(0, true)
	b.connected(sol, "acc1")
	b.relay(sol, plug, true)
	if n := a.Counts().Dials; n != 1 {
		t.Errorf("the socket was dialled %d times", n)
	}
}
