package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/streams"
	"github.com/plugcast/plugcast/transport/testpeer"
)

// The two tenants of the benchmark share a partition, so that they share
// everything that tenants can share.
const quiet domain.SystemID = "quiet"

const (
	rounds  = 40     // measurements of each kind under each attack
	plugs   = 50_000 // of the hostile system
	strains = 60     // connections that an attack works with at once
)

// hostile is a system in the same partition as the quiet one.
func (d *deployment) hostile(b *testing.B) domain.SystemID {
	log, err := streams.Open(b.Context(), streams.Config{URL: d.redis.URL()})
	if err != nil {
		b.Fatal(err)
	}
	defer log.Close()
	for i := 0; ; i++ {
		if s := domain.SystemID(fmt.Sprint("hostile-", i)); log.Partition(s) == log.Partition(quiet) {
			return s
		}
	}
}

// BenchmarkNeighbour times one tenant while another does its worst, and reports
// how many times longer everything takes than in quiet: an event from its
// publication to a socket, a read over HTTP, and a forced disconnect from the
// command to the closed socket. All processes share this machine, attackers
// included.
func BenchmarkNeighbour(b *testing.B) {
	d := newDeployment(b)
	// The limits on floods are those of a deployment for many tenants.
	n := d.start(b, "")
	enemy := d.hostile(b)
	fill(b, n.base, enemy)
	v := newVictim(b, n.base)
	var calm timings
	b.Run("quiet", func(b *testing.B) { calm = v.measure(b, nil) })
	for _, attack := range []struct {
		name string
		role domain.Role
	}{
		{"reactions", domain.RoleBridge}, {"unread-answers", domain.RoleViewer}, {"large-reads", domain.RoleViewer},
		{"control-frames", domain.RoleViewer},
	} {
		b.Run(attack.name, func(b *testing.B) {
			end := startAttack(b, attack.name, n.base, enemy, testToken(b, attack.role, enemy))
			v.measure(b, &calm)
			b.ReportMetric(float64(n.residentKiB(b))/1024, "MiB")
			end()
		})
	}
}

// attacks are what the hostile tenant does.
var attacks = map[string]func(ctx context.Context, base string, enemy domain.SystemID, token string){
	"reactions": floodReactions, "unread-answers": neverRead, "large-reads": readLargely, "control-frames": floodFrames,
}

// attackVariable makes the test binary an attacker: its name, base, system and token.
const attackVariable = "PLUGCAST_TEST_ATTACK"

// startAttack runs an attack in a process of its own, which gets only the processor
// time that nobody else wants: strangers have machines of their own.
func startAttack(b *testing.B, name, base string, enemy domain.SystemID, token string) (end func()) {
	b.Helper()
	attacker := exec.Command("nice", "-n", "19", os.Args[0])
	attacker.Env = append(os.Environ(), attackVariable+"="+strings.Join([]string{name, base, string(enemy), token}, " "))
	attacker.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	input, err := attacker.StdinPipe()
	if err == nil {
		err = attacker.Start()
	}
	if err != nil {
		b.Fatal(err)
	}
	return func() {
		_ = input.Close()
		_ = attacker.Wait()
	}
}

// attackUntilEnd is the attacker's process. It ends with its input.
func attackUntilEnd(described string) {
	fields := strings.Fields(described)
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer cancel()
		_, _ = io.Copy(io.Discard, os.Stdin)
	}()
	attacks[fields[0]](ctx, fields[1], domain.SystemID(fields[2]), fields[3])
}

// fill publishes the plugs of the hostile system: 12 MB of state.
func fill(b *testing.B, base string, enemy domain.SystemID) {
	token := testToken(b, domain.RoleService, enemy)
	const size = 1000
	note := strings.Repeat("x", 100)
	for from := 0; from < plugs; from += size {
		batch := make([]map[string]any, size)
		for i := range batch {
			batch[i] = map[string]any{
				"systemId": enemy, "deviceId": fmt.Sprint("plug-", from+i), "online": true, "relayOn": true, "powerW": i,
				"attributes": map[string]string{"note": note},
			}
		}
		mustCall(b, http.StatusOK, "POST", base+"/api/v1/device-updates", token, batch, nil)
	}
	testpeer.Eventually(b, "the plugs to be projected", func() bool {
		status, _, _, err := call(b.Context(), "GET", fmt.Sprintf("%s/api/v1/systems/%s/devices/plug-%d", base, enemy, plugs-1), token, nil)
		return err == nil && status == http.StatusOK
	})
}

// victim is the tenant whose work is timed.
type victim struct {
	base    string
	service string
	admin   string
	sockets *conversation
	seq     int
}

func newVictim(b *testing.B, base string) *victim {
	v := &victim{base: base, service: testToken(b, domain.RoleService, quiet), admin: testToken(b, domain.RoleAdmin, quiet)}
	v.sockets = converse(b, base, v.admin)
	v.sockets.join(quiet)
	v.publish(b)
	return v
}

// timings are what was measured, each sorted.
type timings struct{ delivery, read, disconnect []time.Duration }

// measure takes its rounds and reports them, beside those in quiet.
func (v *victim) measure(b *testing.B, calm *timings) (t timings) {
	b.Helper()
	for b.Loop() {
		for range rounds {
			t.delivery = append(t.delivery, timed(func() { v.publish(b) }))
			t.read = append(t.read, timed(func() {
				mustCall(b, http.StatusOK, "GET", v.base+"/api/v1/systems/"+string(quiet)+"/devices", v.admin, nil, nil)
			}))
		}
		for range rounds / 4 {
			t.disconnect = append(t.disconnect, v.disconnect(b))
		}
	}
	b.ReportMetric(0, "ns/op") // of no meaning here
	for _, of := range []struct {
		name      string
		now, then []time.Duration
	}{{"delivery", t.delivery, calmOf(calm).delivery}, {"read", t.read, calmOf(calm).read},
		{"disconnect", t.disconnect, calmOf(calm).disconnect}} {
		slices.Sort(of.now)
		b.ReportMetric(1000*at(of.now, 0.5).Seconds(), of.name+"-p50-ms")
		b.ReportMetric(1000*at(of.now, 0.99).Seconds(), of.name+"-p99-ms")
		if calm != nil {
			b.ReportMetric(float64(at(of.now, 0.5))/float64(at(of.then, 0.5)), of.name+"-times")
		}
	}
	return t
}

func calmOf(calm *timings) timings {
	if calm == nil {
		return timings{}
	}
	return *calm
}

func at(sorted []time.Duration, quantile float64) time.Duration {
	return sorted[min(int(quantile*float64(len(sorted))), len(sorted)-1)]
}

func timed(f func()) time.Duration {
	start := time.Now()
	f()
	return time.Since(start)
}

// publish sends an update and waits until the socket has it.
func (v *victim) publish(b *testing.B) {
	b.Helper()
	v.seq++
	device := fmt.Sprint("plug-", v.seq%20)
	mustCall(b, http.StatusOK, "POST", v.base+"/api/v1/device-updates", v.service,
		[]map[string]any{{"systemId": quiet, "deviceId": device, "powerW": v.seq}}, nil)
	for {
		var data struct{ PowerW int }
		v.sockets.await(string(domain.TypeDeviceUpdate), &data)
		if data.PowerW == v.seq {
			return
		}
	}
}

// disconnect times from the command to the end of the socket.
func (v *victim) disconnect(b *testing.B) time.Duration {
	b.Helper()
	other := converse(b, v.base, testToken(b, domain.RoleViewer, quiet))
	other.join(quiet)
	start := time.Now()
	mustCall(b, http.StatusAccepted, "POST", v.base+"/api/v1/disconnects", v.admin,
		map[string]any{"systemId": quiet, "subject": "test-viewer"}, nil)
	if code := other.ended(); code != 4409 {
		b.Fatalf("closed with %d", code)
	}
	return time.Since(start)
}

// floodReactions lets the hostile system's back end command relays that nobody
// holds, as fast as the server takes it: every process reacts to each command.
func floodReactions(ctx context.Context, base string, enemy domain.SystemID, token string) {
	url := base + "/api/v1/systems/" + string(enemy) + "/bridge/events?source=elsewhere"
	for n := 0; ctx.Err() == nil; {
		events := make([]map[string]any, 200)
		for i := range events {
			n++
			events[i] = map[string]any{
				"event": domain.TypeRelaySwitchRequested, "position": fmt.Sprint(n, "-0"), "id": fmt.Sprintf("01920000-0000-7000-8000-%012d", n),
				"systemId": enemy, "time": domain.FormatTime(time.Now()), "actor": "x", "version": 1,
				"data": map[string]any{"commandId": fmt.Sprint("c-", n), "deviceId": fmt.Sprint("plug-", n%plugs), "on": true},
			}
		}
		status, _, _, _ := call(ctx, "POST", fmt.Sprintf("%s&after=%d-0&through=%d-0", url, n-len(events), n), token, events)
		if status != http.StatusOK {
			n -= len(events) // refused: the same again
			pause(ctx, 10*time.Millisecond)
		}
	}
}

// neverRead asks for the whole state and does not read the answer.
func neverRead(ctx context.Context, base string, enemy domain.SystemID, token string) {
	strained(func(int) {
		for ctx.Err() == nil {
			conn, err := strangers.DialContext(ctx, "tcp", strings.TrimPrefix(base, "http://"))
			if err != nil {
				pause(ctx, 50*time.Millisecond)
				continue
			}
			_ = conn.(*net.TCPConn).SetReadBuffer(slowReceives)
			_, _ = fmt.Fprintf(conn, "GET /api/v1/systems/%s/snapshot HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n", enemy, token)
			gone := make(chan struct{})
			go waitForEnd(conn, gone)
			select {
			case <-ctx.Done():
			case <-gone:
			}
			_ = conn.Close()
		}
	})
}

// waitForEnd reads one byte a second until the server hangs up.
func waitForEnd(conn net.Conn, gone chan<- struct{}) {
	defer close(gone)
	for tick := time.NewTicker(time.Second); ; <-tick.C {
		if _, err := conn.Read(make([]byte, 1)); err != nil {
			return
		}
	}
}

// readLargely asks for a short list of a large system, again and again.
func readLargely(ctx context.Context, base string, enemy domain.SystemID, token string) {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: strains, DialContext: strangers.DialContext}}
	defer client.CloseIdleConnections()
	strained(func(int) {
		for ctx.Err() == nil {
			request, err := http.NewRequestWithContext(ctx, "GET", base+"/api/v1/systems/"+string(enemy)+"/devices?limit=1", nil)
			if err != nil {
				return
			}
			request.Header.Set("Authorization", "Bearer "+token)
			response, err := client.Do(request)
			if err != nil {
				continue
			}
			_, _ = io.Copy(io.Discard, response.Body)
			_ = response.Body.Close()
			if response.StatusCode == http.StatusTooManyRequests {
				pause(ctx, 10*time.Millisecond)
			}
		}
	})
}

// floodFrames sends frames that cost nothing to send: pings, pongs and empty
// packets, on sockets that are opened again when the server has closed them.
func floodFrames(ctx context.Context, base string, _ domain.SystemID, token string) {
	strained(func(i int) {
		for ctx.Err() == nil {
			if i%2 == 0 {
				floodNative(ctx, base, token)
			} else {
				floodEngine(ctx, base)
			}
			pause(ctx, 10*time.Millisecond)
		}
	})
}

func floodNative(ctx context.Context, base, token string) {
	conn, _, err := strangeDialer.DialContext(ctx, strings.Replace(base, "http://", "ws://", 1)+"/ws",
		http.Header{"Authorization": {"Bearer " + token}})
	if err != nil {
		return
	}
	defer conn.Close()
	go func() { _, _ = io.Copy(io.Discard, conn.NetConn()) }()
	for ctx.Err() == nil {
		for _, kind := range []int{websocket.PingMessage, websocket.PongMessage} {
			if conn.WriteControl(kind, []byte("x"), time.Now().Add(time.Second)) != nil {
				return
			}
		}
	}
}

func floodEngine(ctx context.Context, base string) {
	url := strings.Replace(base, "http://", "ws://", 1) + "/socket.io/?EIO=4&transport=websocket"
	conn, _, err := strangeDialer.DialContext(ctx, url, nil)
	if err != nil {
		return
	}
	defer conn.Close()
	go func() { _, _ = io.Copy(io.Discard, conn.NetConn()) }()
	for ctx.Err() == nil {
		for _, packet := range []string{"6", "3"} {
			if conn.WriteMessage(websocket.TextMessage, []byte(packet)) != nil {
				return
			}
		}
	}
}

// strangers dial from another address of this machine than the timed tenant, as
// they would.
var (
	strangers     = &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	strangeDialer = &websocket.Dialer{NetDialContext: strangers.DialContext}
)

// strained runs an attack over many connections at once.
func strained(attack func(i int)) {
	var all sync.WaitGroup
	for i := range strains {
		all.Go(func() { attack(i) })
	}
	all.Wait()
}
