package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/plugcast/plugcast/domain"
)

// What a reader that stops is measured with: for stillness, events come at a
// steady rate that is far below the limits, and are many times what the buffers
// of two loopback connections hold.
const (
	slowPace     = 250 * time.Millisecond
	slowBatch    = 500      // events
	slowPadding  = 1500     // bytes of attributes
	slowMemory   = 96 << 10 // KiB that the node may grow by; the events are over 55 MB, and garbage doubles what is kept
	slowReceives = 32 << 10 // bytes of the stopped readers' receive buffers
)

// slowBatches is how many batches come: half a minute of them, or half of that.
func slowBatches() int {
	if testing.Short() {
		return 60
	}
	return 120
}

func slowEvents() int { return slowBatches() * slowBatch }

// dialSlowly is dial with a small receive buffer, so that the kernel does not
// read for a reader that does not.
func dialSlowly(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err == nil {
		err = conn.(*net.TCPConn).SetReadBuffer(slowReceives)
	}
	return conn, err
}

// stopped is a reader that has joined and does not read.
type stopped struct {
	socket
	what string
	read func() error // to the last event
}

// stopWebSocket joins over WebSocket and reads no further than that.
func stopWebSocket(t *testing.T, base, token string, system domain.SystemID) *stopped {
	t.Helper()
	dialer := websocket.Dialer{NetDialContext: dialSlowly}
	conn, _, err := dialer.DialContext(t.Context(), strings.Replace(base, "http://", "ws://", 1)+"/ws",
		http.Header{"Authorization": {"Bearer " + token}})
	c := newConversation(t, conn, err)
	s := &stopped{what: "the WebSocket", socket: socket{system: system}}
	c.join(system)
	_ = conn.SetReadDeadline(time.Time{})
	s.read = func() error { return s.socket.read(conn, isLastSlow) }
	return s
}

// stopStream opens an event stream and reads no further than its head.
func stopStream(t *testing.T, base, token string, system domain.SystemID) *stopped {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DialContext: dialSlowly, ReadBufferSize: 4 << 10}}
	stream := openStreamWith(t, client, http.StatusOK, base, system, "", token)
	s := &stopped{what: "the event stream", socket: socket{system: system}}
	s.read = func() error {
		for !isLastSlow(s.last()) {
			_, data, more := stream.next()
			if !more {
				return fmt.Errorf("the stream ended: %v", stream.lines.Err())
			}
			rest := []byte(data)
			if at, event, found := nextEvent(&rest); found {
				s.take(at, event)
			}
		}
		return nil
	}
	return s
}

func isLastSlow(at place) bool { return at.seq >= uint64(slowEvents()) }

// publishSteadily publishes all events at a steady pace and returns the most
// memory that the node had.
func publishSteadily(t *testing.T, base, token string, system domain.SystemID, watched *node) (mostKiB int) {
	t.Helper()
	batch := make([]map[string]any, slowBatch)
	for i := range batch {
		batch[i] = map[string]any{
			"systemId": system, "deviceId": fmt.Sprintf("plug-%d", i%8), "attributes": map[string]string{"note": strings.Repeat("x", slowPadding)},
		}
	}
	body, err := json.Marshal(batch)
	if err != nil {
		t.Fatal(err)
	}
	pace := time.NewTicker(slowPace)
	defer pace.Stop()
	for range slowBatches() {
		<-pace.C
		mustCall(t, http.StatusOK, "POST", base+"/api/v1/device-updates", token, body, nil)
		mostKiB = max(mostKiB, watched.residentKiB(t))
	}
	return mostKiB
}

// Readers that stop reading for a while, in which their system is busy, harm
// nobody: the others get everything meanwhile, and the node's memory stays
// bounded. They are not thrown out, and get everything afterwards.
func TestReaderThatStopsReading(t *testing.T) {
	t.Parallel()
	const system domain.SystemID = "clinica-sol"
	d := newDeployment(t)
	node, other := d.start(t, "", "--roles", "gateway"), d.start(t, "")
	viewer := testToken(t, domain.RoleViewer, system)

	slow := []*stopped{stopWebSocket(t, node.base, viewer, system), stopStream(t, node.base, viewer, system)}
	live := make([]*socket, 3)
	ended := make(chan error, len(live))
	for i := range live {
		live[i] = &socket{system: system}
		c := converse(t, node.base, viewer)
		c.join(system)
		_ = c.conn.SetReadDeadline(time.Time{})
		go func() { ended <- live[i].read(c.conn, isLastSlow) }()
	}
	before := node.residentKiB(t)
	most := publishSteadily(t, other.base, testToken(t, domain.RoleService, system), system, node)
	for range live {
		if err := <-ended; err != nil {
			t.Fatalf("a reader that goes on: %v", err)
		}
	}
	// All others have everything. Those that stopped are still behind.
	most = max(most, node.residentKiB(t))
	if delivered, _ := sum(scrape(t, node)["plugcast_deliveries_total"]); delivered > float64((len(live)+1)*slowEvents()) {
		t.Fatalf("%v events were delivered: nobody has stopped reading", delivered)
	}
	for _, s := range slow {
		go func() { ended <- s.read() }()
	}
	for range slow {
		if err := <-ended; err != nil {
			t.Errorf("a reader that had stopped: %v", err)
		}
	}
	most = max(most, node.residentKiB(t))
	t.Logf("memory: %d KiB before, %d at most", before, most)
	if most-before > slowMemory {
		t.Errorf("memory grew from %d to %d KiB", before, most)
	}
	for _, s := range slow {
		wantAll(t, s.what, &s.socket)
	}
	for _, s := range live {
		wantAll(t, "a reader that goes on", s)
	}
}

// wantAll demands every event, once and in order.
func wantAll(t *testing.T, who string, s *socket) {
	t.Helper()
	if len(s.got) != slowEvents() || len(s.faults) > 0 {
		t.Errorf("%s got %d events of %d: %s", who, len(s.got), slowEvents(), strings.Join(s.faults, "; "))
	}
}
