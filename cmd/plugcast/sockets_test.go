package main

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/testpeer"
)

// liveSockets is what a node lists for the owner of a token.
func liveSockets(t *testing.T, base, token string) []domain.Socket {
	t.Helper()
	var list struct{ Sockets []domain.Socket }
	mustCall(t, http.StatusOK, "GET", base+"/api/v1/sockets", token, nil, &list)
	return list.Sockets
}

// thrownOut is what a client is told.
type thrownOut struct {
	Reason    string `json:"reason"`
	CommandID string `json:"commandId"`
	Reconnect bool   `json:"reconnect"`
}

// Every node knows the sockets of all, and can throw any of them out, whatever
// its face. Who may not do that finds nothing.
func TestSocketsOfAnotherNode(t *testing.T) {
	t.Parallel()
	const system domain.SystemID = "clinica-sol"
	d := newDeployment(t)
	here, there := d.start(t, "", "--node-name", "here"), d.start(t, "", "--node-name", "there")
	admin, staff := testToken(t, domain.RoleAdmin, system), testToken(t, domain.RoleStaff)
	viewer, foreign := testToken(t, domain.RoleViewer, system), testToken(t, domain.RoleAdmin, "centro-luna")

	socket := converse(t, there.base, viewer)
	var status struct{ SocketID string }
	socket.await("connection-status", &status)
	socket.join(system)
	stream := openStream(t, http.StatusOK, there.base, system, "", testToken(t, domain.RoleOperator, system))

	listed := map[string]domain.Socket{} // by face
	testpeer.Eventually(t, "both sockets to be listed in their room", func() bool {
		all := liveSockets(t, here.base, admin)
		for _, one := range all {
			listed[one.Face] = one
		}
		return len(all) == 2 && len(listed["ws"].Systems) == 1
	})
	for face, want := range map[string]domain.Socket{
		"ws":  {SocketID: status.SocketID, Subject: "test-viewer", Role: domain.RoleViewer},
		"sse": {SocketID: listed["sse"].SocketID, Subject: "test-operator", Role: domain.RoleOperator},
	} {
		got := listed[face]
		if got.SocketID != want.SocketID || got.Subject != want.Subject || got.Role != want.Role || got.Node != "there" ||
			!slices.Equal(got.Systems, []domain.SystemID{system}) || got.Remote == "" || got.ConnectedAt.IsZero() {
			t.Errorf("%s: listed as %+v", face, got)
		}
	}

	url := here.base + "/api/v1/sockets"
	for _, one := range listed {
		mustCall(t, http.StatusForbidden, "DELETE", url+"/"+one.SocketID, viewer, nil, nil)
		mustCall(t, http.StatusNotFound, "DELETE", url+"/"+one.SocketID, foreign, nil, nil)
	}
	mustCall(t, http.StatusForbidden, "GET", url, viewer, nil, nil)
	if seen := liveSockets(t, here.base, foreign); len(seen) != 0 {
		t.Errorf("an admin of another system sees %v", seen)
	}

	throwOut := func(socketID, token string) (want thrownOut) {
		mustCall(t, http.StatusAccepted, "DELETE", url+"/"+socketID+"?reason=maintenance", token, nil, &want)
		want.Reason = "maintenance"
		return want
	}
	want := throwOut(listed["ws"].SocketID, admin)
	var told thrownOut
	socket.await("forced-disconnect", &told)
	if code := socket.ended(); code != 4409 || told != want {
		t.Errorf("told %+v, want %+v; closed with %d", told, want, code)
	}
	want = throwOut(listed["sse"].SocketID, admin)
	name, data, _ := stream.next()
	for strings.HasPrefix(name, "disconnect-") { // the commands and the reports are events as well
		name, data, _ = stream.next()
	}
	if err := json.Unmarshal([]byte(data), &told); err != nil || name != "forced-disconnect" || told != want {
		t.Errorf("the stream said %s %s (%v), want %+v", name, data, err, want)
	}
	if name, data, more := stream.next(); more {
		t.Errorf("the stream goes on: %s %s", name, data)
	}
	testpeer.Eventually(t, "the sockets to be gone from the list", func() bool { return len(liveSockets(t, here.base, admin)) == 0 })
	testpeer.Eventually(t, "history to say who did it", func() bool {
		by := map[string]int{}
		for _, e := range history(t, here.base, system) {
			by[string(e.Type)+" by "+e.Actor]++
		}
		return maps.Equal(by, map[string]int{
			"disconnect-requested by test-admin": 2, "disconnect-completed by node:here": 2, "disconnect-completed by node:there": 2,
		})
	})

	// A socket in no room is nobody's but staff's.
	idle := converse(t, there.base, viewer)
	idle.await("connection-status", &status)
	testpeer.Eventually(t, "the idle socket to be listed", func() bool {
		all := liveSockets(t, here.base, staff)
		return len(all) == 1 && all[0].SocketID == status.SocketID
	})
	mustCall(t, http.StatusNotFound, "DELETE", url+"/"+status.SocketID, admin, nil, nil)
	throwOut(status.SocketID, staff)
	if code := idle.ended(); code != 4409 {
		t.Errorf("the idle socket was closed with %d", code)
	}
}
