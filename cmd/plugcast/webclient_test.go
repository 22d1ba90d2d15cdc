package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/auth"
	"github.com/plugcast/plugcast/transport/testpeer"
	"github.com/plugcast/plugcast/transport/testpeer/browser"
	"github.com/plugcast/plugcast/transport/testpeer/netcut"
	"github.com/plugcast/plugcast/transport/testpeer/nodejs"
)

// The tests of this file are about the JavaScript client in real browsers: real
// React applications against a real server, behind a network that fails.

// page is a React application in a browser.
type page struct {
	*browser.Browser
	react string
	cut   *netcut.Network
}

// openPages opens the client's test application with each React.
func openPages(t *testing.T, address string, origin *httptest.Server, token string, system domain.SystemID) []*page {
	t.Helper()
	var pages []*page
	for _, react := range []string{"18", "19"} {
		p := &page{react: react, cut: netcut.New(t, address)}
		fragment := url.Values{"url": {p.cut.URL() + "/ws"}, "token": {token}, "system": {string(system)}}
		p.Browser = browser.Open(t, origin.URL+"/react"+react+".html#"+fragment.Encode())
		p.Shows("document.querySelector('#status')?.textContent", "live")
		pages = append(pages, p)
	}
	return pages
}

// application serves the client's test application, bundled with each React.
func application(t *testing.T) *httptest.Server {
	t.Helper()
	client, err := filepath.Abs("../../transport/web/client")
	if err != nil {
		t.Fatal(err)
	}
	nodejs.Install(t, client)
	nodejs.Install(t, filepath.Join(client, "test/react18"))
	site := t.TempDir()
	for react, modules := range map[string]string{"18": "test/react18/node_modules", "19": "node_modules"} {
		bundle := nodejs.Command(t, client, "test/app/bundle.mjs", "test/app/app.jsx",
			filepath.Join(site, react+".js"), filepath.Join(client, modules))
		if out, err := bundle.CombinedOutput(); err != nil {
			t.Fatalf("bundle: %v\n%s", err, out)
		}
		html := `<!doctype html><title>React ` + react + `</title><div id="root"></div><script type="module" src="` + react + `.js"></script>`
		if err := os.WriteFile(filepath.Join(site, "react"+react+".html"), []byte(html), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	server := httptest.NewServer(http.FileServer(http.Dir(site)))
	t.Cleanup(server.Close)
	return server
}

// The examples run, from where a page of another origin is.
func TestClientExamples(t *testing.T) {
	t.Parallel()
	source, err := filepath.Abs("../../transport/web/client")
	if err != nil {
		t.Fatal(err)
	}
	nodejs.Install(t, source)
	client := nodejs.Copy(t, source)
	for _, args := range [][]string{
		{"node_modules/.bin/tsc"}, // what npm run build does, of which pages need no types
		{"node_modules/.bin/esbuild", "examples/react/main.jsx", "--bundle", "--jsx=automatic", "--format=esm", "--outdir=examples/react/dist"},
	} {
		build := exec.CommandContext(t.Context(), filepath.Join(client, args[0]), args[1:]...)
		build.Dir = client
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	site := httptest.NewServer(http.FileServer(http.Dir(filepath.Join(client, "examples"))))
	t.Cleanup(site.Close)
	d := newDeployment(t)
	d.env = append(d.env, "PLUGCAST_ALLOWED_ORIGINS="+site.URL)
	server := d.start(t, "")
	const system domain.SystemID = "clinica-sol"
	publish := func(update map[string]any) {
		t.Helper()
		update["systemId"], update["deviceId"] = system, "lamp"
		mustCall(t, http.StatusOK, "POST", server.base+"/api/v1/device-updates",
			testToken(t, domain.RoleService, system), []map[string]any{update}, nil)
	}
	publish(map[string]any{"relayOn": true, "powerW": 7})
	fragment := url.Values{"server": {server.base}, "system": {string(system)}, "token": {testToken(t, domain.RoleOperator, system)}}
	vanilla := browser.Open(t, site.URL+"/vanilla/index.html#"+fragment.Encode())
	react := browser.Open(t, site.URL+"/react/#"+fragment.Encode())
	const plug = "document.querySelector('#plugs li')?.textContent"
	vanilla.Shows(plug, "lamp: on, 7 W")
	react.Shows(plug, "lamp: on, 7 W Switch off")
	publish(map[string]any{"relayOn": nil})
	vanilla.Shows(plug, "lamp: not known, 7 W")
	vanilla.Shows("document.querySelector('#events').textContent", "2 device-update lamp")
	vanilla.Shows("document.querySelector('#status').textContent", "live")
	react.Shows(plug, "lamp: not known, 7 W Switch on")
	react.Eval("document.querySelector('#plugs button').click()")
	react.Shows("Boolean(document.querySelector('[role=alert]')?.textContent.startsWith('lamp: '))", "true") // nobody holds it
}

// A token is replaced on the open socket before it ends, as often as that is
// needed: the page notices nothing of it.
func TestClientReplacesItsToken(t *testing.T) {
	t.Parallel()
	server := newDeployment(t).start(t, "")
	tr := newTraffic(t, 1, func() string { return server.base })
	system := tr.systems[0]
	b := browser.Open(t, server.base+"/")
	b.Shows("document.querySelector('#login')?.hidden", "false")
	var tokens []string
	begin := time.Now()
	for _, lasts := range []time.Duration{6 * time.Second, 12 * time.Second, time.Hour} {
		actor := domain.Actor{Subject: "maria", Role: domain.RoleViewer, Systems: []domain.SystemID{system}, ExpiresAt: begin.Add(lasts)}
		token, err := auth.Config{Secret: []byte(testSecret)}.Sign(actor, begin)
		if err != nil {
			t.Fatal(err)
		}
		tokens = append(tokens, token)
	}
	list, err := json.Marshal(tokens)
	if err != nil {
		t.Fatal(err)
	}
	if fault := b.Eval(`import(location.origin + "/web/client/index.js").then(({ Client }) => {
		const tokens = ` + string(list) + `;
		window.told = [];
		window.client = new Client({ systemId: "` + string(system) + `", token: async () => tokens.shift(), storage: null });
		client.on("status", ({ status }) => told.push(status));
		client.connect();
	})`); fault != "undefined" {
		t.Fatal(fault)
	}
	b.Shows("client.status", "live")
	admin := testToken(t, domain.RoleAdmin, system)
	listed := func() string {
		if all := liveSockets(t, server.base, admin); len(all) == 1 {
			return all[0].SocketID
		}
		return ""
	}
	var first string
	testpeer.Eventually(t, "the socket to be listed", func() bool { first = listed(); return first != "" })
	// The server closes a socket when its token ends: one that lives on has the last.
	testpeer.Eventually(t, "the other tokens to have ended", func() bool { return time.Since(begin) > 13*time.Second })
	if err := tr.publish(t.Context(), 0, 1); err != nil {
		t.Fatal(err)
	}
	b.Shows("client.state().seq", "1")
	b.Shows("told.join()", "connecting,live")
	if last := listed(); last != first {
		t.Errorf("the socket was %s and is %s", first, last)
	}
}

// changes are made to a system for as long as it takes.
type changes struct {
	stop  context.CancelFunc
	group sync.WaitGroup
}

// keepChanging publishes updates, and moves a piece of equipment from plug to
// plug, whether the server is there or not.
func keepChanging(t *testing.T, tr *traffic) *changes {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	c := &changes{stop: stop}
	admin := testToken(t, domain.RoleAdmin)
	c.group.Go(func() {
		for n := 0; ctx.Err() == nil; n++ {
			if err := tr.publish(ctx, 0, 1+rand.IntN(3)); err != nil && ctx.Err() == nil {
				t.Error(err)
				return
			}
			if n%5 == 0 { // what does not come about is not in history either
				at := fmt.Sprintf("%s/api/v1/systems/%s/devices/plug-%d/assignment?move=true", tr.base(), tr.systems[0], rand.IntN(8))
				_, _, _, _ = call(ctx, "PUT", at, admin, map[string]any{"equipmentId": "laser"})
			}
			pause(ctx, 15*time.Millisecond)
		}
	})
	return c
}

func (c *changes) end() {
	c.stop()
	c.group.Wait()
}

// snapshotAt is a system's state as the server has it.
func snapshotAt(t *testing.T, base string, system domain.SystemID) *domain.Snapshot {
	t.Helper()
	var s domain.Snapshot
	mustCall(t, http.StatusOK, "GET", base+"/api/v1/systems/"+string(system)+"/snapshot", testToken(t, domain.RoleViewer, system), nil, &s)
	return &s
}

// state is a system's state as the page has it.
func (p *page) state(t *testing.T) *domain.Snapshot {
	t.Helper()
	var s domain.Snapshot
	text := p.Eval("test.state()")
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		t.Fatalf("the page's state: %v in %s", err, text)
	}
	return &s
}

// The state of both pages is the server's, and each of its events reached them
// once and in order, after cut networks, frozen tabs, killed servers and reloads
// in any order.
func TestReactPageMissesNothing(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	site := application(t)
	d.env = append(d.env, "PLUGCAST_ALLOWED_ORIGINS="+site.URL)
	address := freeAddress(t)
	server := d.start(t, address)
	tr := newTraffic(t, 1, func() string { return "http://" + address })
	system := tr.systems[0]
	if err := tr.publish(t.Context(), 0, 1); err != nil {
		t.Fatal(err)
	}
	mustCall(t, http.StatusAccepted, "POST", server.base+"/api/v1/systems/"+string(system)+"/equipment",
		testToken(t, domain.RoleAdmin, system), map[string]any{"equipmentId": "laser", "name": "Laser"}, nil)
	pages := openPages(t, address, site, testToken(t, domain.RoleViewer, system), system)
	began := map[*page]uint64{}
	for _, p := range pages {
		began[p] = p.state(t).Seq
	}

	c := keepChanging(t, tr)
	flow := func(events uint64) {
		t.Helper()
		from := tr.total()
		testpeer.Eventually(t, "updates to flow", func() bool { return tr.total() >= from+events })
	}
	faults := map[string]func(*page){
		"cut": func(p *page) { p.cut.Mend() },
		"outage": func(p *page) {
			p.cut.Cut()
			flow(10)
			p.cut.Mend()
		},
		"freeze": func(p *page) {
			p.Call("Page.setWebLifecycleState", map[string]any{"state": "frozen"}, nil)
			flow(20)
			p.cut.Mend()
			flow(5)
			p.Call("Page.setWebLifecycleState", map[string]any{"state": "active"}, nil)
		},
		"reload": func(p *page) {
			p.Call("Page.reload", nil, nil)
			p.Shows("document.querySelector('#status')?.textContent", "live")
		},
	}
	round := []string{"cut", "outage", "freeze", "reload", "cut", "kill"} // 5 rounds: 20 cuts at least for each page, 5 of the rest
	for range 5 {
		rand.Shuffle(len(round), func(i, j int) { round[i], round[j] = round[j], round[i] })
		for _, fault := range round {
			flow(5)
			if fault == "kill" {
				server.kill()
				server = d.start(t, address)
				continue
			}
			for _, p := range pages {
				faults[fault](p)
			}
			if rand.IntN(2) == 0 { // else the next fault comes on top
				for _, p := range pages {
					p.Shows("document.querySelector('#status')?.textContent", "live")
				}
			}
		}
	}
	flow(20)
	c.end()
	for _, p := range pages {
		p.Shows("document.querySelector('#status')?.textContent", "live")
		p.agrees(t, server.base, system)
		p.heardEach(t, began[p])
	}
}

// agrees waits until the page is where the server is, and compares their states,
// and what the page shows with it.
func (p *page) agrees(t *testing.T, base string, system domain.SystemID) {
	t.Helper()
	var server, client *domain.Snapshot
	testpeer.Eventually(t, "the page to be where the server is", func() bool {
		server, client = snapshotAt(t, base, system), p.state(t)
		return server.Seq == client.Seq
	})
	client.SystemID = system
	if diff := cmp.Diff(asText(t, server), asText(t, client)); diff != "" {
		t.Errorf("React %s: the server's state (-) and the page's (+) differ: %s", p.react, diff)
	}
	for _, device := range client.Devices {
		want := "-"
		for _, a := range client.Assignments {
			if a.DeviceID == device.DeviceID {
				want = string(a.EquipmentID)
			}
		}
		want = fmt.Sprintf("%v %v %s", *device.RelayOn, *device.PowerW, want)
		p.Shows("document.querySelector('#"+string(device.DeviceID)+"').textContent", want)
	}
	p.Shows("document.querySelector('#second').textContent", strconv.Itoa(len(client.Devices)))
}

func asText(t *testing.T, s *domain.Snapshot) string {
	t.Helper()
	text, err := json.MarshalIndent(s, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// heardEach checks that the page's handler got each event since it began, once
// and in order, over all its reloads.
func (p *page) heardEach(t *testing.T, began uint64) {
	t.Helper()
	heard := strings.Split(strings.TrimSuffix(p.Eval("sessionStorage.getItem('heard')"), ","), ",")
	for i, text := range heard {
		if seq, err := strconv.ParseUint(text, 10, 64); err != nil || seq != began+uint64(i)+1 {
			t.Fatalf("React %s: heard %q as event %d after %d; around it %v", p.react, text, i+1, began, heard[max(0, i-3):min(len(heard), i+4)])
		}
	}
	if last := p.state(t).Seq; began+uint64(len(heard)) != last {
		t.Errorf("React %s: heard %d events after %d, the state is at %d", p.react, len(heard), began, last)
	}
}

// remains is what a page holds of things that can be left behind.
type remains struct {
	HeapBytes float64
	Listeners float64 // of the whole page
	Nodes     float64
	Timers    string // that are set
	Page      string // listeners of window and document
}

func (p *page) remains() (r remains) {
	p.Call("HeapProfiler.collectGarbage", nil, nil)
	var heap struct{ UsedSize float64 }
	p.Call("Runtime.getHeapUsage", nil, &heap)
	var all struct {
		Metrics []struct {
			Name  string
			Value float64
		}
	}
	p.Call("Performance.getMetrics", nil, &all)
	for _, m := range all.Metrics {
		switch m.Name {
		case "JSEventListeners":
			r.Listeners = m.Value
		case "Nodes":
			r.Nodes = m.Value
		}
	}
	r.HeapBytes = heap.UsedSize
	r.Timers = p.Eval("test.count.timers.size")
	r.Page = p.Eval("JSON.stringify([window, document]." +
		"map((target) => Object.entries(getEventListeners(target)).map(([name, all]) => [name, all.length])))")
	return r
}

// Components that come and go a thousand times, each with a socket of its own and
// twice as StrictMode wants it, leave no socket, timer, listener or memory behind;
// nor do a thousand that are too fast for that.
func TestReactLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	guests := 1000
	if testing.Short() {
		guests = 300
	}
	d := newDeployment(t)
	site := application(t)
	d.env = append(d.env, "PLUGCAST_ALLOWED_ORIGINS="+site.URL)
	server := d.start(t, "")
	tr := newTraffic(t, 1, func() string { return server.base })
	system := tr.systems[0]
	if err := tr.publish(t.Context(), 0, 10); err != nil {
		t.Fatal(err)
	}
	address := strings.TrimPrefix(server.base, "http://")
	pages := openPages(t, address, site, testToken(t, domain.RoleViewer, system), system)
	admin := testToken(t, domain.RoleAdmin, system)
	open := func() int { return len(liveSockets(t, server.base, admin)) }
	testpeer.Eventually(t, "both pages to be listed, with one socket each", func() bool { return open() == len(pages) })
	for _, p := range pages {
		p.Call("Performance.enable", nil, nil)
		p.Eval("test.guests(100, 'warm-')")
		p.Eval("test.hasty(100)")
	}
	alone := func() { // also after the moment that a shared socket is kept for
		t.Helper()
		testpeer.Eventually(t, "the guests' sockets to be gone", func() bool {
			for _, p := range pages {
				if p.Eval("test.count.timers.size <= 2") != "true" { // the page's own: is the server there, was it for long
					return false
				}
			}
			return open() == len(pages)
		})
	}
	alone()
	before := map[*page]remains{}
	sockets := map[*page]string{}
	for _, p := range pages {
		before[p], sockets[p] = p.remains(), p.Eval("test.count.sockets")
		p.Eval(fmt.Sprintf("void (test.guesting = test.guests(%d, 'guest-'))", guests)) // in both pages at a time
	}
	for _, p := range pages {
		if fault := p.Eval("test.guesting"); fault != "undefined" {
			t.Fatal(fault)
		}
		p.Shows("test.count.sockets - "+sockets[p], strconv.Itoa(guests))
		if fault := p.Eval(fmt.Sprintf("test.hasty(%d)", guests)); fault != "undefined" {
			t.Fatal(fault)
		}
		p.Shows("test.count.sockets - "+sockets[p], strconv.Itoa(guests+1))
	}
	alone()
	for _, p := range pages {
		before, after := before[p], p.remains()
		t.Logf("React %s: before %+v, after %+v", p.react, before, after)
		if after.HeapBytes > before.HeapBytes+1<<20 { // a client that stays is some KiB
			t.Errorf("React %s: the heap grew from %.0f to %.0f bytes", p.react, before.HeapBytes, after.HeapBytes)
		}
		if after.Listeners > before.Listeners+20 || after.Nodes > before.Nodes+200 || after.Page != before.Page {
			t.Errorf("React %s: before %+v, after %+v", p.react, before, after)
		}
	}
}

// After a change of user a component shows nothing of what the first one saw, not at
// a single render, whether the token is a text or comes from a function.
func TestReactShowsAnotherUserNothing(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	site := application(t)
	d.env = append(d.env, "PLUGCAST_ALLOWED_ORIGINS="+site.URL)
	server := d.start(t, "")
	tr := newTraffic(t, 1, func() string { return server.base })
	system := tr.systems[0]
	if err := tr.publish(t.Context(), 0, 10); err != nil {
		t.Fatal(err)
	}
	token := testToken(t, domain.RoleViewer, system)
	for _, p := range openPages(t, strings.TrimPrefix(server.base, "http://"), site, token, system) {
		for _, asFunction := range []bool{false, true} {
			shown := p.Eval(fmt.Sprintf("test.changeUser(%q, %q, %t)", token, testToken(t, domain.RoleOperator, "another"), asFunction))
			if shown != "nothing" {
				t.Errorf("React %s, from a function: %t: the second user saw devices: %s", p.react, asFunction, shown)
			}
		}
	}
}
