package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/testpeer"
)

// raw opens a connection and sends text over it.
func raw(t *testing.T, base, text string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(base, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(2 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	return c
}

// Requests whose bodies never come end, wherever they go: each used up a file
// descriptor for as long as the client liked.
func TestBodiesThatNeverCome(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	n := d.start(t, "")
	socket := converse(t, n.base, testToken(t, domain.RoleViewer, "clinica-sol"))
	socket.join("clinica-sol")

	token := testToken(t, domain.RoleService)
	open := map[string]net.Conn{}
	for _, base := range []string{n.base, n.admin} {
		for _, path := range []string{
			"/", "/healthz", "/readyz", "/metrics", "/ws", "/socket.io/?EIO=4&transport=polling", "/api/socket/init", "/shelly/lab/secret",
			"/shelly/", "/docs", "/api/v1/device-updates", "/api/v1/systems/clinica-sol/devices", "/api/v1/systems/clinica-sol/events/stream",
			"/web/app.js", "/nothing", "/debug/pprof/", "*",
		} {
			for _, method := range []string{"GET", "POST", "OPTIONS"} {
				for _, promise := range []string{
					"Content-Length: 9\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n", "Content-Length: 9\r\nExpect: 100-continue\r\n\r\n",
				} {
					if path == "/api/v1/systems/clinica-sol/events/stream" && method == "GET" {
						continue // a stream that is open stays open
					}
					request := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\n%s", method, path, token, promise)
					open[base+" "+method+" "+path+" "+promise] = raw(t, base, request)
				}
			}
		}
	}
	for request, c := range open {
		_, err := io.Copy(io.Discard, c)
		if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
			t.Errorf("%q is still open", request)
		}
	}

	// Sockets that are open on purpose have outlived all of them.
	mustCall(t, http.StatusOK, "POST", n.base+"/api/v1/device-updates", token,
		`[{"systemId":"clinica-sol","deviceId":"plug-1","online":true}]`, nil)
	socket.await("device-update", nil)
}

// With as many connections as there may be, clients are refused in words, Redis and
// Postgres are reached, and operators are told.
func TestConnectionLimit(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	n := d.start(t, "", "--max-connections", "60", "--max-connections-per-address", "40")
	token := testToken(t, domain.RoleViewer, "clinica-sol")
	var open []*websocket.Conn // which no newcomer pushes aside; one that nobody holds, the collector closes
	defer func() {
		for _, conn := range open {
			_ = conn.Close()
		}
	}()
	testpeer.Eventually(t, "40 sockets", func() bool { // the connection of the readiness check may still be counted
		if conn, err := dial(t.Context(), n.base, token); err == nil {
			open = append(open, conn)
		}
		return len(open) == 40
	})
	answer, err := io.ReadAll(raw(t, n.base, "GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n"))
	if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 503 ") || !strings.Contains(string(answer), "too many connections") {
		t.Errorf("refused with %q (%v)", answer, err)
	}
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	other := &http.Client{Transport: &http.Transport{DialContext: dialer.DialContext}}
	response, err := other.Get(n.base + "/readyz")
	if err != nil || response.StatusCode != http.StatusOK {
		t.Errorf("another address is refused: %v", err)
	}
	status, _, metrics, err := call(t.Context(), "GET", n.admin+"/metrics", "", nil)
	if err != nil || status != http.StatusOK {
		t.Fatal(err)
	}
	for _, line := range []string{`plugcast_client_connections_refused_total{limit="address"}`, "plugcast_client_connections_limit 60"} {
		if !strings.Contains(string(metrics), line) {
			t.Errorf("no %s in the metrics", line)
		}
	}
	if !strings.Contains(n.output.Tail(), "--max-connections-per-address") {
		t.Errorf("no warning: %s", n.output.Tail())
	}
}

// The operators' server answers to its own names only: a page of the Internet can
// have a browser ask it under the page's name.
func TestAdminHosts(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	n := d.start(t, "", "--admin-hosts", "metrics.example.net,Plugcast-Admin")
	port := n.admin[strings.LastIndex(n.admin, ":"):]
	for host, want := range map[string]int{
		"127.0.0.1" + port: 200, "127.0.0.1": 200, "[::1]" + port: 200, "10.1.2.3": 200, "localhost" + port: 200, "LOCALHOST": 200,
		"metrics.example.net": 200, "plugcast-admin" + port: 200,
		"evil.example": 421, "evil.example" + port: 421, "127.0.0.1.evil.example": 421, "localhost.evil.example": 421,
	} {
		request, err := http.NewRequestWithContext(t.Context(), "GET", n.admin+"/debug/pprof/cmdline", nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Host = host
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		if response.StatusCode != want {
			t.Errorf("%s: status %d, want %d", host, response.StatusCode, want)
		}
	}
}

// A dial-in key in a path that is none of ours stays out of the logs.
func TestUnknownPathsAreNotLogged(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	n := d.start(t, "", "--log-level", "debug")
	const key = "the-secret-key-of-a-plug"
	for _, path := range []string{
		"/Shelly/lab/", "/shelly/lab/x/", "//shelly/lab/", "/api/v1/shelly/lab/", "/api/v1/systems/", "/socket.io/", "/ws/", "/web/",
	} {
		raw := raw(t, n.base, "GET "+path+key+"?ticket="+key+"&auth="+key+" HTTP/1.1\r\nHost: localhost\r\n"+
			"Referer: http://x/"+key+"\r\nConnection: close\r\n\r\n")
		if _, err := io.Copy(io.Discard, raw); err != nil {
			t.Fatal(err)
		}
	}
	raw := raw(t, n.base, key+"\r\n\r\n")
	if _, err := io.Copy(io.Discard, raw); err != nil {
		t.Fatal(err)
	}
	n.kill()
	if strings.Contains(n.output.String(), key) {
		t.Errorf("the key is logged: %s", n.output.String())
	}
	if !strings.Contains(n.output.String(), `"msg":"request"`) {
		t.Error("requests are not logged at all")
	}
}

// Clients that ask and do not read the answers are cut, and give back what they held.
func TestAnswersNobodyReads(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	n := d.start(t, "")
	const readers = 20
	requests := strings.Repeat("GET /docs HTTP/1.1\r\nHost: localhost\r\n\r\n", 200)
	for range readers {
		c := raw(t, n.base, "")
		go func() { // until the server gives up
			for {
				if _, err := io.WriteString(c, requests); err != nil {
					return
				}
			}
		}()
	}
	testpeer.Eventually(t, "the readers to be there", func() bool { return connections(t, n) >= readers })
	testpeer.Within(t, 2*time.Minute, "the readers to be cut", func() bool { return connections(t, n) < readers/2 })
}

// connections is how many a node counts.
func connections(t *testing.T, n *node) int {
	t.Helper()
	_, _, metrics, err := call(t.Context(), "GET", n.admin+"/metrics", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(metrics), "\nplugcast_client_connections ")
	var count int
	if _, err := fmt.Sscan(rest, &count); err != nil {
		t.Fatal(err)
	}
	return count
}

// Handshakes that nobody goes on with, also from the same address, push out no
// client that is logging in.
func TestFloodOfHandshakes(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	n := d.start(t, "")
	const (
		handshakes = 15_000
		flooders   = 3
		path       = "/socket.io/?EIO=4&transport=polling"
	)
	begin := func() string {
		_, _, answer, err := call(t.Context(), "GET", n.base+path, "", nil)
		var open struct{ SID string }
		if err != nil || json.Unmarshal(bytes.TrimPrefix(answer, []byte("0")), &open) != nil {
			t.Fatalf("%s (%v)", answer, err)
		}
		return open.SID
	}
	// A client polls as soon as it has a session, while it sends its token.
	slow, answered := begin(), make(chan string, 1)
	go func() {
		_, _, answer, err := call(t.Context(), "GET", n.base+path+"&sid="+slow, "", nil)
		answered <- fmt.Sprintf("%s (%v)", answer, err)
	}()
	var flood sync.WaitGroup
	for range flooders {
		flood.Go(func() {
			for range handshakes / flooders {
				if status, _, _, err := call(t.Context(), "GET", n.base+path, "", nil); err != nil || status != http.StatusOK {
					t.Errorf("a handshake: %d (%v)", status, err)
					return
				}
			}
		})
	}
	flood.Wait()
	token := testToken(t, domain.RoleViewer, "clinica-sol")
	if status, _, _, err := call(t.Context(), "POST", n.base+path+"&sid="+slow, "",
		`40{"token":"`+token+`"}`); err != nil || status != http.StatusOK {
		t.Fatalf("after the flood: %d (%v)", status, err)
	}
	if answer := <-answered; !strings.HasPrefix(answer, "40{") {
		t.Errorf("the client is not connected: %s", answer)
	}
}
