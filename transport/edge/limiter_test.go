package edge

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/plugcast/plugcast/transport/testpeer"
)

const echoRequest = "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n"

// mustEcho checks that a connection was taken over.
func mustEcho(t *testing.T, c net.Conn) {
	t.Helper()
	if _, err := io.WriteString(c, "hello"); err != nil {
		t.Fatal(err)
	}
	var heard [5]byte
	if _, err := io.ReadFull(c, heard[:]); err != nil || string(heard[:]) != "hello" {
		t.Fatalf("the server said %q (%v)", heard, err)
	}
}

func mustBeRefused(t *testing.T, c net.Conn) {
	t.Helper()
	response, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	if response.StatusCode != http.StatusServiceUnavailable || response.Header.Get("Retry-After") == "" {
		t.Errorf("status %d, %v", response.StatusCode, response.Header)
	}
}

// TestLimits fills an address, then the server, with connections that faces have
// taken over: they count until they are closed.
func TestLimits(t *testing.T) {
	t.Parallel()
	s, address := start(t, Config{MaxConnections: 3, MaxPerAddress: 2}, kinds())
	first := dial(t, address, echoRequest, "127.0.0.1")
	mustEcho(t, first)
	mustEcho(t, dial(t, address, echoRequest, "127.0.0.1"))
	mustBeRefused(t, dial(t, address, echoRequest, "127.0.0.1"))
	mustEcho(t, dial(t, address, echoRequest, "127.0.0.2"))
	mustBeRefused(t, dial(t, address, echoRequest, "127.0.0.3"))
	if got := s.Stats(); got.Connections != 3 || got.RefusedByAddress != 1 || got.RefusedByTotal != 1 {
		t.Errorf("%+v", got)
	}
	_ = first.Close()
	testpeer.Eventually(t, "the place", func() bool { return s.Stats().Connections == 2 })
	mustEcho(t, dial(t, address, echoRequest, "127.0.0.3"))
}

// TestWaitingConnectionsMakeRoom fills an address with connections that have no
// request, of all kinds.
func TestWaitingConnectionsMakeRoom(t *testing.T) {
	t.Parallel()
	s, address := start(t, Config{MaxConnections: 10, MaxPerAddress: 4}, kinds())
	busy := dial(t, address, echoRequest)
	mustEcho(t, busy)
	idle := dial(t, address, "GET /ignores HTTP/1.1\r\nHost: x\r\n\r\n")
	if response, err := http.ReadResponse(bufio.NewReader(idle), nil); err != nil || response.StatusCode != http.StatusOK {
		t.Fatal(err)
	}
	idlers := []net.Conn{idle, dial(t, address, ""), dial(t, address, "GET / HTTP/1.1\r\nUnfinished: ")}
	for range idlers {
		testpeer.Eventually(t, "a place", func() bool {
			c := dial(t, address, echoRequest)
			_, _ = io.WriteString(c, "hello")
			answer, err := bufio.NewReader(c).Peek(5)
			if err == nil && string(answer) == "hello" {
				return true
			}
			_ = c.Close()
			return false
		})
	}
	for _, c := range idlers {
		mustEnd(t, c)
	}
	mustEcho(t, busy)
	mustBeRefused(t, dial(t, address, echoRequest))
	if got := s.Stats(); got.Evicted != 3 || got.Connections != 4 {
		t.Errorf("%+v", got)
	}
}

// TestClientsBehindAProxy has clients that share a proxy's address and are counted apart.
func TestClientsBehindAProxy(t *testing.T) {
	t.Parallel()
	mux := kinds()
	remote := make(chan string, 10)
	mux.HandleFunc("/who", func(_ http.ResponseWriter, r *http.Request) { remote <- r.RemoteAddr })
	s, address := start(t, Config{
		MaxConnections: 20, MaxPerAddress: 2,
		TrustedProxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/30"), netip.MustParsePrefix("10.0.0.0/8")},
	}, mux)
	from := func(chain string) net.Conn {
		return dial(t, address, strings.Replace(echoRequest, "\r\n\r\n", "\r\nX-Forwarded-For: "+chain+"\r\n\r\n", 1))
	}
	first := from("192.0.2.1")
	mustEcho(t, first)
	mustEcho(t, from("198.51.100.9, 192.0.2.1, 10.1.2.3")) // what is before the client's address anybody may write
	mustBeRefused(t, from("192.0.2.1"))
	mustEcho(t, from("192.0.2.2"))
	mustEcho(t, from("2001:db8:1:2::1"))
	mustEcho(t, from("2001:db8:1:2::ffff"))
	mustBeRefused(t, from("2001:db8:1:2:3::1"))
	mustEcho(t, from("2001:db8:1:3::1"))
	_ = first.Close()
	testpeer.Eventually(t, "the place", func() bool {
		s.limiter.mu.Lock()
		defer s.limiter.mu.Unlock()
		return s.limiter.sources["192.0.2.1"].count == 1
	})
	mustEcho(t, from("192.0.2.1"))

	// An address that is not trusted names nobody.
	mustEnd(t, dial(t, address, "GET /who HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 192.0.2.1\r\nConnection: close\r\n\r\n", "127.0.0.9"))
	if at := <-remote; !strings.HasPrefix(at, "127.0.0.9:") {
		t.Errorf("the client is %s", at)
	}
	mustEnd(t, dial(t, address, "GET /who HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 192.0.2.7\r\nConnection: close\r\n\r\n"))
	if at := <-remote; at != "192.0.2.7:0" {
		t.Errorf("the client is %s", at)
	}
}

func TestSource(t *testing.T) {
	t.Parallel()
	for remote, want := range map[string]string{
		"192.0.2.1:80": "192.0.2.1", "192.0.2.1": "192.0.2.1", "[::ffff:192.0.2.1]:80": "192.0.2.1", "[2001:db8::1]:80": "2001:db8::/64",
		"2001:db8:0:0:9::1": "2001:db8::/64", "[fe80::1%eth0]:80": "fe80::/64", "pipe": "pipe",
	} {
		if got := Source(remote); got != want {
			t.Errorf("%s: %s, want %s", remote, got, want)
		}
	}
}

func TestCapacity(t *testing.T) {
	t.Parallel()
	for descriptors, want := range map[uint64]int{
		16: 8, 256: 128, 1024: 768, 20_000: 17_500, 1 << 20: 1 << 16, 1 << 63: 1 << 16,
	} {
		if got := Capacity(descriptors); got != want {
			t.Errorf("%d descriptors: %d connections, want %d", descriptors, got, want)
		}
	}
}

// A configuration with more connections than file descriptors is refused at start.
func TestValidate(t *testing.T) {
	t.Parallel()
	for _, c := range []Config{{MaxConnections: -1}, {MaxPerAddress: -1}, {MaxConnections: 1 << 40}, {MaxConnections: int(descriptors())}} {
		if _, err := New(c, http.NotFoundHandler()); err == nil {
			t.Errorf("%+v is accepted", c)
		}
	}
}

func TestParseProxies(t *testing.T) {
	t.Parallel()
	proxies, err := ParseProxies([]string{"10.1.2.3/8", " 127.0.0.1", "::1", "::ffff:192.0.2.1"})
	if err != nil {
		t.Fatal(err)
	}
	c := Config{TrustedProxies: proxies}
	for address, want := range map[string]bool{"10.9.9.9": true, "127.0.0.1": true, "127.0.0.2": false, "::1": true, "192.0.2.1": true} {
		if got := c.trusts(netip.MustParseAddr(address)); got != want {
			t.Errorf("%s: %v", address, got)
		}
	}
	for _, bad := range []string{"", "proxy.example.net", "10.0.0.0/99", "fe80::1%eth0"} {
		if _, err := ParseProxies([]string{bad}); err == nil || !strings.Contains(err.Error(), bad) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// TestAcceptErrors has a listener that sometimes fails, as without free file descriptors:
// the server continues.
func TestAcceptErrors(t *testing.T) {
	t.Parallel()
	s, err := New(Config{}, kinds())
	if err != nil {
		t.Fatal(err)
	}
	under, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	failing := &exhausted{Listener: under, left: 3}
	served := make(chan error, 1)
	go func() { served <- s.Serve(failing) }()
	c := dial(t, under.Addr().String(), echoRequest)
	mustEcho(t, c)
	if got := s.Stats().AcceptErrors; got != 3 {
		t.Errorf("%d errors were counted", got)
	}
	_ = s.Close()
	if err := <-served; err != nil {
		t.Error(err)
	}
	_ = c.Close()
	testpeer.Eventually(t, "the connection to be gone", func() bool { return s.Stats().Connections == 0 })
}

// exhausted is a listener that fails several times before it accepts.
type exhausted struct {
	net.Listener
	left int
}

func (e *exhausted) Accept() (net.Conn, error) {
	if e.left--; e.left >= 0 {
		return nil, &net.OpError{Op: "accept", Err: tooManyFiles{}}
	}
	return e.Listener.Accept()
}

type tooManyFiles struct{}

func (tooManyFiles) Error() string   { return "too many open files" }
func (tooManyFiles) Timeout() bool   { return false }
func (tooManyFiles) Temporary() bool { return true }

var _ net.Error = tooManyFiles{}

func TestRefusalsAreLoggedNowAndThen(t *testing.T) {
	t.Parallel()
	var l limiter
	now := time.Now()
	if !l.warn(0, now) || l.warn(0, now.Add(warnEvery-1)) || !l.warn(1, now) || !l.warn(0, now.Add(warnEvery)) {
		t.Error("not as often as it should be")
	}
}
