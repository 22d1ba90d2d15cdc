package ws

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/client"
	"github.com/plugcast/plugcast/transport/testpeer/clienttest"
)

var why = domain.Ban{Reason: "maintenance", CommandID: "c-1", Until: time.Now().Add(time.Hour)}

func withBan(f *clienttest.Ban) func(*client.Parts) { return func(p *client.Parts) { p.Bans = f } }

// requireThrownOut demands that the server tells the socket the reason, closes it, and
// does not invite it to reconnect.
func (c *testClient) requireThrownOut() {
	c.t.Helper()
	var told client.ForcedDisconnect
	c.expect(eventForcedDisconnect).into(c.t, &told)
	if told != (client.ForcedDisconnect{Reason: why.Reason, CommandID: why.CommandID}) {
		c.t.Errorf("told %+v", told)
	}
	if code, _ := c.expectClose(); code != closeForced.Code {
		c.t.Errorf("closed with %d", code)
	}
}

// The server ends the handshake of a client that is banned from all systems, until the
// ban ends.
func TestBannedHandshake(t *testing.T) {
	t.Parallel()
	ban := &clienttest.Ban{}
	ts := serve(t, Config{}, withBan(ban))
	ban.Raise("eva", "", why)
	c := ts.dial("viewer")
	var status connectionStatus
	if c.expect(eventConnectionStatus).into(t, &status); status.Connected {
		t.Error("a socket that is kept out is told that it is connected")
	}
	c.requireThrownOut()
	if listed := ts.registry.All(); len(listed) > 0 {
		t.Errorf("listed: %v", listed)
	}
	ts.join("staff", sol) // the ban is not for this subject
	ban.Lower("eva", "")
	ts.join("viewer", sol)
}

// A ban that starts while a socket opens closes that socket, although the disconnect
// that follows the ban may not have seen it.
func TestBanDuringHandshake(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	ban := &clienttest.Ban{}
	ban.Asked = func(actor domain.Actor, _ domain.SystemID) {
		if asked.Add(1) == 2 {
			ban.Raise(actor.Subject, "", why)
		}
	}
	ts := serve(t, Config{}, withBan(ban))
	ts.connect("viewer").requireThrownOut()
}

// A client that is banned from one system stays connected and can join others.
func TestBannedJoin(t *testing.T) {
	t.Parallel()
	ban := &clienttest.Ban{}
	ts := serve(t, Config{}, withBan(ban))
	ban.Raise("eva", sol, why)
	c, _ := ts.join("both", luna)
	c.requireBanned(sol)
	ts.source.Append(sol, clienttest.Updates(1)...)
	ts.source.Append(luna, clienttest.Updates(1)...)
	if e := c.events(1)[0]; e.SystemID != luna {
		t.Errorf("an event of %s", e.SystemID)
	}
	ban.Lower("eva", sol)
	c.join(sol)
}

func (c *testClient) requireBanned(system domain.SystemID) {
	c.t.Helper()
	c.send(`{"event":"join-system","id":7,"data":{"systemId":"` + string(system) + `"}}`)
	f := c.expect(eventError)
	var told struct{ RetryAfterMs int64 }
	if f.into(c.t, &told); f.code(c.t) != domain.CodeBanned || string(f.ID) != "7" || told.RetryAfterMs < 1000 {
		c.t.Errorf("the answer to a join is %s", f.raw)
	}
}

// A ban that starts while a client joins the room refuses the join: the server sends
// nothing of the room.
func TestBanDuringJoin(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	ban := &clienttest.Ban{}
	ban.Asked = func(actor domain.Actor, system domain.SystemID) {
		if system == sol && asked.Add(1) == 2 {
			ban.Raise(actor.Subject, sol, why)
		}
	}
	ts := serve(t, Config{}, withBan(ban))
	c := ts.connect("viewer")
	c.requireBanned(sol)
	ts.source.Append(sol, clienttest.Updates(1)...)
	c.stillOpen()
	if listed := ts.Sockets(); len(listed) != 1 || len(listed[0].Systems) != 0 {
		t.Errorf("listed: %v", listed)
	}
}

// A new token does not lift a ban on its subject.
func TestBannedToken(t *testing.T) {
	t.Parallel()
	ban := &clienttest.Ban{}
	ts := serve(t, Config{}, withBan(ban))
	ts.auth.Name("mallory", domain.Actor{
		Subject: "mallory", Role: domain.RoleViewer, Systems: []domain.SystemID{sol, luna}, ExpiresAt: time.Now().Add(time.Hour),
	})
	ban.Raise("mallory", sol, why)
	c, _ := ts.join("both", sol)
	c.join(luna)
	const renew = `{"event":"authenticate","data":{"token":"mallory"}}`
	c.send(renew)
	c.expect(eventAuthenticated)
	var l client.Left
	if c.expect(eventLeft).into(t, &l); l.SystemID != sol || l.Reason == "" || l.Reason == "the new token does not allow this room" {
		t.Errorf("left %+v", l)
	}
	ts.source.Append(sol, clienttest.Updates(1)...)
	ts.source.Append(luna, clienttest.Updates(1)...)
	if e := c.events(1)[0]; e.SystemID != luna {
		t.Errorf("an event of %s", e.SystemID)
	}
	ban.Raise("mallory", "", why)
	other, _ := ts.join("both", sol)
	other.send(renew)
	other.requireThrownOut()
}
