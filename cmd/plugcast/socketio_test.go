package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/testpeer"
	"github.com/plugcast/plugcast/transport/testpeer/conformance"
	"github.com/plugcast/plugcast/transport/testpeer/netcut"
)

// oldApplication is an unmodified socket.io-client application and what it reported.
type oldApplication struct {
	name string

	mu       sync.Mutex
	seqs     []int64 // of the events that it got, in order
	connects int
	opened   []string // transports
	upgrades int
	refused  []string
	story    []string // of its connections
}

func observe(name string, reports <-chan conformance.AppReport, until <-chan struct{}) *oldApplication {
	a := &oldApplication{name: name}
	go func() {
		for {
			select {
			case <-until:
				return
			case r, ok := <-reports:
				if !ok {
					return
				}
				a.take(r)
			}
		}
	}()
	return a
}

func (a *oldApplication) take(r conformance.AppReport) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if r.Kind != "event" {
		a.story = append(a.story, fmt.Sprint(time.Now().Format("15:04:05.000 "), r.Kind, " ", r.Transport, r.Reason))
	}
	switch r.Kind {
	case "event":
		if r.Event != "connection-status" {
			a.seqs = append(a.seqs, r.Seq)
		}
	case "connect":
		a.connects++
	case "open":
		a.opened = append(a.opened, r.Transport)
	case "upgrade":
		a.upgrades++
	case "connect_error":
		a.refused = append(a.refused, r.Reason)
	}
}

func (a *oldApplication) connected() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.connects
}

func (a *oldApplication) last() int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.seqs) == 0 {
		return 0
	}
	return a.seqs[len(a.seqs)-1]
}

// tell logs what became of its connections last, when the test has failed.
func (a *oldApplication) tell(t *testing.T) {
	if t.Failed() {
		a.mu.Lock()
		defer a.mu.Unlock()
		t.Logf("%s:\n%s", a.name, strings.Join(a.story[max(0, len(a.story)-20):], "\n"))
	}
}

// check fails unless the application got each event once and in order, up to last.
func (a *oldApplication) check(t *testing.T, last int64) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	for i, seq := range a.seqs {
		if i > 0 && seq != a.seqs[i-1]+1 {
			t.Errorf("%s: event %d after %d", a.name, seq, a.seqs[i-1])
		}
	}
	if n := len(a.seqs); n == 0 || a.seqs[n-1] != last {
		t.Errorf("%s: got %d events, and the last is not %d", a.name, n, last)
	}
}

// ticker publishes updates of one plug until it is stopped, whatever happens to
// the server.
type ticker struct {
	appended atomic.Int64
	stop     context.CancelFunc
	stopped  chan struct{}
}

func tick(t *testing.T, base func() string, system domain.SystemID) *ticker {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	k := &ticker{stop: cancel, stopped: make(chan struct{})}
	token := testToken(t, domain.RoleService, system)
	go func() {
		defer close(k.stopped)
		for n := 0; ctx.Err() == nil; n++ {
			body := []any{map[string]any{"systemId": system, "deviceId": "shellyplugsg3-0000000000aa", "powerW": n}}
			for {
				// The last one is finished as well: what was counted was appended.
				attempt, done := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
				status, _, _, err := call(attempt, "POST", base()+"/api/v1/device-updates", token, body, "Idempotency-Key", fmt.Sprint(system, n))
				done()
				if err == nil && status == http.StatusOK {
					k.appended.Add(1)
					break
				}
				if t.Context().Err() != nil {
					return
				}
				pause(t.Context(), 20*time.Millisecond)
			}
			pause(ctx, 10*time.Millisecond)
		}
	}()
	t.Cleanup(func() { k.end() })
	return k
}

// end stops publishing, and returns how many events there are.
func (k *ticker) end() int64 {
	k.stop()
	<-k.stopped
	return k.appended.Load()
}

// An application of the old system, with not a line for it, gets each event once
// while its connection is cut again and again and its server is killed.
func TestUnmodifiedApplications(t *testing.T) {
	t.Parallel()
	const system, cuts, kills, most = "clinica-vieja", 50, 5, 150
	d, address := newDeployment(t), freeAddress(t)
	page := conformance.ServePage(t)
	arguments := []string{"--allowed-origins", page.URL}
	n := d.start(t, address, arguments...)
	network := netcut.New(t, address)
	app := conformance.AppConfig{URL: network.URL(), Token: testToken(t, domain.RoleViewer, system), System: system}
	apps := []*oldApplication{
		observe("node", conformance.NodeApp(t, app), t.Context().Done()), observe("browser", page.Reports, t.Context().Done()),
	}
	for _, a := range apps {
		t.Cleanup(func() { a.tell(t) })
	}
	page.Browse(t, app)
	events := tick(t, func() string { return "http://" + address }, system)
	for _, a := range apps {
		testpeer.Eventually(t, a.name+" to get an event", func() bool { return a.last() > 0 })
	}
	killAt := rand.Perm(cuts)[:kills]
	// A cut between two polls may pass unnoticed, so there may be more.
	for i := 0; i < most && (i < cuts || apps[0].connected() <= cuts || apps[1].connected() <= cuts); i++ {
		before := []int{apps[0].connected(), apps[1].connected()}
		pause(t.Context(), time.Duration(rand.IntN(200))*time.Millisecond)
		if slices.Contains(killAt, i) {
			n.kill()
		}
		network.Cut()
		network.Mend()
		if slices.Contains(killAt, i) {
			n = d.start(t, address, arguments...)
		}
		since := events.appended.Load() + 1 // what comes behind is sent after the cut
		for j, a := range apps {
			// Cut while it upgrades, engine.io-client 6.6 may hang until its ping timeout,
			// 45 s after it connected: it does not begin to poll again.
			testpeer.Within(t, 2*time.Minute, a.name+" to come back", func() bool {
				return a.connected() > before[j] || a.last() > since
			})
		}
	}
	last := events.end()
	for _, a := range apps {
		testpeer.Eventually(t, a.name+" to have all events", func() bool { return a.last() >= last })
		a.check(t, last)
		if a.connects <= cuts {
			t.Errorf("%s was cut off %d times only", a.name, a.connects-1)
		}
		if !slices.Contains(a.opened, "polling") || a.upgrades == 0 ||
			len(a.refused) > 0 && !allOf(a.refused, "xhr poll error", "timeout", "websocket error") {
			t.Errorf("%s opened by %v, upgraded %d times, and was refused: %v", a.name, a.opened, a.upgrades, a.refused)
		}
		t.Logf("%s: %d events over %d connections", a.name, len(a.seqs), a.connects)
	}
}

func allOf(list []string, known ...string) bool {
	return !slices.ContainsFunc(list, func(s string) bool {
		return !slices.ContainsFunc(known, func(k string) bool { return strings.Contains(s, k) })
	})
}

// A load balancer may send each request of a polling client to another process.
func TestPollingNeedsNoStickySession(t *testing.T) {
	t.Parallel()
	const system = "clinica-repartida"
	d := newDeployment(t)
	nodes := []*node{d.start(t, ""), d.start(t, "")}
	var turn atomic.Uint64
	balancer := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		to, err := url.Parse(nodes[turn.Add(1)%2].base)
		if err != nil {
			t.Error(err)
		}
		r.SetURL(to)
	}})
	t.Cleanup(balancer.Close)
	app := conformance.AppConfig{URL: balancer.URL, Token: testToken(t, domain.RoleViewer, system), System: system}
	a := observe("node", conformance.NodeApp(t, app), t.Context().Done())
	events := tick(t, func() string { return nodes[0].base }, system)
	testpeer.Eventually(t, "an event", func() bool { return a.last() > 0 })
	testpeer.Eventually(t, "more events", func() bool { return events.appended.Load() > 200 })
	last := events.end()
	testpeer.Eventually(t, "all events", func() bool { return a.last() >= last })
	a.check(t, last)
	if a.connects != 1 {
		t.Errorf("it took %d connections", a.connects)
	}
}
