package main

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/testpeer"
	"github.com/plugcast/plugcast/transport/testpeer/conformance"
)

// sioClient is one Socket.IO client, a packet at a time.
type sioClient struct {
	t  *testing.T
	ws *conformance.WebSocket
}

// sioConverse connects with a token and joins systems.
func sioConverse(t *testing.T, base, token string, systems ...domain.SystemID) *sioClient {
	t.Helper()
	ws, err := conformance.OpenWebSocket(t.Context(), base+"/socket.io/")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ws.Close)
	c := &sioClient{t, ws}
	auth, _ := json.Marshal(map[string]string{"token": token})
	c.send("40" + string(auth))
	if name, _ := c.next(); name != "connection-status" {
		t.Fatalf("the first event is %s", name)
	}
	for _, system := range systems {
		if answer := c.join(system); !strings.Contains(answer, `"ok":true`) {
			t.Fatalf("the join is answered %s", answer)
		}
	}
	return c
}

func (c *sioClient) send(packet string) {
	c.t.Helper()
	if err := c.ws.Send(packet); err != nil {
		c.t.Fatal(err)
	}
}

// join returns what a join is acknowledged with. Events before that are passed over.
func (c *sioClient) join(system domain.SystemID) string {
	c.t.Helper()
	c.send(`427["join-system","` + string(system) + `"]`)
	for {
		if answer, ok := strings.CutPrefix(c.packet(), "437"); ok {
			return answer
		}
	}
}

func (c *sioClient) packet() string {
	c.t.Helper()
	f, err := c.ws.Next(c.t.Context())
	if err != nil {
		c.t.Fatal(err)
	}
	return f.Data
}

// next returns the next event's name and arguments; other packets are passed over.
func (c *sioClient) next() (name string, args []json.RawMessage) {
	c.t.Helper()
	for {
		text, ok := strings.CutPrefix(c.packet(), "42")
		if !ok {
			continue
		}
		if err := json.Unmarshal([]byte(text), &args); err != nil {
			c.t.Fatalf("not an event: %s", text)
		}
		_ = json.Unmarshal(args[0], &name)
		return name, args[1:]
	}
}

// await passes over events of the log's until one of this name comes.
func (c *sioClient) await(event string, into any) {
	c.t.Helper()
	name, args := c.next()
	for name != event {
		if name == "error" || name == "forced-disconnect" || name == "left" {
			c.t.Fatalf("got %s %s instead of %s", name, args, event)
		}
		name, args = c.next()
	}
	if err := json.Unmarshal(args[0], into); err != nil {
		c.t.Fatal(err)
	}
}

// hasLeft is what a client is told that leaves a room without having asked.
type hasLeft struct {
	SystemID domain.SystemID
	Reason   string
}

// aboutDevice is where and what a device update is about, in the data of every face.
type aboutDevice struct {
	DeviceID domain.DeviceID
}

// A tenant's command on its room closes the sockets that are in that room alone.
// Sockets in other tenants' rooms and those of staff leave it, are told why, and live
// on: over every face, at another process than the one that was asked.
func TestCommandOnOneRoom(t *testing.T) {
	t.Parallel()
	const sol, luna domain.SystemID = "clinica-sol", "centro-luna"
	d := newDeployment(t)
	a, b := d.start(t, "", "--node-name", "a"), d.start(t, "", "--node-name", "b")
	admin := testToken(t, domain.RoleAdmin, sol)
	both, one, staff := testToken(t, domain.RoleViewer, sol, luna), testToken(t, domain.RoleOperator, sol), testToken(t, domain.RoleStaff)
	native := func(token string, systems ...domain.SystemID) *conversation {
		c := converse(t, b.base, token)
		for _, system := range systems {
			c.join(system)
		}
		return c
	}
	wsBoth, wsOne, wsStaff := native(both, sol, luna), native(one, sol), native(staff, sol)
	sioBoth, sioOne := sioConverse(t, b.base, both, sol, luna), sioConverse(t, b.base, one, sol)
	sioStaff := sioConverse(t, b.base, staff, sol)
	stream := openStream(t, http.StatusOK, b.base, sol, "", one)
	otherStream := openStream(t, http.StatusOK, b.base, luna, "?types=device-update", both)
	elsewhere := native(both, luna)

	var answer dropAnswer
	mustCall(t, http.StatusOK, "POST", a.base+"/api/v1/disconnects?wait=20s", admin,
		map[string]any{"systemId": sol, "reason": "cleaning"}, &answer)
	if answer.browsers() != "[a=0 b=7]" {
		t.Errorf("the answer is %+v", answer)
	}
	// In this room alone: closed.
	want := thrownOut{Reason: "cleaning", CommandID: answer.CommandID}
	wsOne.requireThrownOut(want)
	var told thrownOut
	if sioOne.await("forced-disconnect", &told); told != want || sioOne.packet() != "41" {
		t.Errorf("over Socket.IO was told %+v", told)
	}
	name, data, more := stream.next()
	for more && strings.HasPrefix(name, "disconnect-") {
		name, data, more = stream.next()
	}
	if err := json.Unmarshal([]byte(data), &told); err != nil || name != "forced-disconnect" || told != want {
		t.Errorf("the stream said %s %s", name, data)
	}
	if name, data, more := stream.next(); more {
		t.Errorf("the stream goes on with %s %s", name, data)
	}
	// In another room as well, or staff's: out of this one, and on.
	for _, c := range []*conversation{wsBoth, wsStaff} {
		var gone hasLeft
		if c.await("left", &gone); gone != (hasLeft{sol, "cleaning"}) {
			t.Errorf("was told %+v", gone)
		}
	}
	for _, c := range []*sioClient{sioBoth, sioStaff} {
		var gone hasLeft
		if c.await("left", &gone); gone != (hasLeft{sol, "cleaning"}) {
			t.Errorf("over Socket.IO was told %+v", gone)
		}
	}
	publishOne(t, a, sol, "of-sol")
	publishOne(t, a, luna, "of-luna")
	for _, c := range []*conversation{wsBoth, elsewhere} {
		var about aboutDevice
		if c.await("device-update", &about); about.DeviceID != "of-luna" {
			t.Errorf("the next update is of %s", about.DeviceID)
		}
		c.requireOpen()
	}
	var about aboutDevice
	if sioBoth.await("device-update", &about); about.DeviceID != "of-luna" {
		t.Errorf("over Socket.IO the next update is of %s", about.DeviceID)
	}
	if name, data, _ := otherStream.next(); name != "device-update" || !strings.Contains(data, "of-luna") {
		t.Errorf("the other room's stream says %s %s", name, data)
	}
	// Nobody is banned: all of them may come back.
	wsBoth.join(sol)
	wsStaff.join(sol)
	for _, c := range []*sioClient{sioBoth, sioStaff} {
		if answer := c.join(sol); !strings.Contains(answer, `"ok":true`) {
			t.Errorf("the join is answered %s", answer)
		}
	}
}

// A tenant's ban keeps its own out, and neither staff nor anybody of another room, at
// every process, also at one that starts later.
func TestBanOfATenantKeepsNoStaffOut(t *testing.T) {
	t.Parallel()
	const sol, luna domain.SystemID = "clinica-sol", "centro-luna"
	d := newDeployment(t)
	a, b := d.start(t, "", "--node-name", "a"), d.start(t, "", "--node-name", "b")
	admin := testToken(t, domain.RoleAdmin, sol)
	viewer, staff := testToken(t, domain.RoleViewer, sol, luna), testToken(t, domain.RoleStaff)
	held := converse(t, b.base, staff)
	held.join(sol)
	for _, body := range []map[string]any{
		{"systemId": sol, "banFor": "10m", "reason": "cleaning"},
		{"systemId": sol, "role": "staff", "banFor": "10m", "reason": "cleaning"},
		{"systemId": sol, "subject": "test-staff", "banFor": "10m", "reason": "cleaning"},
	} {
		mustCall(t, http.StatusOK, "POST", a.base+"/api/v1/disconnects?wait=20s", admin, body, nil)
		var gone hasLeft
		if held.await("left", &gone); gone != (hasLeft{sol, "cleaning"}) {
			t.Errorf("staff was told %+v", gone)
		}
		held.join(sol)
	}
	later := d.start(t, "", "--node-name", "later")
	for _, n := range []*node{a, b, later} {
		converse(t, n.base, staff).join(sol)
		sioConverse(t, n.base, staff, sol)
		openStream(t, http.StatusOK, n.base, sol, "", staff)

		c := converse(t, n.base, viewer)
		c.say("join-system", map[string]any{"systemId": sol})
		var no refusal
		if c.await("error", &no); no.Code != "banned" {
			t.Errorf("%s: joining answers %+v", n.base, no)
		}
		c.join(luna)
		over := sioConverse(t, n.base, viewer, luna)
		if answer := over.join(sol); !strings.Contains(answer, `"banned"`) {
			t.Errorf("%s: joining over Socket.IO is answered %s", n.base, answer)
		}
		openStream(t, http.StatusForbidden, n.base, sol, "", viewer)
		openStream(t, http.StatusOK, n.base, luna, "", viewer)
	}
	held.requireOpen()
	// It is not staff's own way to be kept out either: staff bans itself without a system.
	var answer dropAnswer
	mustCall(t, http.StatusForbidden, "POST", a.base+"/api/v1/disconnects", admin, map[string]any{"role": "staff", "banFor": "10m"}, nil)
	mustCall(t, http.StatusOK, "POST", a.base+"/api/v1/disconnects?wait=20s", staff, map[string]any{"subject": "test-staff"}, &answer)
	held.requireThrownOut(thrownOut{CommandID: answer.CommandID})
}

// A tenant learns nothing of a socket that is in none of its rooms, and of one that is
// in its rooms and others it learns of its own.
func TestForeignSocketsSayNothing(t *testing.T) {
	t.Parallel()
	const sol, luna domain.SystemID = "clinica-sol", "centro-luna"
	d := newDeployment(t)
	here, there := d.start(t, "", "--node-name", "here"), d.start(t, "", "--node-name", "there")
	solAdmin, lunaAdmin, staff := testToken(t, domain.RoleAdmin, sol), testToken(t, domain.RoleAdmin, luna), testToken(t, domain.RoleStaff)
	open := func(token string, systems ...domain.SystemID) (id string, c *conversation) {
		c = converse(t, there.base, token)
		var status struct{ SocketID string }
		c.await("connection-status", &status)
		for _, system := range systems {
			c.join(system)
		}
		return status.SocketID, c
	}
	ofSol, solSocket := open(testToken(t, domain.RoleViewer, sol), sol)
	ofBoth, bothSocket := open(testToken(t, domain.RoleOperator, sol, luna), sol, luna)
	ofNobody, idle := open(staff)
	ofStaff, staffSocket := open(staff, sol)
	testpeer.Eventually(t, "all sockets to be listed in their rooms", func() bool {
		rooms := 0
		for _, s := range liveSockets(t, here.base, staff) {
			rooms += len(s.Systems)
		}
		return rooms == 4
	})

	listed := liveSockets(t, here.base, lunaAdmin)
	if len(listed) != 1 || listed[0].SocketID != ofBoth || !slices.Equal(listed[0].Systems, []domain.SystemID{luna}) {
		t.Errorf("the admin of %s sees %+v", luna, listed)
	}
	var ids []string
	for _, s := range liveSockets(t, here.base, solAdmin) {
		ids = append(ids, s.SocketID)
		if !slices.Equal(s.Systems, []domain.SystemID{sol}) {
			t.Errorf("the admin of %s sees %+v", sol, s)
		}
	}
	slices.Sort(ids)
	if want := slices.Sorted(slices.Values([]string{ofSol, ofBoth, ofStaff})); !slices.Equal(ids, want) {
		t.Errorf("the admin of %s sees %v, want %v", sol, ids, want)
	}
	mustCall(t, http.StatusForbidden, "GET", here.base+"/api/v1/sockets?systemId="+string(sol), lunaAdmin, nil, nil)

	// The server answers for a foreign socket as for one that does not exist, apart from
	// the id in the request.
	for _, query := range []string{"", "?wait=5s", "?reason=x&reconnect=true"} {
		unknown := refusalOf(t, here.base, lunaAdmin, "no-such-socket", query)
		if unknown.status != http.StatusNotFound || !strings.Contains(unknown.body, `"unknown-socket"`) {
			t.Fatalf("an unknown socket is answered %+v", unknown)
		}
		for _, id := range []string{ofSol, ofNobody, ofStaff} {
			if got := refusalOf(t, here.base, lunaAdmin, id, query); got != unknown {
				t.Errorf("a foreign socket is answered\n%+v, an unknown one\n%+v", got, unknown)
			}
		}
		if got := refusalOf(t, here.base, lunaAdmin, ofBoth, query); got.status != http.StatusForbidden || strings.Contains(got.body, "sol") {
			t.Errorf("a socket that is in a foreign room too is answered %+v", got)
		}
	}
	for _, c := range []*conversation{solSocket, bothSocket, idle, staffSocket} {
		c.requireOpen()
	}
	// Nothing was recorded of it in the foreign system.
	for _, e := range history(t, here.base, sol) {
		t.Errorf("history of %s has %s by %s", sol, e.Type, e.Actor)
	}
	// A tenant's own word on staff's socket is about its room.
	mustCall(t, http.StatusOK, "DELETE", here.base+"/api/v1/sockets/"+ofStaff+"?wait=20s&reason=cleaning", solAdmin, nil, nil)
	var gone hasLeft
	if staffSocket.await("left", &gone); gone != (hasLeft{sol, "cleaning"}) {
		t.Errorf("staff was told %+v", gone)
	}
	staffSocket.requireOpen()
}

// refused is an answer without the names of the socket and of the request.
type refused struct {
	status int
	header string
	body   string
}

func refusalOf(t *testing.T, base, token, socketID, query string) refused {
	t.Helper()
	status, header, body, err := call(t.Context(), "DELETE", base+"/api/v1/sockets/"+socketID+query, token, nil)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for name := range header {
		names = append(names, name)
	}
	slices.Sort(names)
	said := strings.NewReplacer(socketID, "ID", header.Get("X-Request-Id"), "REQUEST").Replace(string(body))
	return refused{status, strings.Join(names, " "), said}
}
