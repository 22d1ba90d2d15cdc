package socketio

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/client"
	"github.com/plugcast/plugcast/transport/testpeer"
)

// A hanging connection may wake up after its client moved to another one. Its pending
// save must not replace the client's later changes.
func TestHangingConnectionDoesNotSave(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{})
	old := b.client("eva:clinica-sol,centro-luna").connect()
	old.join("clinica-sol")
	holder := b.server.Sockets()[0].SocketID
	there, goOn := make(chan struct{}), make(chan struct{})
	b.sessions.before(func(by string) {
		if by == holder {
			close(there)
			<-goOn
		}
	})
	old.send(`42["join-system",{"systemId":"clinica-sol","types":["device-update"]}]`)
	<-there

	c := b.client(old.token)
	c.pid, c.offset = old.pid, old.offset
	c.resume()
	c.join("centro-luna")
	close(goOn)
	if f, err := old.ws.Next(old.ctx); err == nil {
		t.Errorf("the connection of before got %s", f.Data)
	}
	b.append(luna, 1)
	c.expect("centro-luna 1")
	c.cut()
	b.append(luna, 1)
	c.resume()
	c.expect("centro-luna 2")
}

// The server applies a new token completely or not at all.
func TestTokenThatCannotBeSaved(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{})
	c := b.client("eva:clinica-sol,centro-luna").connect()
	c.join("clinica-sol")
	b.sessions.fail(true)
	less := map[string]any{"token": "eva:centro-luna"}
	if answer := c.ask(nil, "authenticate", less); answer["ok"] != false {
		t.Fatalf("accepted: %v", answer)
	}
	b.append(sol, 1)
	c.expect("clinica-sol 1")
	b.sessions.fail(false)
	if answer := c.ask(nil, "authenticate", less); answer["ok"] != true {
		t.Fatalf("refused: %v", answer)
	}
	if e := c.next(); e.name != "left" || !strings.Contains(string(e.args[0]), `"clinica-sol"`) {
		t.Errorf("got %s %s", e.name, e.args)
	}
	b.append(sol, 1)
	c.join("centro-luna")
	b.append(luna, 1)
	c.expect("centro-luna 1")
}

// A new filter begins at the client's position: the server neither loses nor repeats
// events in flight.
func TestAnotherFilterKeepsThePlace(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{})
	c := b.joined(sol)
	const rounds, burst = 20, 50
	seen := uint64(0)
	take := func(e event) {
		if seen++; e.seq != seen {
			t.Fatalf("event %d came as number %d", e.seq, seen)
		}
	}
	for range rounds {
		b.append(sol, burst)
		answer := c.ask(take, "join-system", map[string]any{"systemId": "clinica-sol", "types": []string{"device-update"}})
		if answer["ok"] != true {
			t.Fatal(answer)
		}
	}
	for seen < rounds*burst {
		take(c.next())
	}
}

// A ban during a join keeps the client out of the room, also after a cut. If the server
// cannot save that, it closes the connection, so that no half join remains.
func TestBanThatIsRaisedWhileAClientJoins(t *testing.T) {
	t.Parallel()
	for name, away := range map[string]bool{"saved": false, "the store is away": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, Config{})
			var once sync.Once
			b.ban.Asked = func(_ domain.Actor, system domain.SystemID) {
				if system == sol && len(b.sessions.all()) > 0 {
					once.Do(func() {
						b.ban.Raise("eva", sol, domain.Ban{Reason: "maintenance", Until: time.Now().Add(time.Hour)})
						b.sessions.fail(away)
					})
				}
			}
			c := b.client("eva:clinica-sol").connect()
			c.send(`420["join-system","clinica-sol"]`)
			if f, err := c.ws.Next(c.ctx); away && err == nil {
				t.Errorf("after a failure the connection goes on with %s", f.Data)
			} else if !away && !strings.Contains(f.Data, `"ok":false`) {
				t.Errorf("got %s, %v", f.Data, err)
			}
			if away {
				return
			}
			b.ban.Lower("eva", sol)
			c.connect()
			b.append(sol, 1)
			c.ask(func(e event) { t.Errorf("got %s %d", e.name, e.seq) }, "ping", nil)
			if sockets := b.server.Sockets(); len(sockets[len(sockets)-1].Systems) > 0 {
				t.Errorf("open are %+v", sockets)
			}
		})
	}
}

// Once the client learns that it has reconnected, it receives no event of its earlier
// membership.
func TestNothingOfBeforeAfterConnectingAnew(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{})
	ctx, cancel := context.WithCancel(t.Context())
	var appending sync.WaitGroup
	defer appending.Wait()
	defer cancel()
	appending.Go(func() {
		for ctx.Err() == nil {
			b.append(sol, 1)
		}
	})
	for range 20 {
		c := b.joined(sol)
		for range 20 {
			c.send("41")
			c.send(`40{"token":"eva:clinica-sol"}`)
			for !strings.HasPrefix(c.read(), "40{") {
			}
			if e := c.next(); e.name != "connection-status" {
				t.Fatalf("behind the new connection came %s %d", e.name, e.seq)
			}
			c.ask(func(e event) { t.Fatalf("before the new join came %s %d", e.name, e.seq) }, "ping", nil)
			c.acks++
			c.send(`42["join-system","clinica-sol"]`)
			for e := c.next(); e.name != "device-update"; e = c.next() {
			}
		}
		c.cut()
	}
}

// dismissal removes the sockets that are in sol and in other rooms from sol.
func dismissal(b *bundle) int {
	in := func(s domain.Socket) bool { return slices.Contains(s.Systems, sol) && len(s.Systems) > 1 }
	return b.server.Disconnect(in, client.ForcedDisconnect{Reason: "cleaning", Room: sol})
}

const toldToHaveLeft = `{"systemId":"clinica-sol","reason":"cleaning"}`

// After a cut, a client that a command removed from a room continues in its other rooms,
// from its position, and stays out of that room. If the cut came before the notice, the
// client gets the notice when it returns.
func TestDismissedClientGoesOn(t *testing.T) {
	t.Parallel()
	for name, reads := range map[string]bool{"told": true, "cut before it was told": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, Config{})
			c := b.joined(sol, luna)
			b.append(luna, 1)
			c.expect("centro-luna 1")
			if n := dismissal(b); n != 1 {
				t.Fatalf("%d sockets", n)
			}
			if n := dismissal(b); n != 0 {
				t.Errorf("the same again: %d sockets", n)
			}
			if reads {
				if e := c.next(); e.name != "left" || string(e.args[0]) != toldToHaveLeft {
					t.Fatalf("got %s %s", e.name, e.args)
				}
			} else {
				b.untilSaved(func(s Session) bool { return len(s.Rooms) == 1 && len(s.Left) == 1 })
			}
			c.cut()
			b.append(sol, 1)
			b.append(luna, 1)
			c.connect()
			if !c.recovered {
				t.Error("not recovered")
			}
			// The server repeats the notice to a client whose offset is older than the command,
			// because that client has not shown that it got it.
			if e := c.next(); e.name != "left" || string(e.args[0]) != toldToHaveLeft {
				t.Fatalf("got %s %s", e.name, e.args)
			}
			c.expect("centro-luna 2")
			c.connect()
			c.ask(func(e event) { t.Errorf("got %s %s", e.name, e.args) }, "ping", nil)
			c.join("clinica-sol")
			b.append(sol, 1)
			c.expect("clinica-sol 2")
		})
	}
}

// A client that was banned from one room while it was away continues in its others and
// gets a notice: a ban by one tenant costs the client nothing in the rooms of other
// tenants.
func TestBannedWhileAway(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{})
	c := b.joined(sol, luna)
	b.append(luna, 1)
	c.expect("centro-luna 1")
	c.cut()
	b.ban.Raise("eva", sol, domain.Ban{Reason: "maintenance", Until: time.Now().Add(time.Hour)})
	b.append(sol, 1)
	b.append(luna, 1)
	c.resume()
	if e := c.next(); e.name != "left" || !strings.Contains(string(e.args[0]), `"systemId":"clinica-sol"`) {
		t.Fatalf("got %s %s", e.name, e.args)
	}
	c.expect("centro-luna 2")
	b.ban.Lower("eva", sol)
	c.resume() // the client got the notice, and its old membership does not return
	b.append(sol, 1)
	b.append(luna, 1)
	c.expect("centro-luna 3")
}

// A command that arrives while the server saves a join waits for the save: the session
// keeps both changes.
func TestDismissedWhileAJoinIsSaved(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{})
	c := b.joined(sol, luna)
	var once sync.Once
	b.sessions.before(func(string) { once.Do(func() { dismissal(b) }) })
	c.join(map[string]any{"systemId": "centro-luna", "conflate": true})
	if e := c.next(); e.name != "left" || string(e.args[0]) != toldToHaveLeft {
		t.Fatalf("got %s %s", e.name, e.args)
	}
	b.append(luna, 1)
	c.expect("centro-luna 1")
	c.cut()
	b.append(sol, 1)
	b.append(luna, 1)
	c.resume()
	c.expect("centro-luna 2")
	c.ask(func(e event) { t.Errorf("got %s %s", e.name, e.args) }, "ping", nil)
	if sockets := b.server.Sockets(); !slices.Equal(sockets[len(sockets)-1].Systems, []domain.SystemID{luna}) {
		t.Errorf("open are %+v", sockets)
	}
}

// If the server cannot save the effect of a command, it closes the connection: the
// client must not stay in a room that its session still lists.
func TestDismissalThatCannotBeSaved(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{})
	c := b.joined(sol, luna)
	b.sessions.fail(true)
	dismissal(b)
	if f, err := c.ws.Next(c.ctx); err == nil {
		t.Errorf("the connection goes on with %s", f.Data)
	}
}

// untilSaved waits until a saved session satisfies the condition.
func (b *bundle) untilSaved(holds func(Session) bool) {
	b.t.Helper()
	testpeer.Eventually(b.t, "the session to be saved", func() bool {
		for _, saved := range b.sessions.all() {
			var s Session
			if err := json.Unmarshal(saved, &s); err != nil {
				b.t.Fatal(err)
			}
			if holds(s) {
				return true
			}
		}
		return false
	}, func() string { return fmt.Sprintf("saved are %s", b.sessions.all()) })
}
