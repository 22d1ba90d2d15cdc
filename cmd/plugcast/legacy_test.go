package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/streams/redisserver/redistest"
	"github.com/plugcast/plugcast/transport/testpeer"
	"github.com/plugcast/plugcast/transport/testpeer/legacyserver"
	"github.com/plugcast/plugcast/transport/testpeer/netcut"
)

// oldWorld is a deployment beside a Socket.IO server of the old kind.
type oldWorld struct {
	*deployment
	t       *testing.T
	system  domain.SystemID
	server  *legacyserver.Server
	proxy   *netcut.Network
	node    *node
	bridges string // the configuration
}

func newOldWorld(t *testing.T, options legacyserver.Options, more, system string) *oldWorld {
	t.Helper()
	return newOldWorldAfter(t, options, more, system, nil)
}

// newOldWorldAfter does something before the bridge is there.
func newOldWorldAfter(t *testing.T, options legacyserver.Options, more, system string, before func(*oldWorld)) *oldWorld {
	t.Helper()
	options.Token = "let-me-in"
	w := &oldWorld{deployment: newDeployment(t), t: t, system: "clinica-sol", server: legacyserver.Start(t, options)}
	w.proxy = netcut.New(t, w.server.Addr())
	w.bridges = filepath.Join(t.TempDir(), "bridges.json")
	text := fmt.Sprintf(`{"bridges":[{"name":"old","kind":"socketio","url":%q,"token":{"env":"OLD_TOKEN"}%s,
		"systems":[{"system":%q,"direction":"both"%s}]}]}`, w.proxy.URL(), more, w.system, system)
	if err := os.WriteFile(w.bridges, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	w.env = append(w.env, "OLD_TOKEN="+options.Token)
	if before != nil {
		before(w)
	}
	w.env = append(w.env, "PLUGCAST_BRIDGES="+w.bridges)
	w.node = w.start(t, "")
	w.joined()
	return w
}

func (w *oldWorld) joined() {
	w.t.Helper()
	testpeer.Eventually(w.t, "the bridge to join", func() bool { return w.server.Members(string(w.system)) == 1 })
}

func (w *oldWorld) their(n int, more ...any) {
	w.t.Helper()
	payload := map[string]any{"deviceId": "theirs", "online": true, "relayOn": n%2 == 0, "n": n}
	for i := 0; i < len(more); i += 2 {
		payload[more[i].(string)] = more[i+1]
	}
	w.server.Emit(legacyserver.Emission{Room: string(w.system), Event: "device-update", Args: []any{payload}})
}

func (w *oldWorld) ours(device string, n int) {
	w.t.Helper()
	mustCall(w.t, http.StatusOK, "POST", w.node.base+"/api/v1/device-updates",
		testToken(w.t, domain.RoleService, w.system), []any{map[string]any{
			"systemId": w.system, "deviceId": device, "online": true, "relayOn": n%2 == 0, "attributes": map[string]any{"n": n},
		}}, nil)
}

// history is the numbers of all updates of a device that are in history.
func (w *oldWorld) history(device string) []int {
	w.t.Helper()
	var page struct{ Events []domain.Event }
	mustCall(w.t, http.StatusOK, "GET", w.node.base+"/api/v1/systems/"+string(w.system)+"/events?limit=1000&deviceId="+device,
		testToken(w.t, domain.RoleAuditor, w.system), nil, &page)
	var numbers []int
	for _, e := range page.Events {
		var data struct{ Attributes struct{ N int } }
		if err := json.Unmarshal(e.Data, &data); err != nil {
			w.t.Fatal(err)
		}
		numbers = append(numbers, data.Attributes.N)
	}
	return numbers
}

// received is the numbers of what the server got from us, by id.
func (w *oldWorld) received() map[string]int {
	w.t.Helper()
	ids := map[string]int{}
	for _, got := range w.server.Received() {
		var payload struct {
			N        int
			Plugcast struct{ ID string }
		}
		if err := json.Unmarshal(got.Payload, &payload); err != nil {
			w.t.Fatal(err)
		}
		ids[payload.Plugcast.ID] = payload.N
	}
	return ids
}

// report runs plugcast bridge report.
func (w *oldWorld) report(args ...string) (report domain.FindingsReport, code int) {
	w.t.Helper()
	path, err := binary()
	if err != nil {
		w.t.Fatal(err)
	}
	cmd := exec.CommandContext(w.t.Context(), path, append([]string{"bridge", "report", "--json"}, args...)...)
	cmd.Env = w.env
	out, err := cmd.Output()
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		w.t.Fatal(err)
	}
	if err := json.Unmarshal(out, &report); err != nil {
		w.t.Fatalf("%v: %s", err, out)
	}
	return report, code
}

func (w *oldWorld) kinds(report domain.FindingsReport) []string {
	var kinds []string
	for _, f := range report.Findings {
		kinds = append(kinds, strings.TrimSpace(fmt.Sprint(f.Kind, " ", f.Device, " ", strings.Join(f.Members, ","))))
	}
	slices.Sort(kinds)
	return kinds
}

// A real Socket.IO server bridged both ways, which sends what it gets to everybody:
// over a cut link and a death on either side each event is in our history once, the
// server got all of ours, and the report says what could not be told.
func TestBridgeToSocketIO(t *testing.T) {
	t.Parallel()
	w := newOldWorld(t, legacyserver.Options{Recovery: true, Ack: true, Echo: "room"}, `,"delivery":"acknowledged"`, "")
	n := 0
	both := func() {
		for range 10 {
			w.their(n)
			w.ours("ours", n)
			n++
		}
	}
	both()
	testpeer.Eventually(t, "the first to come in", func() bool { return len(w.history("theirs")) == n })
	if report, code := w.report(); code != 0 || len(report.Findings) != 0 || len(report.Links) != 1 {
		t.Errorf("a report with nothing in it: exit code %d, %+v", code, report)
	}

	w.proxy.Cut()
	both()
	w.proxy.Mend()
	w.joined()
	testpeer.Eventually(t, "what was missed in the cut", func() bool { return len(w.history("theirs")) == n })

	w.node.kill()
	for range 5 {
		w.their(n)
		n++
	}
	w.node = w.start(t, "")
	for m := n - 5; m < n; m++ {
		w.ours("ours", m)
	}
	w.joined()
	testpeer.Eventually(t, "what was missed while we were dead", func() bool { return len(w.history("theirs")) >= n })

	w.server.Kill()
	w.ours("ours", n)
	w.server.Restart()
	w.joined()
	w.their(n)
	n++
	testpeer.Eventually(t, "the rest to come in", func() bool { return len(w.history("theirs")) >= n })

	testpeer.Eventually(t, "the rest to go out", func() bool { return len(w.received()) >= n })
	want := make([]int, n)
	for i := range want {
		want[i] = i
	}
	for _, device := range []string{"theirs", "ours"} {
		if got := w.history(device); !slices.Equal(got, want) {
			t.Errorf("history of %s: %v", device, got)
		}
	}
	var numbers []int
	for _, number := range w.received() {
		numbers = append(numbers, number)
	}
	slices.Sort(numbers)
	if !slices.Equal(numbers, want) {
		t.Errorf("the server got %v", numbers)
	}

	var report domain.FindingsReport
	testpeer.Eventually(t, "the report of the gap", func() bool {
		var code int
		report, code = w.report("--system", string(w.system), "--link", "old")
		return code == 1 && slices.Contains(w.kinds(report), "gap")
	})
	if twice := len(w.server.Received()) - n; twice > 0 && !slices.Contains(w.kinds(report), "maybe-twice") {
		t.Errorf("%d came twice, and the report does not say so: %v", twice, w.kinds(report))
	}
	for _, kind := range w.kinds(report) {
		if kind != "gap" && kind != "maybe-twice" {
			t.Errorf("the report has %v", w.kinds(report))
		}
	}
	var overHTTP domain.FindingsReport
	mustCall(t, http.StatusOK, "GET", w.node.base+"/api/v1/bridges/findings?systemId="+string(w.system),
		testToken(t, domain.RoleStaff, "*"), nil, &overHTTP)
	if len(overHTTP.Findings) != len(report.Findings) {
		t.Errorf("over HTTP there are %d findings", len(overHTTP.Findings))
	}
}

// A new bridge begins with what comes from now on, also where the log in Redis is
// empty: because it was lost, or because all of it is archived and old.
func TestBridgeToSocketIOBeginsNow(t *testing.T) {
	t.Parallel()
	w := newOldWorldAfter(t, legacyserver.Options{Ack: true}, `,"delivery":"acknowledged"`, "", func(w *oldWorld) {
		w.node = w.start(t, "")
		for n := range 3 {
			w.ours("ours", n)
		}
		testpeer.Eventually(t, "all to be in history", func() bool { return len(w.history("ours")) == 3 })
		w.node.kill()
		w.redis = redistest.New(t)
		w.env = append(w.env, "PLUGCAST_REDIS_URL="+w.redis.URL())
	})
	testpeer.Eventually(t, "something to go over", func() bool {
		w.ours("ours", 3)
		return len(w.server.Received()) > 0
	})
	for _, got := range w.server.Received() {
		if !strings.Contains(string(got.Payload), `"n":3`) {
			t.Errorf("the server got %s", got.Payload)
		}
	}
}

// The shadow beside a real server finds exactly what was made to differ.
func TestBridgeShadow(t *testing.T) {
	t.Parallel()
	w := newOldWorld(t, legacyserver.Options{}, `,"compare":{"windowSeconds":2,"lateSeconds":1}`, `,"mode":"shadow"`)
	probe := 0
	found := func(prefix string) []string {
		report, _ := w.report()
		return slices.DeleteFunc(w.kinds(report), func(kind string) bool { return !strings.Contains(kind, prefix) })
	}
	testpeer.Eventually(t, "the shadow to watch", func() bool {
		probe++
		w.ours(fmt.Sprint("probe-", probe), 0)
		return len(found("probe-")) > 0
	})
	for n := range 30 {
		if n != 11 {
			w.ours("plug", n)
		}
		switch n {
		case 7: // only here
		case 17:
			w.their(n, "deviceId", "plug", "relayOn", "unknown")
		default:
			w.their(n, "deviceId", "plug")
		}
	}
	want := []string{"different plug relayOn", "only-here plug", "only-there plug"}
	testpeer.Eventually(t, "the differences", func() bool { return len(found("plug")) >= len(want) })
	if got := found("plug"); !slices.Equal(got, want) {
		t.Errorf("found %v, want %v", got, want)
	}
	if len(w.server.Received()) != 0 || len(w.history("theirs")) != 0 || len(w.history("plug")) != 29 {
		t.Error("the shadow appended or emitted something")
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, path, "bridge", "report")
	cmd.Env = w.env
	text, _ := cmd.Output()
	for _, part := range []string{"old  clinica-sol", "same", "only-here", `"deviceId":"plug"`} {
		if !strings.Contains(string(text), part) {
			t.Errorf("the report has no %q:\n%s", part, text)
		}
	}
}
