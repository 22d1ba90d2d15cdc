package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/streams/redisserver/redistest"
	"github.com/plugcast/plugcast/transport/testpeer"
)

// The tests of this file run the platform as its users do: processes of their
// own on a Redis and a Postgres, clients over loopback.

// traffic publishes updates through HTTP and notes what was acknowledged.
type traffic struct {
	systems []domain.SystemID
	token   string
	base    func() string // where to publish; asked before each request

	perSystem []atomic.Uint64
}

func newTraffic(t testing.TB, systems int, base func() string) *traffic {
	tr := &traffic{base: base, token: testToken(t, domain.RoleService), perSystem: make([]atomic.Uint64, systems)}
	for i := range systems {
		tr.systems = append(tr.systems, domain.SystemID(fmt.Sprintf("centre-%02d", i)))
	}
	return tr
}

// publish sends one batch of n updates for one system. A batch whose outcome is
// not known is sent again under its key until it is, which must not double it.
func (tr *traffic) publish(ctx context.Context, system, n int) error {
	batch := make([]map[string]any, n)
	for i := range batch {
		batch[i] = map[string]any{
			"systemId": tr.systems[system], "deviceId": fmt.Sprintf("plug-%d", rand.IntN(8)),
			"online": true, "relayOn": rand.IntN(2) == 0, "powerW": rand.IntN(2000),
		}
	}
	body, err := json.Marshal(batch)
	if err != nil {
		return err
	}
	key := fmt.Sprintf("%d-%d", rand.Uint64(), rand.Uint64())
	for {
		status, _, answer, err := call(ctx, "POST", tr.base()+"/api/v1/device-updates", tr.token, body, "Idempotency-Key", key)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil && status == http.StatusOK:
			tr.perSystem[system].Add(uint64(n))
			return nil
		case err == nil && status < 500 && status != http.StatusTooManyRequests:
			return fmt.Errorf("publish: status %d: %s", status, answer)
		}
		pause(ctx, 50*time.Millisecond)
	}
}

// run publishes total updates with several callers at once, each system from one
// of them.
func (tr *traffic) run(t *testing.T, total, batch int) {
	t.Helper()
	const callers = 4
	var left atomic.Int64
	left.Store(int64(total))
	var group sync.WaitGroup
	for c := range callers {
		group.Go(func() {
			for i := c; left.Add(-int64(batch)) >= 0; i += callers {
				if err := tr.publish(t.Context(), i%len(tr.systems), batch); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
}

// audience is sockets that follow systems to the end.
type audience struct {
	sockets []*socket
	conns   sync.Map // *socket -> *websocket.Conn
	until   []atomic.Uint64
	group   sync.WaitGroup
}

// gather opens n sockets, spread over the traffic's systems.
func gather(t *testing.T, tr *traffic, n int, base func() string) *audience {
	t.Helper()
	a := &audience{until: make([]atomic.Uint64, len(tr.systems))}
	token := testToken(t, domain.RoleViewer)
	var opened atomic.Int64
	for i := range n {
		s := &socket{system: tr.systems[i%len(tr.systems)]}
		a.sockets = append(a.sockets, s)
		var once sync.Once
		a.group.Go(func() {
			s.stay(t.Context(), base, token, a.until[i%len(tr.systems)].Load, func(conn *websocket.Conn) {
				a.conns.Store(s, conn)
				once.Do(func() { opened.Add(1) })
			})
		})
	}
	testpeer.Eventually(t, "all sockets to be open", func() bool { return opened.Load() == int64(n) })
	return a
}

// cut closes a random socket's connection under it.
func (a *audience) cut() {
	s := a.sockets[rand.IntN(len(a.sockets))]
	if conn, ok := a.conns.Load(s); ok {
		_ = conn.(*websocket.Conn).NetConn().Close()
	}
}

// finish tells the sockets how far their systems went, waits until each has all
// of it, and reports what was wrong with any.
func (a *audience) finish(t *testing.T, tr *traffic) {
	t.Helper()
	for i := range tr.perSystem {
		a.until[i].Store(tr.perSystem[i].Load())
	}
	ended := make(chan struct{})
	go func() {
		a.group.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(2 * time.Minute):
		for _, s := range a.sockets {
			if want := a.until[indexOf(tr.systems, s.system)].Load(); s.last().seq < want {
				t.Errorf("a socket of %s waits at seq %d of %d", s.system, s.last().seq, want)
			}
		}
		t.Fatal("the sockets did not get everything")
	}
	for i, s := range a.sockets {
		if len(s.faults) > 0 {
			t.Errorf("socket %d of %s: %s", i, s.system, strings.Join(s.faults, "; "))
		}
	}
}

func indexOf(systems []domain.SystemID, system domain.SystemID) int {
	for i := range systems {
		if systems[i] == system {
			return i
		}
	}
	return -1
}

// history reads a system's archived events over HTTP, page by page.
func history(t *testing.T, base string, system domain.SystemID) []domain.Event {
	t.Helper()
	token := testToken(t, domain.RoleAuditor, system)
	var all []domain.Event
	after := domain.Position{}
	for {
		var page struct {
			Events []domain.Event `json:"events"`
		}
		url := fmt.Sprintf("%s/api/v1/systems/%s/events?limit=1000&after=%s", base, system, after)
		mustCall(t, http.StatusOK, "GET", url, token, nil, &page)
		if len(page.Events) == 0 {
			return all
		}
		all = append(all, page.Events...)
		after = all[len(all)-1].Position
	}
}

// check compares what every socket got with history, and history with what was
// acknowledged, and verifies the hash chains.
func (a *audience) check(t *testing.T, d *deployment, tr *traffic, base string) {
	t.Helper()
	for i, system := range tr.systems {
		want := tr.perSystem[i].Load()
		testpeer.Eventually(t, "history to have everything", func() bool {
			var page struct {
				Events []domain.Event `json:"events"`
			}
			url := fmt.Sprintf("%s/api/v1/systems/%s/events?limit=1&order=desc", base, system)
			mustCall(t, http.StatusOK, "GET", url, testToken(t, domain.RoleAuditor, system), nil, &page)
			return want == 0 || len(page.Events) == 1 && page.Events[0].Seq >= want
		})
		events := history(t, base, system)
		if uint64(len(events)) != want {
			t.Errorf("history of %s has %d events, %d were acknowledged", system, len(events), want)
		}
		ids := map[string]bool{}
		for n, e := range events {
			if ids[e.ID] || e.Seq != uint64(n+1) {
				t.Fatalf("history of %s: event %d is %s with seq %d (seen before: %v)", system, n, e.ID, e.Seq, ids[e.ID])
			}
			ids[e.ID] = true
		}
		for _, s := range a.sockets {
			if s.system == system {
				sameAsHistory(t, s, events)
			}
		}
		d.verify(t, system)
	}
}

func sameAsHistory(t *testing.T, s *socket, events []domain.Event) {
	t.Helper()
	if len(s.got) != len(events) {
		t.Errorf("a socket of %s got %d events of %d", s.system, len(s.got), len(events))
		return
	}
	for i, got := range s.got {
		if got.position != events[i].Position || got.seq != events[i].Seq {
			t.Errorf("a socket of %s got %v as event %d, history has %s", s.system, got, i, events[i].Cursor())
			return
		}
	}
}

// command runs a plugcast command against the deployment and returns what it
// printed.
func (d *deployment) command(t *testing.T, args ...string) string {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	run := exec.CommandContext(t.Context(), path, args...)
	run.Env = d.env
	var stderr bytes.Buffer
	run.Stderr = &stderr
	out, err := run.Output()
	if err != nil {
		t.Fatalf("plugcast %s: %v: %s", strings.Join(args, " "), err, stderr.String())
	}
	return string(out)
}

func (d *deployment) verify(t *testing.T, system domain.SystemID) {
	t.Helper()
	d.command(t, "verify", "--system", string(system))
}

// Publish at one process, receive at the other: every socket has each event of
// its own system once and in order, history has the same, and the read models
// can be made again from it.
func TestTwoProcessesAreOnePlatform(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	first, second := d.start(t, ""), d.start(t, "")
	tr := newTraffic(t, 20, func() string { return first.base })
	audience := gather(t, tr, 200, func() string { return second.base })
	events := 100_000
	if testing.Short() {
		events = 20_000
	}
	tr.run(t, events, 500)
	audience.finish(t, tr)
	audience.check(t, d, tr, first.base)

	before := d.readModels(t)
	d.command(t, "rebuild")
	if after := d.readModels(t); before != after {
		t.Errorf("rebuilt rows differ:\nbefore %.2000s\nafter  %.2000s", before, after)
	}
}

// Sockets are cut at random; a gateway, the owner of the partitions, and Redis
// are killed and started again, while updates flow.
func TestNothingIsLostWhenProcessesAreKilled(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	gatewayAddress, otherAddress := freeAddress(t), freeAddress(t)
	gateway := d.start(t, gatewayAddress, "--roles", "gateway")
	other := d.start(t, otherAddress, "--roles", "gateway")
	worker := d.start(t, "", "--roles", "worker")
	tr := newTraffic(t, 8, func() string { return other.base })
	audience := gather(t, tr, 64, func() string { return "http://" + gatewayAddress })

	stop := make(chan struct{})
	var publishers sync.WaitGroup
	for c := range 4 {
		publishers.Go(func() {
			for i := c; ; i += 4 {
				select {
				case <-stop:
					return
				default:
				}
				if err := tr.publish(t.Context(), i%len(tr.systems), 1+rand.IntN(20)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	flow := func(events uint64) {
		t.Helper()
		from := tr.total()
		testpeer.Eventually(t, "updates to flow", func() bool {
			audience.cut()
			return tr.total() >= from+events
		})
	}
	flow(500)
	gateway.kill()
	flow(500)
	d.start(t, gatewayAddress, "--roles", "gateway")
	flow(500)
	worker.kill()
	flow(500)
	d.start(t, "", "--roles", "worker")
	flow(500)
	d.redis = redistest.Restart(t, d.redis)
	flow(500)
	close(stop)
	publishers.Wait()
	audience.finish(t, tr)
	audience.check(t, d, tr, other.base)
}

func (tr *traffic) total() (n uint64) {
	for i := range tr.perSystem {
		n += tr.perSystem[i].Load()
	}
	return n
}
