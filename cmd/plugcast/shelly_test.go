package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/streams/redisserver/redistest"
	"github.com/plugcast/plugcast/transport/shelly/simulator"
	"github.com/plugcast/plugcast/transport/testpeer"
	"github.com/plugcast/plugcast/transport/testpeer/shellycloud"
)

// dialledIn is a fleet of simulated plugs that dial a node.
func dialledIn(t *testing.T, url string, cfg simulator.FleetConfig) *simulator.Fleet {
	t.Helper()
	cfg.RetryMin, cfg.RetryMax = 50*time.Millisecond, 500*time.Millisecond
	fleet := simulator.NewFleet(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = fleet.Run(ctx, url) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	return fleet
}

// deviceView is a device as the API lists it.
type deviceView struct {
	domain.Device
	Stale bool `json:"stale"`
}

func devices(t *testing.T, base string, system domain.SystemID) map[domain.DeviceID]deviceView {
	t.Helper()
	var list struct{ Devices []deviceView }
	mustCall(t, http.StatusOK, "GET", base+"/api/v1/systems/"+string(system)+"/devices?limit=1000",
		testToken(t, domain.RoleAdmin, system), nil, &list)
	views := map[domain.DeviceID]deviceView{}
	for _, d := range list.Devices {
		views[d.DeviceID] = d
	}
	return views
}

// relayIs reports whether the platform has the relay so.
func relayIs(views map[domain.DeviceID]deviceView, id domain.DeviceID, on bool) bool {
	d, known := views[id]
	return known && d.RelayOn != nil && *d.RelayOn == on
}

// switched commands a relay and waits for the outcome.
func switched(t *testing.T, base string, system domain.SystemID, id domain.DeviceID, on bool) (commandID string, outcome domain.Outcome) {
	t.Helper()
	var answer struct {
		CommandID string
		Outcome   domain.Outcome
	}
	mustCall(t, http.StatusOK, "POST", base+"/api/v1/systems/"+string(system)+"/devices/"+string(id)+"/relay?wait=20s",
		testToken(t, domain.RoleOperator, system), map[string]any{"on": on}, &answer)
	return answer.CommandID, answer.Outcome
}

// causedUpdate reports whether an update of the device says that the command
// switched it.
func causedUpdate(events []domain.Event, commandID string, id domain.DeviceID, on bool) bool {
	for i := range events {
		if e := &events[i]; e.Type == domain.TypeDeviceUpdate && e.CausationID == commandID && e.Device() == id {
			data, err := e.Decode()
			u, ok := data.(domain.DeviceUpdate)
			relay, known := u.RelayOn.Get()
			return err == nil && ok && known && relay == on
		}
	}
	return false
}

// plugcast simulate shows as many plugs as it was asked for, and a plug that is
// commanded at one process is switched wherever its socket is.
func TestFleetOfSimulatedPlugs(t *testing.T) {
	t.Parallel()
	const system domain.SystemID = "clinica-sol"
	d := newDeployment(t)
	here, there := d.start(t, ""), d.start(t, "", "--roles", "gateway")
	db := d.database(t)
	url := createConnection(t, here, system, "acc1")
	simulate(t, url, "--devices", "500", "--rate", "0")
	testpeer.Within(t, 5*time.Minute, "500 plugs", func() bool { return db.devices(system, true) == 500 })
	for id, view := range devices(t, here.base, system) {
		if !relayIs(map[domain.DeviceID]deviceView{id: view}, id, true) || view.PowerW == nil || *view.ConnectionID != "acc1" || view.Stale {
			t.Fatalf("a plug is known as %+v", view)
		}
	}

	fleet := dialledIn(t, dialIn(url, there), simulator.FleetConfig{Devices: 3, Seed: 77})
	plug := fleet.Plugs()[0]
	testpeer.Eventually(t, "the plug to be known", func() bool { return relayIs(devices(t, here.base, system), plug.ID(), true) })
	command, outcome := switched(t, here.base, system, plug.ID(), false)
	if on, _, _ := plug.State(0); outcome != domain.OutcomeCompleted || on {
		t.Errorf("the command %s, and the plug is on: %t", outcome, on)
	}
	testpeer.Eventually(t, "the plug to say so", func() bool { return causedUpdate(history(t, here.base, system), command, plug.ID(), false) })

	// An operator corrects the total at one process, and the plug's socket is at the
	// other: the next updates go on from there.
	var corrected struct{ Device deviceView }
	mustCall(t, http.StatusOK, "POST", here.base+"/api/v1/systems/"+string(system)+"/devices/"+string(plug.ID())+"/energy-correction?wait=20s",
		testToken(t, domain.RoleOperator, system), map[string]any{"energyWh": 123456.789, "reason": "read by hand"}, &corrected)
	if wh := corrected.Device.EnergyWh; wh == nil || *wh != 123456.789 {
		t.Errorf("the corrected device is %+v", corrected.Device)
	}
	on := false
	testpeer.Eventually(t, "the plug's holder to go on from the correction", func() bool {
		on = !on
		command, _ := switched(t, here.base, system, plug.ID(), on)
		testpeer.Eventually(t, "the plug to say so", func() bool { return causedUpdate(history(t, here.base, system), command, plug.ID(), on) })
		for _, e := range history(t, here.base, system) {
			if data, _ := e.Decode(); e.Type == domain.TypeDeviceUpdate && e.CausationID == command {
				u := data.(domain.DeviceUpdate)
				wh, _ := u.EnergyWh.Get()
				_, aware := u.EnergyOffsetWh.Get()
				return aware && wh >= 123456.789 && wh < 123466
			}
		}
		return false
	})

	plug.SetMute(true)
	if _, outcome := switched(t, here.base, system, plug.ID(), true); outcome != domain.OutcomeUnknown {
		t.Errorf("a plug that does not answer: %s", outcome)
	}
	publishOne(t, here, system, "fed-over-http")
	if _, outcome := switched(t, here.base, system, "fed-over-http", true); outcome != domain.OutcomeFailed {
		t.Errorf("a device that nobody holds: %s", outcome)
	}
}

func publishOne(t *testing.T, n *node, system domain.SystemID, id domain.DeviceID) {
	t.Helper()
	mustCall(t, http.StatusOK, "POST", n.base+"/api/v1/device-updates", testToken(t, domain.RoleService, system),
		[]map[string]any{{"systemId": system, "deviceId": id, "online": true, "relayOn": false}}, nil)
}

// A stop at one of three processes closes the sockets of devices and browsers in
// all of them, counts them, and keeps the devices out until the start. Nobody else
// notices. A process that is frozen is named, and does its part when it thaws.
func TestStopOfAConnectionAmongThreeProcesses(t *testing.T) {
	t.Parallel()
	const sol, luna domain.SystemID = "clinica-sol", "centro-luna"
	const browsers = 100
	plugs := map[string]int{"a": 7, "b": 7, "c": 6}
	tr := newTrio(t, browsers)
	url, lunaURL := createConnection(t, tr.nodes["a"], sol, "plugs"), createConnection(t, tr.nodes["a"], luna, "others")
	fleets := map[string]*simulator.Fleet{}
	for name, n := range plugs {
		fleets[name] = dialledIn(t, dialIn(url, tr.nodes[name]), simulator.FleetConfig{Devices: n, Seed: uint64(name[0])})
	}
	neighbours := dialledIn(t, dialIn(lunaURL, tr.nodes["b"]), simulator.FleetConfig{Devices: 5, Connection: "others"})
	db := tr.database(t)
	testpeer.Eventually(t, "all plugs to be in", func() bool { return db.devices(sol, true) == 20 && db.devices(luna, true) == 5 })
	before := devices(t, tr.nodes["a"].base, sol)

	operator := testToken(t, domain.RoleOperator, sol)
	command := func(verb, wait string, want int) (answer dropAnswer) {
		t.Helper()
		mustCall(t, want, "POST", tr.nodes["a"].base+"/api/websocket/plugs/"+verb+"?wait="+wait, operator, nil, &answer)
		return answer
	}
	began := time.Now()
	answer := command("stop", "5s", http.StatusOK)
	answered := time.Since(began)
	if answer.Outcome != domain.OutcomeCompleted || len(answer.Nodes) != 3 || len(answer.Unanswered) != 0 {
		t.Errorf("the answer is %+v", answer)
	}
	for _, n := range answer.Nodes {
		if n.ShellySockets != plugs[n.Node] || n.BrowserSockets != browsers {
			t.Errorf("node %s dropped %d device sockets and %d browser sockets", n.Node, n.ShellySockets, n.BrowserSockets)
		}
	}
	for _, sockets := range tr.sol {
		for _, s := range sockets {
			s.requireThrownOut(thrownOut{CommandID: answer.CommandID})
		}
	}
	closed := time.Since(began)
	connected := func() (n int) {
		for _, f := range fleets {
			n += f.Connected()
		}
		return n
	}
	testpeer.Eventually(t, "all plugs to be out", func() bool { return connected() == 0 })
	t.Logf("a stop of 300 browser sockets and 20 device sockets: answered after %v, all browsers closed after %v, all plugs after %v",
		answered, closed, time.Since(began))
	for _, name := range []string{"a", "b", "c"} {
		testpeer.Eventually(t, "the plugs to be refused when they dial back", func() bool {
			return fleets[name].Refused(http.StatusForbidden) == plugs[name]
		})
	}
	for _, s := range tr.others {
		s.requireOpen()
	}
	if neighbours.Connected() != 5 || neighbours.Dials() != 5 {
		t.Errorf("the neighbours' plugs: %d connected after %d dials", neighbours.Connected(), neighbours.Dials())
	}
	for id, view := range devices(t, tr.nodes["b"].base, sol) {
		if !view.Stale || !*view.Online || *view.RelayOn != *before[id].RelayOn {
			t.Errorf("a plug behind a stopped connection is known as %+v", view)
		}
	}

	command("start", "20s", http.StatusOK)
	testpeer.Eventually(t, "all plugs to be back", func() bool { return connected() == 20 })
	frozen := tr.nodes["c"].process.Process
	if err := frozen.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = frozen.Signal(syscall.SIGCONT) }()
	answer = command("stop", "3s", http.StatusAccepted)
	if answer.Outcome != domain.OutcomeUnknown || fmt.Sprint(answer.Unanswered) != "[c]" || len(answer.Nodes) != 2 {
		t.Errorf("with a frozen process the answer is %+v", answer)
	}
	if fleets["c"].Connected() != plugs["c"] {
		t.Errorf("%d plugs hang on the frozen process", fleets["c"].Connected())
	}
	if err := frozen.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	testpeer.Eventually(t, "the thawed process to do its part", func() bool { return connected() == 0 })
	if n := db.notices(sol, false) + db.notices(luna, false); n != 0 {
		t.Errorf("%d devices were found silent for our closing their sockets", n)
	}
}

// Nobody looks for the devices of a stopped connection. Once it is started, one that
// does not dial in again is found silent.
func TestDeviceThatDoesNotComeBackAfterAStop(t *testing.T) {
	t.Parallel()
	const system domain.SystemID = "clinica-sol"
	d := newDeployment(t)
	n := d.start(t, "", "--silent-after", "2s")
	db := d.database(t)
	fleet := dialledIn(t, createConnection(t, n, system, "acc1"), simulator.FleetConfig{Devices: 2})
	testpeer.Eventually(t, "both plugs", func() bool { return db.devices(system, true) == 2 })
	fleet.Plugs()[0].PowerCut()
	admin := testToken(t, domain.RoleAdmin, system)
	mustCall(t, http.StatusOK, "POST", n.base+"/api/websocket/acc1/stop?wait=20s", admin, nil, nil)
	testpeer.Eventually(t, "the other plug to be refused", func() bool { return fleet.Refused(http.StatusForbidden) == 1 })
	if silent := db.notices(system, false); silent != 0 {
		t.Errorf("%d plugs of a stopped connection were found silent", silent)
	}
	mustCall(t, http.StatusOK, "POST", n.base+"/api/websocket/acc1/start?wait=20s", admin, nil, nil)
	testpeer.Eventually(t, "the plug without power to be found silent", func() bool { return db.notices(system, false) == 1 })
	views := devices(t, n.base, system)
	if gone := views[fleet.Plugs()[0].ID()]; *gone.Online || gone.OfflineReason != domain.ReasonHeartbeatMissed || *gone.RelayOn != true {
		t.Errorf("the plug without power is known as %+v", gone)
	}
	if back := views[fleet.Plugs()[1].ID()]; !*back.Online || back.Stale {
		t.Errorf("the plug that came back is known as %+v", back)
	}
}

// The process that holds the connection to an account of the Shelly Cloud dies:
// another one takes over, never two hold it at once, and the state is the cloud's.
func TestOwnerOfACloudConnectionIsKilled(t *testing.T) {
	t.Parallel()
	const system domain.SystemID = "clinica-sol"
	cloud := shellycloud.New(shellycloud.Config{})
	server := httptest.NewServer(cloud)
	t.Cleanup(server.Close)
	t.Cleanup(cloud.Close)
	account := cloud.AddAccount("6550", server.URL)
	plugs := []*shellycloud.Device{account.AddDevice("8cbfea9a1b2c", 1), account.AddDevice("8cbfea9a1b2d", 4), account.AddDevice("b923fa", 1)}

	d := newDeployment(t)
	key := make([]byte, 32)
	_, _ = rand.Read(key)
	d.env = append(d.env, "PLUGCAST_SECRET_KEY="+base64.StdEncoding.EncodeToString(key),
		"PLUGCAST_CLOUD_HOSTS="+strings.TrimPrefix(server.URL, "http://"))
	nodes := []*node{d.start(t, ""), d.start(t, "")}
	admin := testToken(t, domain.RoleAdmin, system)
	mustCall(t, http.StatusCreated, "POST", nodes[0].base+"/api/v1/systems/clinica-sol/connections", admin,
		map[string]any{"connectionId": "acc1", "kind": domain.ConnectionShellyCloud, "authCode": account.AuthCode()}, nil)

	same := func(base string) bool {
		views := devices(t, base, system)
		for _, p := range plugs {
			for channel := range 4 {
				id := domain.DeviceID(p.ID)
				if channel > 0 {
					id = domain.DeviceID(fmt.Sprintf("%s:%d", p.ID, channel))
				}
				if view, known := views[id]; known && (view.Stale || !*view.Online || !relayIs(views, id, p.On(channel))) {
					return false
				}
			}
		}
		return len(views) == 6
	}
	testpeer.Eventually(t, "the state to be the cloud's", func() bool { return same(nodes[0].base) })
	owner := -1
	testpeer.Eventually(t, "somebody to say that it holds the connection", func() bool {
		for i, n := range nodes {
			if total, _ := sum(scrape(t, n)["plugcast_shelly_cloud_connections"]); total == 1 {
				owner = i
			}
		}
		return owner >= 0
	})
	survivor := nodes[1-owner]
	command, outcome := switched(t, survivor.base, system, "8cbfea9a1b2d:2", !plugs[1].On(2))
	if outcome != domain.OutcomeCompleted {
		t.Errorf("a command through the cloud: %s", outcome)
	}
	testpeer.Eventually(t, "the plug to say so", func() bool {
		return causedUpdate(history(t, survivor.base, system), command, "8cbfea9a1b2d:2", plugs[1].On(2))
	})

	began := time.Now()
	nodes[owner].kill()
	for _, p := range plugs { // nobody hears of this
		p.Press(0, !p.On(0))
	}
	testpeer.Eventually(t, "another to hold the connection", func() bool {
		return account.Counts().Sockets == 1 && account.Counts().Dials == 2
	})
	t.Logf("another process holds the connection %v after its owner was killed", time.Since(began))
	testpeer.Eventually(t, "the state to be the cloud's again", func() bool { return same(survivor.base) })
	plugs[0].Press(0, !plugs[0].On(0))
	testpeer.Eventually(t, "what happens now", func() bool { return same(survivor.base) })
	if most := account.Counts().Most; most != 1 {
		t.Errorf("%d sockets were open at once", most)
	}
	if n := d.database(t).notices(system, false); n != 0 {
		t.Errorf("%d devices were found silent for the connection's breaking off", n)
	}
	for _, e := range history(t, survivor.base, system) {
		if strings.Contains(string(e.Data), account.AuthCode()) {
			t.Error("the code is in an event")
		}
	}
}

// A credential makes up only so many devices, over all processes and also one after
// the other. Operators see which was refused, and nothing of it is in Redis.
func TestOneCredentialMakesUpSoManyDevices(t *testing.T) {
	t.Parallel()
	const system domain.SystemID = "clinica-sol"
	const most = 4
	d := newDeployment(t)
	here, there := d.start(t, "", "--max-devices", fmt.Sprint(most)), d.start(t, "", "--roles", "gateway", "--max-devices", fmt.Sprint(most))
	url := createConnection(t, here, system, "acc1")
	for seed := range most {
		fleet := dialledIn(t, dialIn(url, []*node{here, there}[seed%2]), simulator.FleetConfig{Devices: 1, Seed: uint64(seed)})
		testpeer.Eventually(t, "the plug to be known", func() bool { return relayIs(devices(t, here.base, system), fleet.Plugs()[0].ID(), true) })
		fleet.Plugs()[0].PowerCut()
	}
	refused := map[string]string{}
	for seed, n := range []*node{here, there} {
		plug := dialledIn(t, dialIn(url, n), simulator.FleetConfig{Devices: 1, Seed: uint64(most + seed)}).Plugs()[0]
		var connection struct{ LastRefusals []domain.DeviceRefusal }
		testpeer.Eventually(t, "the refusal to be shown", func() bool {
			mustCall(t, http.StatusOK, "GET", n.base+"/api/v1/systems/"+string(system)+"/connections/acc1",
				testToken(t, domain.RoleOperator, system), nil, &connection)
			for _, r := range connection.LastRefusals {
				if r.DeviceID == plug.ID() {
					refused[string(plug.ID())] = r.Reason
				}
			}
			return refused[string(plug.ID())] != ""
		})
	}
	for id, reason := range refused {
		if reason != "too-many-devices" {
			t.Errorf("%s is refused for %s", id, reason)
		}
	}
	if known := devices(t, here.base, system); len(known) != most {
		t.Errorf("%d devices are known", len(known))
	}
	client := redistest.Connect(t, d.redis.URL())
	for _, key := range client.Keys(t.Context(), "*:seen*").Val() {
		kept, err := client.Dump(t.Context(), key).Result()
		for id := range refused {
			if err != nil || strings.Contains(kept, id) {
				t.Errorf("%s has %s, which was refused (%v)", key, id, err)
			}
		}
	}
}
