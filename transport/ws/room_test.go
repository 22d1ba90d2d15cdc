package ws

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/client"
	"github.com/plugcast/plugcast/transport/limit"
	"github.com/plugcast/plugcast/transport/testpeer"
	"github.com/plugcast/plugcast/transport/testpeer/clienttest"
)

func TestSeveralRooms(t *testing.T) {
	t.Parallel()
	ts := serve(t, Config{})
	c, _ := ts.join("both", sol)
	c.join(luna)
	ts.source.Append(sol, clienttest.Updates(2)...)
	ts.source.Append(luna, clienttest.Updates(2)...)
	seen := map[domain.SystemID]int{}
	for _, e := range c.events(4) {
		seen[e.SystemID]++
	}
	if seen[sol] != 2 || seen[luna] != 2 {
		t.Errorf("events %v", seen)
	}
	c.send(`{"event":"leave-system","id":3,"data":{"systemId":"clinica-sol"}}`)
	if f := c.expect(eventLeft); string(f.ID) != "3" {
		t.Errorf("the answer is %s", f.raw)
	}
	ts.source.Append(sol, clienttest.Updates(2)...)
	ts.source.Append(luna, clienttest.Updates(1)...)
	if e := c.events(1)[0]; e.SystemID != luna {
		t.Errorf("an event of %s, which was left", e.SystemID)
	}
	c.stillOpen()
}

// TestJoinAgain joins a room again while events of the first join are in flight: none of
// them may arrive after the second answer.
func TestJoinAgain(t *testing.T) {
	t.Parallel()
	ts := serve(t, Config{Rates: limit.Rates{Joins: limit.Rate{PerSecond: 1000, Burst: 1000}}})
	ts.source.Append(sol, clienttest.Updates(300)...)
	all := ts.source.Events(sol)
	c := ts.connect("viewer")
	for i := range 40 {
		c.send(`{"event":"join-system","id":"old","data":{"systemId":"clinica-sol","after":"0-0"}}`)
		c.send(fmt.Sprintf(`{"event":"join-system","id":"new","data":{"systemId":"clinica-sol","after":%q}}`, all[290+i%9].Position))
		for f := c.next(); f.Event != eventJoined || string(f.ID) != `"new"`; f = c.next() {
		}
		clienttest.RequireEvents(t, c.events(9-i%9), all[291+i%9:])
	}
	if n := ts.hub.Stats(1).Subscriptions; n != 1 {
		t.Errorf("%d subscriptions of one socket", n)
	}
}

func TestFilters(t *testing.T) {
	t.Parallel()
	ts := serve(t, Config{HeartbeatEvery: 30 * time.Millisecond})
	c, _ := ts.join("viewer", sol, `"types":["device-update"]`, `"devices":["plug-1"]`, `"after":"0-0"`)
	offline := domain.DeviceOfflineStatus{DeviceID: "plug-1", Reason: domain.ReasonReported}
	ts.source.Append(sol, clienttest.Update("plug-1", 1), clienttest.Update("plug-2", 2),
		offline, clienttest.Update("plug-1", 3), clienttest.Update("plug-2", 4))
	if got := c.events(2); got[0].Seq != 1 || got[1].Seq != 4 {
		t.Errorf("events %d and %d", got[0].Seq, got[1].Seq)
	}
	// The heartbeat tells the client that it has passed the events outside its filter.
	for {
		f, err := c.read()
		if err != nil {
			t.Fatal(err)
		}
		var h heartbeat
		f.into(t, &h)
		if at := h.Rooms[sol]; at == ts.source.Events(sol)[4].Cursor() {
			return
		}
	}
}

func TestConflate(t *testing.T) {
	t.Parallel()
	ts := serve(t, Config{})
	const n = 3000
	ts.source.Append(sol, clienttest.Updates(n)...)
	c, _ := ts.join("viewer", sol, `"after":"0-0"`, `"conflate":true`)
	last, got := uint64(0), 0
	for last < n {
		f := c.next()
		var e struct {
			Seq     uint64                     `json:"seq"`
			Skipped *struct{ From, To uint64 } `json:"skipped"`
		}
		if err := json.Unmarshal(f.raw, &e); err != nil {
			t.Fatal(err)
		}
		if next := last + 1; e.Skipped != nil && (e.Skipped.From != next || e.Skipped.To != e.Seq-1) || e.Skipped == nil && e.Seq != next {
			t.Fatalf("after %d comes %s", last, f.raw)
		}
		last = e.Seq
		got++
	}
	if got != 3 {
		t.Errorf("%d events for 3 devices", got)
	}
	ts.source.Append(sol, clienttest.Update("plug-1", 1))
	c.events(1)
}

func TestAuthenticate(t *testing.T) {
	t.Parallel()
	ts := serve(t, Config{})
	ts.auth.Name("short", domain.Actor{
		Subject: "eva", Role: domain.RoleViewer, Systems: []domain.SystemID{sol, luna}, ExpiresAt: time.Now().Add(2 * time.Second),
	})
	c, _ := ts.join("short", sol)
	c.join(luna)
	c.send(`{"event":"authenticate","id":5,"data":{"token":"luna"}}`)
	f := c.expect(eventAuthenticated)
	var a client.Authenticated
	if f.into(t, &a); string(f.ID) != "5" || a.Subject != "eva" || time.Until(a.ExpiresAt) < time.Minute {
		t.Errorf("authenticated %s", f.raw)
	}
	var l client.Left
	if c.expect(eventLeft).into(t, &l); l.SystemID != sol || l.Reason == "" {
		t.Errorf("left %+v", l)
	}
	ts.source.Append(sol, clienttest.Updates(1)...)
	ts.source.Append(luna, clienttest.Updates(1)...)
	if e := c.events(1)[0]; e.SystemID != luna {
		t.Errorf("an event of %s, which the new token is not for", e.SystemID)
	}
	<-time.After(2100 * time.Millisecond) // until the first token has expired
	c.stillOpen()
	c.send(`{"event":"join-system","data":{"systemId":"clinica-sol"}}`)
	if code := c.next().code(t); code != domain.CodeForbidden {
		t.Errorf("joining with the old rights: %s", code)
	}
}

func TestHeartbeat(t *testing.T) {
	t.Parallel()
	ts := serve(t, Config{HeartbeatEvery: time.Hour, IdleAfter: 30 * time.Millisecond})
	c, _ := ts.join("viewer", sol)
	c.stillOpen() // without events there is no heartbeat
	ts.source.Append(sol, clienttest.Updates(2)...)
	c.events(2)
	f, err := c.read()
	if err != nil || f.Event != eventHeartbeat {
		t.Fatalf("%s (%v) is not a heartbeat", f.raw, err)
	}
	var h heartbeat
	f.into(t, &h)
	if len(h.Rooms) != 1 || h.Rooms[sol] != ts.source.Events(sol)[1].Cursor() {
		t.Errorf("heartbeat %s", f.raw)
	}
	if _, err := domain.ParseTime(h.Time); err != nil {
		t.Error(err)
	}
}

func TestAdminDashboard(t *testing.T) {
	t.Parallel()
	ts := serve(t, Config{})
	c := ts.connect("staff")
	c.send(`{"event":"join-admin-dashboard","id":1}`)
	if f := c.expect(eventJoined); string(f.ID) != "1" {
		t.Errorf("the answer is %s", f.raw)
	}
	c.stillOpen()
	ts.feed.Send(`{"event":"metrics","data":{"rooms":1}}`)
	c.expect("metrics")
	c.send(`{"event":"leave-admin-dashboard"}`)
	c.expect(eventLeft)
	if n := ts.feed.Watchers(); n != 0 {
		t.Errorf("%d watchers after leaving", n)
	}
	c.send(`{"event":"join-admin-dashboard"}`)
	c.expect(eventJoined)
	c.send(`{"event":"authenticate","data":{"token":"viewer"}}`)
	c.expect(eventAuthenticated)
	c.expect(eventLeft)
	testpeer.Eventually(t, "the end of the metrics", func() bool { return ts.feed.Watchers() == 0 })
}

func TestRegistryAndDisconnect(t *testing.T) {
	t.Parallel()
	ts := serve(t, Config{})
	eva, _ := ts.join("both", sol)
	eva.join(luna)
	root, _ := ts.join("staff", luna)
	testpeer.Eventually(t, "both to be listed", func() bool {
		for _, s := range ts.registry.All() {
			if s.Subject == "eva" && !slices.Equal(s.Systems, []domain.SystemID{luna, sol}) || s.Face != "ws" || s.Remote == "" {
				return false
			}
		}
		return len(ts.registry.All()) == 2 && len(ts.Sockets()) == 2
	})
	// A command on one system removes each socket from that room and leaves the socket open,
	// also a socket of staff.
	ofSol, ofLuna := client.ForcedDisconnect{Reason: "cleaning", CommandID: "c-0", Room: sol}, client.ForcedDisconnect{Room: luna}
	if n := ts.Disconnect(func(s domain.Socket) bool { return slices.Contains(s.Systems, sol) }, ofSol); n != 1 {
		t.Errorf("%d sockets left a room", n)
	}
	var out client.Left
	if f := eva.expect(eventLeft); true {
		if f.into(t, &out); out != (client.Left{SystemID: sol, Reason: "cleaning"}) {
			t.Errorf("told %s", f.raw)
		}
	}
	if n := ts.Disconnect(func(s domain.Socket) bool { return s.Role == domain.RoleStaff }, ofLuna); n != 1 {
		t.Errorf("%d sockets of staff left a room", n)
	}
	root.expect(eventLeft)
	testpeer.Eventually(t, "the rooms to be listed", func() bool {
		for _, s := range ts.registry.All() {
			if s.Subject == "eva" && !slices.Equal(s.Systems, []domain.SystemID{luna}) || s.Subject != "eva" && len(s.Systems) > 0 {
				return false
			}
		}
		return len(ts.registry.All()) == 2
	})
	eva.stillOpen()
	eva.join(sol)

	why := client.ForcedDisconnect{Reason: "maintenance", CommandID: "c-1", Reconnect: true}
	isEva := func(s domain.Socket) bool { return s.Subject == "eva" && slices.Contains(s.Systems, sol) }
	if n := ts.Disconnect(isEva, why); n != 1 {
		t.Errorf("%d sockets thrown out", n)
	}
	var told client.ForcedDisconnect
	f := eva.expect(eventForcedDisconnect)
	if f.into(t, &told); told != why {
		t.Errorf("told %s", f.raw)
	}
	if code, _ := eva.expectClose(); code != 4409 {
		t.Errorf("closed with %d", code)
	}
	if n := ts.Disconnect(isEva, why); n != 0 {
		t.Errorf("%d sockets thrown out a second time", n)
	}
	testpeer.Eventually(t, "one to be listed", func() bool { return len(ts.registry.All()) == 1 })
	root.stillOpen()
}

func TestTroubledSource(t *testing.T) {
	t.Parallel()
	ts := serve(t, Config{})
	ts.source.Append(sol, clienttest.Updates(2)...)
	ts.source.Fail(true)
	c := ts.connect("viewer")
	c.send(`{"event":"join-system","id":1,"data":{"systemId":"clinica-sol","snapshot":true}}`)
	f := c.next()
	if f.code(t) != domain.CodeUnavailable || strings.Contains(string(f.raw), clienttest.ErrBroken.Error()) {
		t.Errorf("the answer is %s", f.raw)
	}
	ts.source.Fail(false)
	c.join(sol)

	// When the log has lost its newest events, the server tells the client its new position.
	c.join(sol, `"after":"0-0"`)
	c.events(2)
	ts.source.Forget(sol, 1)
	var again client.Joined
	if c.expect(eventJoined).into(t, &again); again.Recovered || again.Seq != 1 {
		t.Errorf("told %+v", again)
	}
	ts.source.Append(sol, clienttest.Updates(1)...)
	if e := c.events(1)[0]; e.Seq != 2 {
		t.Errorf("the next event is %d", e.Seq)
	}
}
