package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/jackc/pgx/v5"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/testpeer"
)

// The tests of this file let plugs dial in by the hundreds, as processes of their
// own that can lose their power.

// createConnection makes an outbound connection and returns where its devices
// dial in, at the node.
func createConnection(t *testing.T, n *node, system domain.SystemID, id domain.ConnectionID) string {
	t.Helper()
	var created struct {
		DialInURL string `json:"dialInUrl"`
	}
	mustCall(t, http.StatusCreated, "POST", n.base+"/api/v1/systems/"+string(system)+"/connections", testToken(t, domain.RoleAdmin, system),
		map[string]any{"connectionId": id, "kind": domain.ConnectionShellyOutbound, "name": "test"}, &created)
	if !strings.HasPrefix(created.DialInURL, strings.Replace(n.base, "http", "ws", 1)+"/shelly/"+string(id)+"/") {
		t.Fatalf("devices are to dial %q", created.DialInURL)
	}
	return created.DialInURL
}

// dialIn is a connection's URL at another node.
func dialIn(url string, n *node) string {
	_, path, _ := strings.Cut(strings.TrimPrefix(url, "ws://"), "/")
	return strings.Replace(n.base, "http", "ws", 1) + "/" + path
}

// simulated is a plugcast simulate that runs.
type simulated struct {
	process *exec.Cmd
	output  *testpeer.Buffer
	ended   chan struct{}
}

func simulate(t *testing.T, url string, args ...string) *simulated {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	s := &simulated{output: &testpeer.Buffer{}, ended: make(chan struct{})}
	s.process = exec.Command(path, append([]string{"simulate", "--url", url}, args...)...)
	s.process.Env = append(os.Environ(), "PLUGCAST_LOG_LEVEL=warn")
	s.process.Stdout, s.process.Stderr = s.output, s.output
	s.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.process.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = s.process.Wait()
		close(s.ended)
	}()
	t.Cleanup(func() {
		s.powerCut()
		if t.Failed() {
			t.Logf("output of the simulator:\n%s", s.output.Tail())
		}
	})
	return s
}

// powerCut ends all plugs at once.
func (s *simulated) powerCut() {
	_ = s.process.Process.Kill()
	<-s.ended
}

// database asks a deployment's Postgres.
type database struct {
	t    *testing.T
	conn *pgx.Conn
}

func (d *deployment) database(t *testing.T) *database {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), d.postgres)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	return &database{t, conn}
}

func (d *database) count(query string, args ...any) (n int) {
	d.t.Helper()
	if err := d.conn.QueryRow(d.t.Context(), "SELECT count(*) FROM "+query, args...).Scan(&n); err != nil {
		d.t.Fatal(err)
	}
	return n
}

func (d *database) devices(system domain.SystemID, online bool) int {
	return d.count("projection.devices WHERE system_id = $1 AND online = $2", system, online)
}

// notices counts the notices of silence, or of return, of a system.
func (d *database) notices(system domain.SystemID, online bool) int {
	return d.count("history WHERE system_id = $1 AND type = 'device-offline-status' AND (data::json->>'online')::boolean = $2", system, online)
}

// A whole region loses its power and gets it back: one notice each way for each
// plug, and the other centres go on as if nothing had happened.
func TestPowerCutOfFiveThousandDevices(t *testing.T) {
	t.Parallel()
	const region, bystander domain.SystemID = "region", "bystander"
	perNode := 2500
	if testing.Short() {
		perNode = 800
	}
	d := newDeployment(t)
	nodes := []*node{d.start(t, ""), d.start(t, "")}
	db := d.database(t)
	url := createConnection(t, nodes[0], region, "plugs")
	powerUp := func() (fleets []*simulated) {
		for i, n := range nodes {
			fleets = append(fleets, simulate(t, dialIn(url, n), "--devices", strconv.Itoa(perNode), "--rate", "0", "--seed", []string{"1", "2"}[i]))
		}
		return fleets
	}
	fleets := powerUp()
	testpeer.Within(t, 5*time.Minute, "all plugs to be online", func() bool { return db.devices(region, true) == len(nodes)*perNode })
	if n := db.notices(region, true) + db.notices(region, false); n != 0 {
		t.Errorf("%d notices before anything happened", n)
	}

	calm := bystanders(t, nodes, bystander, func() {
		pause(t.Context(), 3*time.Second)
	})
	cut := bystanders(t, nodes, bystander, func() {
		for _, f := range fleets {
			f.powerCut()
		}
		testpeer.Within(t, 5*time.Minute, "all plugs to be silent", func() bool { return db.devices(region, false) == len(nodes)*perNode })
	})
	back := bystanders(t, nodes, bystander, func() {
		powerUp()
		testpeer.Within(t, 5*time.Minute, "all plugs to be back", func() bool { return db.notices(region, true) >= len(nodes)*perNode })
	})
	t.Logf("a bystander's time from publishing to its socket, median and 99th percentile: "+
		"calm %v, during the cut %v, during the return %v", calm, cut, back)
	if off, on := db.notices(region, false), db.notices(region, true); off != len(nodes)*perNode || on != len(nodes)*perNode {
		t.Errorf("%d notices of silence and %d of return for %d plugs", off, on, len(nodes)*perNode)
	}
	if online := db.devices(region, true); online != len(nodes)*perNode {
		t.Errorf("%d of the plugs are online", online)
	}
}

// bystanders publishes for a system at one node and reads at another for as long
// as something else happens, misses nothing, and returns the median and the 99th
// percentile of the time that an event took.
func bystanders(t *testing.T, nodes []*node, system domain.SystemID, happens func()) (percentiles [2]time.Duration) {
	t.Helper()
	service := testToken(t, domain.RoleService, system)
	reader := converse(t, nodes[1].base, service)
	reader.join(system)
	over := make(chan struct{})
	var took []time.Duration
	var publishing sync.WaitGroup
	publishing.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-over:
				return
			default:
			}
			lasted, err := roundTrip(t.Context(), nodes[0], service, system, reader.conn, n)
			if err != nil {
				t.Error(err)
				return
			}
			took = append(took, lasted)
			pause(t.Context(), 20*time.Millisecond)
		}
	})
	happens()
	close(over)
	publishing.Wait()
	if len(took) == 0 {
		t.Fatal("the bystander heard nothing")
	}
	slices.Sort(took)
	return [2]time.Duration{took[len(took)/2], took[len(took)*99/100]}
}

// roundTrip is how long an update takes from its publisher to a socket.
func roundTrip(
	ctx context.Context, n *node, token string, system domain.SystemID, reader *websocket.Conn, power int,
) (time.Duration, error) {
	began := time.Now()
	status, _, answer, err := call(ctx, "POST", n.base+"/api/v1/device-updates", token,
		[]map[string]any{{"systemId": system, "deviceId": "lamp", "powerW": power}})
	if err != nil || status != http.StatusOK {
		return 0, fmt.Errorf("publish: status %d %s: %w", status, answer, err)
	}
	for {
		_ = reader.SetReadDeadline(time.Now().Add(patience))
		frames, err := readFrames(reader)
		if err != nil {
			return 0, fmt.Errorf("read: %w", err)
		}
		for _, f := range frames {
			if f.Event == string(domain.TypeDeviceUpdate) {
				return time.Since(began), nil
			}
		}
	}
}
