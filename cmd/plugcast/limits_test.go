package main

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/plugcast/plugcast/domain"
)

// The rates of this file are one per second, so that what comes back while a
// test runs is little beside a burst.

// limitedNodes starts two nodes with tiny limits.
func limitedNodes(t *testing.T, flow string, burst int) []*node {
	t.Helper()
	d := newDeployment(t)
	args := []string{"--limit-" + flow, "1", "--limit-" + flow + "-burst", strconv.Itoa(burst)}
	return []*node{d.start(t, "", args...), d.start(t, "", append(args, "--roles", "gateway")...)}
}

// mustBeLimited demands a 429 that says when to come back.
func mustBeLimited(t *testing.T, method, url, token string, body any) {
	t.Helper()
	var problem struct{ Code string }
	header := mustCall(t, http.StatusTooManyRequests, method, url, token, body, &problem)
	if seconds, err := strconv.Atoi(header.Get("Retry-After")); err != nil || seconds < 1 || problem.Code != "rate-limited" {
		t.Errorf("code %q, Retry-After %q", problem.Code, header.Get("Retry-After"))
	}
}

// Requests are counted per system, by all nodes together, and a page counts as two.
func TestRequestLimit(t *testing.T) {
	t.Parallel()
	const burst = 40
	nodes := limitedNodes(t, "requests", burst)
	viewer := testToken(t, domain.RoleViewer, "clinica-sol")
	for _, c := range []struct {
		system domain.SystemID
		path   string
		cost   int
	}{
		{"clinica-sol", "/devices", 2}, {"clinica-mar", "/devices/none", 1}, {"clinica-luz", "/snapshot", 3},
		{"clinica-paz", "/snapshot?at=2026-01-01T00:00:00Z", 6},
	} {
		token, done := testToken(t, domain.RoleViewer, c.system), 0
		for status := 0; status != http.StatusTooManyRequests; done++ {
			var err error
			url := nodes[done%2].base + "/api/v1/systems/" + string(c.system) + c.path
			if status, _, _, err = call(t.Context(), "GET", url, token, nil); err != nil {
				t.Fatal(err)
			}
		}
		if first := burst / c.cost; done <= first || done > 2*first {
			t.Errorf("request %d to %s was the first refused; the burst is %d, and each counts %d", done, c.path, burst, c.cost)
		}
	}
	for _, n := range nodes {
		mustBeLimited(t, "GET", n.base+"/api/v1/systems/clinica-sol/devices", viewer, nil)
		mustCall(t, http.StatusOK, "GET", n.base+"/api/v1/systems/centro-luna/devices", testToken(t, domain.RoleViewer, "centro-luna"), nil, nil)
		mustCall(t, http.StatusForbidden, "GET", n.base+"/api/v1/systems/centro-luna/devices",
			testToken(t, domain.RoleViewer, "third"), nil, nil) // and it does not pay for a stranger
	}
}

// A read that costs more than the burst still passes when nothing was asked before, and
// a tenant that has used up its limit does not keep staff from the lists about it.
func TestCostlyReadsPassASmallLimit(t *testing.T) {
	t.Parallel()
	nodes := limitedNodes(t, "requests", 1)
	for system, path := range map[domain.SystemID]string{
		"clinica-sol": "/devices", "clinica-mar": "/events", "clinica-luz": "/snapshot?at=2026-01-01T00:00:00Z",
	} {
		url, token := nodes[0].base+"/api/v1/systems/"+string(system)+path, testToken(t, domain.RoleAdmin, system)
		mustCall(t, http.StatusOK, "GET", url, token, nil, nil)
		mustBeLimited(t, "GET", url, token, nil)
	}
	mustCall(t, http.StatusOK, "GET", nodes[1].base+"/api/v1/dead-letters?systemId=clinica-sol", testToken(t, domain.RoleStaff), nil, nil)
}

// Updates are counted one by one, whatever batches they come in.
func TestUpdateLimit(t *testing.T) {
	t.Parallel()
	nodes := limitedNodes(t, "device-updates", 100)
	service := testToken(t, domain.RoleService)
	batch := func(system string, n int) string {
		item := fmt.Sprintf(`{"systemId":%q,"deviceId":"plug-1"}`, system)
		return "[" + strings.Repeat(item+",", n-1) + item + "]"
	}
	here, there := nodes[0].base+"/api/v1/device-updates", nodes[1].base+"/api/v1/device-updates"
	mustCall(t, http.StatusOK, "POST", here, service, batch("clinica-sol", 60), nil)
	mustBeLimited(t, "POST", there, service, batch("clinica-sol", 99))
	mustCall(t, http.StatusOK, "POST", there, service, batch("clinica-sol", 40), nil) // a refusal costs nothing
	mustBeLimited(t, "POST", here, service, batch("clinica-sol", 60))
	mustCall(t, http.StatusOK, "POST", here, service, batch("centro-luna", 100), nil)
	viewer := testToken(t, domain.RoleViewer, "clinica-sol")
	mustCall(t, http.StatusOK, "GET", nodes[0].base+"/api/v1/systems/clinica-sol/devices", viewer, nil, nil)
}

// Bridged events that processes react to have an allowance of their own, and what
// is only kept and delivered does not use it up.
func TestActionLimit(t *testing.T) {
	t.Parallel()
	nodes := limitedNodes(t, "actions", 40)
	token, last := testToken(t, domain.RoleBridge, "clinica-sol"), 0
	batch := func(typ domain.EventType, n int) (query string, events []map[string]any) {
		for i := range n {
			events = append(events, map[string]any{
				"event": typ, "position": fmt.Sprint(last+i+1, "-0"), "id": fmt.Sprintf("01920000-0000-7000-8000-%012d", last+i+1),
				"systemId": "clinica-sol", "time": "2026-11-23T18:00:00Z", "actor": "x", "version": 1,
				"data": map[string]any{"commandId": fmt.Sprint("c-", last+i), "deviceId": "plug-1", "on": true},
			})
		}
		return fmt.Sprintf("/api/v1/systems/clinica-sol/bridge/events?source=far&after=%d-0&through=%d-0", last, last+n), events
	}
	take := func(n *node, typ domain.EventType, count int) {
		query, events := batch(typ, count)
		mustCall(t, http.StatusOK, "POST", n.base+query, token, events, nil)
		last += count
	}
	refuse := func(n *node, typ domain.EventType, count int) {
		query, events := batch(typ, count)
		mustBeLimited(t, "POST", n.base+query, token, events)
	}
	take(nodes[0], domain.TypeRelaySwitchRequested, 30)
	refuse(nodes[1], domain.TypeRelaySwitchRequested, 30)
	take(nodes[1], domain.TypeDeviceUpdate, 200)
	take(nodes[1], domain.TypeRelaySwitchRequested, 10)
	refuse(nodes[0], domain.TypeDisconnectRequested, 39)
	take(nodes[0], domain.TypeDeviceUpdate, 200)
}

// Joins of both faces are counted together. A socket whose join is refused
// stays, and one that does not stop is closed.
func TestJoinLimit(t *testing.T) {
	t.Parallel()
	const burst = 20
	nodes := limitedNodes(t, "joins", burst)
	viewer := testToken(t, domain.RoleViewer, "clinica-sol", "centro-luna")
	sockets := []*conversation{converse(t, nodes[0].base, viewer), converse(t, nodes[1].base, viewer)}
	joined := 0
	for limited := false; !limited; {
		c := sockets[joined%2]
		c.say("join-system", map[string]any{"systemId": "clinica-sol"})
		for answered := false; !answered && !limited; {
			f, closed := c.next()
			if closed != 0 {
				t.Fatalf("closed with %d", closed)
			}
			answered, limited = f.Event == "joined", f.Event == "error"
		}
		if !limited {
			joined++
		}
	}
	if joined < burst || joined >= 2*burst {
		t.Errorf("%d joins were let in; the burst is %d", joined, burst)
	}
	for i, c := range sockets {
		c.say("join-system", map[string]any{"systemId": "clinica-sol"})
		var why refusal
		if c.await("error", &why); why.Code != "rate-limited" || why.RetryAfterMs < 1 {
			t.Errorf("socket %d: %+v", i, why)
		}
		c.join("centro-luna")
	}
	mustBeLimited(t, "GET", nodes[0].base+"/api/v1/systems/clinica-sol/events/stream", viewer, nil)
	openStream(t, http.StatusOK, nodes[0].base, "centro-luna", "", viewer)
}

// Frames are counted by all nodes together. Who goes on is thrown out, and the
// neighbours do not notice.
func TestFrameLimit(t *testing.T) {
	t.Parallel()
	const burst = 64
	nodes := limitedNodes(t, "frames", burst)
	viewer := testToken(t, domain.RoleViewer, "clinica-sol")
	quiet := converse(t, nodes[0].base, testToken(t, domain.RoleViewer, "centro-luna"))
	passed := 0
	for i, n := range nodes {
		c := converse(t, n.base, viewer)
		c.join("clinica-sol")
		refused := 0
		for closed := 0; closed == 0; {
			c.say("ping", nil)
			var f frame
			for f, closed = c.next(); closed == 0 && f.Event != "pong" && f.Event != "error"; {
				f, closed = c.next()
			}
			switch {
			case closed == 4429:
			case closed != 0:
				t.Fatalf("socket %d: closed with %d", i, closed)
			case f.Event == "error":
				refused++
			default:
				passed++
			}
		}
		if refused == 0 {
			t.Errorf("socket %d was closed without a warning", i)
		}
	}
	if passed >= 2*burst {
		t.Errorf("%d frames passed; the burst is %d", passed, burst)
	}
	quiet.join("centro-luna")
}
