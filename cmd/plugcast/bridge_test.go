package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/streams/childproc/scratch"
	"github.com/plugcast/plugcast/streams/redisserver/redistest"
	"github.com/plugcast/plugcast/transport/bridge"
	"github.com/plugcast/plugcast/transport/testpeer"
	"github.com/plugcast/plugcast/transport/testpeer/netcut"
)

// bridgesFile configures a link to a far end.
func bridgesFile(t *testing.T, name, url string, system domain.SystemID, direction bridge.Direction) string {
	t.Helper()
	dir := t.TempDir()
	token := filepath.Join(dir, "token")
	config := filepath.Join(dir, "bridges.json")
	text := fmt.Sprintf(`{"bridges":[{"name":%q,"kind":"plugcast","url":%q,"token":{"file":%q},"systems":[{"system":%q,"direction":%q}]}]}`,
		name, url, token, system, direction)
	for path, content := range map[string]string{token: testToken(t, domain.RoleBridge, system), config: text} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return config
}

// site is a deployment with one process, which a test can kill and restart at the same address.
type site struct {
	*deployment
	name    string
	address string
	args    []string

	mu   sync.Mutex
	node *node
}

func newSite(t *testing.T, name string) *site {
	t.Helper()
	return &site{deployment: newDeployment(t), name: name, address: freeAddress(t)}
}

func (s *site) run(t *testing.T) {
	t.Helper()
	n := s.start(t, s.address, s.args...)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.node = n
}

func (s *site) crash() {
	s.mu.Lock()
	n := s.node
	s.mu.Unlock()
	n.kill()
}

func (s *site) base() string { return "http://" + s.address }

// publisher publishes updates, one by one, until it has had so many accepted.
func (s *site) publish(ctx context.Context, token string, system domain.SystemID, count int) error {
	for i := range count {
		body := fmt.Sprintf(`[{"systemId":%q,"deviceId":"%s-%d","online":true,"powerW":%d}]`, system, s.name, i%7, i)
		for {
			status, _, _, err := call(ctx, "POST", s.base()+"/api/v1/device-updates", token, body,
				"Idempotency-Key", fmt.Sprintf("%s-%d", s.name, i))
			if err == nil && status == 200 {
				break
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			pause(ctx, 50*time.Millisecond)
		}
		pause(ctx, 5*time.Millisecond)
	}
	return nil
}

// history is what the site's history has of a system, by id.
func (s *site) history(t *testing.T, system domain.SystemID) map[string]domain.Event {
	t.Helper()
	token := testToken(t, domain.RoleAuditor, system)
	all := map[string]domain.Event{}
	after := "0-0"
	for {
		var page struct {
			Events []domain.Event `json:"events"`
		}
		mustCall(t, 200, "GET", s.base()+"/api/v1/systems/"+string(system)+"/events?limit=1000&after="+after, token, nil, &page)
		for _, e := range page.Events {
			if _, twice := all[e.ID]; twice {
				t.Errorf("%s has event %s twice", s.name, e.ID)
			}
			all[e.ID] = e
			after = e.Position.String()
		}
		if len(page.Events) < 1000 {
			return all
		}
	}
}

func (s *site) events(t *testing.T, system domain.SystemID) int {
	t.Helper()
	return s.database(t).count("history WHERE system_id = $1", system)
}

// deploymentOf is the id that a site tells to staff.
func (s *site) identity(t *testing.T) string {
	t.Helper()
	var answer struct {
		Deployment string `json:"deployment"`
	}
	mustCall(t, 200, "GET", s.base()+"/api/v1/bridges", testToken(t, domain.RoleStaff), nil, &answer)
	return answer.Deployment
}

// statuses are the site's bridges as its command shows them.
func (s *site) statuses(t *testing.T) []bridge.Status {
	t.Helper()
	var answer struct {
		Bridges []bridge.Status `json:"bridges"`
	}
	if err := json.Unmarshal([]byte(s.command(t, "bridge", "status", "--json", "--url", s.base())), &answer); err != nil {
		t.Fatal(err)
	}
	return answer.Bridges
}

// Two deployments bridged both ways from both ends, so that every event is sent
// twice over. The link is cut and mended, each end is killed, and load never stops:
// both histories have each event of both once, and know where it is from.
func TestTwoDeploymentsBridgedBothWays(t *testing.T) {
	t.Parallel()
	const system, perSite = "clinica-sol", 600
	edge, cloud := newSite(t, "edge"), newSite(t, "cloud")
	toCloud, toEdge := netcut.New(t, cloud.address), netcut.New(t, edge.address)
	edge.args = []string{"--bridges", bridgesFile(t, "cloud", toCloud.URL(), system, bridge.Both)}
	cloud.args = []string{"--bridges", bridgesFile(t, "edge", toEdge.URL(), system, bridge.Both)}
	edge.run(t)
	cloud.run(t)

	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	token := testToken(t, domain.RoleService, system)
	var load sync.WaitGroup
	for _, s := range []*site{edge, cloud} {
		load.Go(func() {
			if err := s.publish(ctx, token, system, perSite); err != nil {
				t.Errorf("publish at %s: %v", s.name, err)
			}
		})
	}
	connected := func(s *site) func() bool {
		return func() bool {
			list := s.statuses(t)
			return len(list) == 1 && list[0].Connected && time.Since(list[0].At) < 5*time.Second
		}
	}
	testpeer.Eventually(t, "the edge's link to be up", connected(edge))
	testpeer.Eventually(t, "the cloud's link to be up", connected(cloud))
	toCloud.Cut()
	toEdge.Cut()
	edge.crash()
	edge.run(t)
	toCloud.Mend()
	toEdge.Mend()
	testpeer.Eventually(t, "the edge's link to be up again", connected(edge))
	cloud.crash()
	cloud.run(t)
	load.Wait()

	for _, s := range []*site{edge, cloud} {
		testpeer.Eventually(t, s.name+" to have everything", func() bool { return s.events(t, system) >= 2*perSite })
	}
	testpeer.Eventually(t, "the links to have nothing left", func() bool {
		for _, s := range []*site{edge, cloud} {
			for _, status := range s.statuses(t) {
				if !status.Connected || status.Push.Behind+status.Pull.Behind > 0 {
					return false
				}
			}
		}
		return true
	})
	checkSame(t, edge, cloud, system, 2*perSite)
}

// checkSame demands that two sites have the same events, each once, and know whose
// they are.
func checkSame(t *testing.T, a, b *site, system domain.SystemID, count int) {
	t.Helper()
	for _, s := range []*site{a, b} {
		s.verify(t, system)
		if n := s.events(t, system); n != count {
			t.Errorf("%s has %d events, want %d", s.name, n, count)
		}
	}
	ofA, ofB := a.history(t, system), b.history(t, system)
	idOfA, idOfB := a.identity(t), b.identity(t)
	if len(ofA) != len(ofB) {
		t.Fatalf("%s has %d events, %s has %d", a.name, len(ofA), b.name, len(ofB))
	}
	for id, here := range ofA {
		there, known := ofB[id]
		if !known {
			t.Fatalf("%s lacks %s", b.name, id)
		}
		if !(here.Origin == "" && there.Origin == idOfA || here.Origin == idOfB && there.Origin == "") {
			t.Errorf("event %s has origin %q and %q", id, here.Origin, there.Origin)
		}
		if string(here.Data) != string(there.Data) || !here.Time.Equal(there.Time) || here.Actor != there.Actor ||
			here.Type != there.Type || here.CorrelationID != there.CorrelationID {
			t.Errorf("event %s differs: %+v and %+v", id, here, there)
		}
	}
}

// A far end lost imported events that it had not archived. They stay here, the link reports the
// gap, and later events of the far end are imported, whichever end has the link.
func TestBridgeAfterTheFarEndWasSetBack(t *testing.T) {
	t.Parallel()
	for _, direction := range []bridge.Direction{bridge.Pull, bridge.Push} {
		t.Run(string(direction), func(t *testing.T) {
			t.Parallel()
			const system, lost, kept = "clinica-sol", 5, 3
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			token := testToken(t, domain.RoleService, system)
			far, near := newSite(t, "far"), newSite(t, "near")
			publish := func(count int) {
				t.Helper()
				if err := far.publish(ctx, token, system, count); err != nil {
					t.Fatal(err)
				}
			}
			far.args = []string{"--roles", "gateway"} // nobody archives
			far.run(t)
			near.args = []string{"--bridges", bridgesFile(t, "far", far.base(), system, bridge.Pull)}
			near.run(t)
			publish(lost)
			testpeer.Eventually(t, "what will be lost to come over", func() bool { return near.events(t, system) == lost })
			far.crash()
			far.redis = redistest.New(t)
			far.env = append(far.env, "PLUGCAST_REDIS_URL="+far.redis.URL())
			far.args = nil
			linked, flow := near, func(s bridge.Status) *bridge.Flow { return s.Pull }
			if direction == bridge.Push {
				near.crash()
				near.args = nil
				near.run(t)
				far.args = []string{"--bridges", bridgesFile(t, "near", near.base(), system, bridge.Push)}
				linked, flow = far, func(s bridge.Status) *bridge.Flow { return s.Push }
			}
			far.run(t)
			testpeer.Eventually(t, "the gap to be said", func() bool {
				list := linked.statuses(t)
				return len(list) == 1 && flow(list[0]).Gaps == 1 && list[0].Connected
			})
			publish(kept)
			testpeer.Eventually(t, "the rest to come over", func() bool {
				return near.events(t, system) >= lost+kept && far.events(t, system) >= kept
			})
			if here, there := len(near.history(t, system)), len(far.history(t, system)); here != lost+kept || there != kept {
				t.Errorf("%d events are here and %d there, want %d and %d", here, there, lost+kept, kept)
			}
		})
	}
}

// A relay command that is given at the cloud is carried out where the plug is, and
// its outcome shows at the cloud.
func TestRelayCommandOverABridge(t *testing.T) {
	t.Parallel()
	const system = "clinica-sol"
	edge, cloud := newSite(t, "edge"), newSite(t, "cloud")
	edge.args = []string{"--bridges", bridgesFile(t, "cloud", cloud.base(), system, bridge.Both)}
	cloud.run(t)
	edge.run(t)
	plugs := simulate(t, createConnection(t, edge.node, system, "plugs"), "--devices", "1")
	var id domain.DeviceID
	testpeer.Eventually(t, "the plug to show at the cloud", func() bool {
		for device := range devices(t, cloud.base(), system) {
			id = device
		}
		return id != ""
	})
	commandID, outcome := switched(t, cloud.base(), system, id, true)
	if outcome != domain.OutcomeCompleted {
		t.Errorf("the command at the cloud ended with %s", outcome)
	}
	testpeer.Eventually(t, "the relay to be on at the cloud", func() bool { return relayIs(devices(t, cloud.base(), system), id, true) })
	for _, s := range []*site{edge, cloud} {
		outcomes := func() (n int) {
			for _, e := range s.history(t, system) {
				if e.Type == domain.TypeRelaySwitchCompleted && strings.Contains(string(e.Data), commandID) {
					n++
				}
			}
			return n
		}
		testpeer.Eventually(t, "the outcome at "+s.name, func() bool { return outcomes() > 0 })
		if n := outcomes(); n != 1 {
			t.Errorf("%s has %d outcomes", s.name, n)
		}
	}

	// A plug that is gone is the edge's to declare silent, and nobody else's.
	plugs.powerCut()
	if commandID, outcome := switched(t, cloud.base(), system, id, false); outcome == domain.OutcomeCompleted {
		t.Errorf("a plug without power was switched by %s", commandID)
	}
}

// Texts of another server cannot control the terminal that shows them.
func TestBridgeCommandsShowForeignTexts(t *testing.T) {
	t.Parallel()
	now := time.Now()
	const clear = "\x1b[2J\u009b2J\n\u202e"
	var out strings.Builder
	status := bridge.Status{Bridge: "cloud", System: "clinica-sol", At: now, LastError: "it says " + clear, LastErrorAt: &now}
	report := domain.FindingsReport{Findings: []domain.Finding{
		{Kind: domain.FindingRejected, Link: "old", System: "clinica-sol", Detail: clear, There: json.RawMessage(`"` + "\u009b2J\u202e" + `"`)},
	}}
	if err := errors.Join(showBridges(&out, "us", []bridge.Status{status}, now), showReport(&out, &report)); err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(out.String(), "\x1b\u009b\u202e") || !strings.Contains(out.String(), "it says [2J2J\n") {
		t.Errorf("%q", out.String())
	}
}

// plugcast dev has bridges as serve does.
func TestDevWithBridges(t *testing.T) {
	t.Parallel()
	const system = "clinica-sol"
	cloud := newSite(t, "cloud")
	cloud.run(t)
	edge := startDev(t, filepath.Join(scratch.For(t), "data"), "--demo=false",
		"--bridges", bridgesFile(t, "cloud", cloud.base(), system, bridge.Both))
	edge.append(t, edge.env(t)["PLUGCAST_JWT_SECRET"], system, 41)
	testpeer.Eventually(t, "the edge's event at the cloud", func() bool { return cloud.events(t, system) == 1 })
	if err := cloud.publish(t.Context(), testToken(t, domain.RoleService, system), system, 1); err != nil {
		t.Fatal(err)
	}
	testpeer.Eventually(t, "the cloud's event at the edge", func() bool {
		return strings.Contains(edge.history(t, edge.env(t)["PLUGCAST_JWT_SECRET"], system), "cloud-0")
	})
}
