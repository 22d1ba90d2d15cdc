package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/gorilla/websocket"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/testpeer"
)

// Sixty viewers of one system ask for a snapshot of 12 MB, over WebSocket
// and HTTP, and do not read it. The node's memory stays bounded, another
// system's reads go on, and when the viewers are gone their system is as before.
func TestSnapshotsThatNobodyReads(t *testing.T) {
	t.Parallel()
	const system, other domain.SystemID = "clinica-sol", "centro-luna"
	const devices, padding, viewers, mostMiB = 8000, 1300, 60, 450
	n := newDeployment(t).start(t, "")
	service := testToken(t, domain.RoleService, system, other)
	var last domain.Position
	for i := 0; i < devices; i += 1000 {
		batch := make([]map[string]any, 1000)
		for j := range batch {
			batch[j] = map[string]any{
				"systemId": system, "deviceId": fmt.Sprintf("plug-%05d", i+j), "attributes": map[string]string{"note": strings.Repeat("x", padding)},
			}
		}
		var answer struct {
			Positions map[domain.SystemID]domain.PositionRange
		}
		mustCall(t, http.StatusOK, "POST", n.base+"/api/v1/device-updates", service, batch, &answer)
		last = answer.Positions[system].Last
	}
	publishOne(t, n, other, "plug-1")
	viewer := testToken(t, domain.RoleViewer, system)
	url := n.base + "/api/v1/systems/" + string(system) + "/snapshot"
	var whole domain.Snapshot
	mustCall(t, http.StatusOK, "GET", url+"?after-position="+last.String(), viewer, nil, &whole)
	if len(whole.Devices) != devices || whole.Position != last {
		t.Fatalf("%d devices at %s", len(whole.Devices), whole.Position)
	}
	before := n.residentKiB(t)

	var silent []net.Conn
	for i := range viewers {
		if i%2 == 0 {
			silent = append(silent, askOverHTTP(t, n, system, viewer))
		} else {
			silent = append(silent, askOverWebSocket(t, n, system, viewer))
		}
	}
	neighbour := testToken(t, domain.RoleViewer, other)
	most := 0
	for range 200 { // as often as that, the other system's viewers look
		var list struct{ Devices []json.RawMessage }
		mustCall(t, http.StatusOK, "GET", n.base+"/api/v1/systems/"+string(other)+"/devices", neighbour, nil, &list)
		mustCall(t, http.StatusOK, "GET", n.base+"/api/v1/systems/"+string(other)+"/snapshot", neighbour, nil, nil)
		if len(list.Devices) != 1 {
			t.Fatalf("%d devices", len(list.Devices))
		}
		most = max(most, n.residentKiB(t))
	}
	grown := (most - before) >> 10
	t.Logf("the node grew by %d MiB", grown)
	if grown > mostMiB {
		t.Errorf("the node grew by %d MiB", grown)
	}
	for _, conn := range silent {
		_ = conn.Close()
	}
	testpeer.Eventually(t, "an answer when the silent viewers are gone", func() bool {
		status, _, _, err := call(t.Context(), "GET", url, viewer, nil)
		return err == nil && status == http.StatusOK
	})
}

// askOverHTTP asks for a snapshot and does not read the answer.
func askOverHTTP(t *testing.T, n *node, system domain.SystemID, token string) net.Conn {
	t.Helper()
	conn, err := dialSlowly(t.Context(), "tcp", strings.TrimPrefix(n.base, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_, err = fmt.Fprintf(conn, "GET /api/v1/systems/%s/snapshot HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n", system, token)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// askOverWebSocket joins with a snapshot and does not read the answer.
func askOverWebSocket(t *testing.T, n *node, system domain.SystemID, token string) net.Conn {
	t.Helper()
	dialer := websocket.Dialer{NetDialContext: dialSlowly}
	conn, _, err := dialer.DialContext(t.Context(), strings.Replace(n.base, "http://", "ws://", 1)+"/ws",
		http.Header{"Authorization": {"Bearer " + token}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	join := map[string]any{"event": "join-system", "data": map[string]any{"systemId": system, "snapshot": true}}
	if err := conn.WriteJSON(join); err != nil {
		t.Fatal(err)
	}
	return conn.NetConn()
}
