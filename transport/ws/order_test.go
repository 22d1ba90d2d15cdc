package ws

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/client"
	"github.com/plugcast/plugcast/transport/limit"
	"github.com/plugcast/plugcast/transport/testpeer/clienttest"
)

// takeOut removes the sockets that are in sol and in other rooms from sol.
func (ts *testServer) takeOut() int {
	in := func(s domain.Socket) bool { return slices.Contains(s.Systems, sol) && len(s.Systems) > 1 }
	return ts.Disconnect(in, client.ForcedDisconnect{Reason: "cleaning", Room: sol})
}

// A command that removes a client from a room during its join takes effect after the
// join. The client learns of both in this order.
func TestTakenOutWhileJoining(t *testing.T) {
	t.Parallel()
	var ts *testServer
	var asked atomic.Int32
	ban := &clienttest.Ban{}
	ban.Asked = func(_ domain.Actor, system domain.SystemID) {
		if system == sol && asked.Add(1) == 2 { // the socket is in the room, but its client does not know yet
			if n := ts.takeOut(); n != 1 {
				t.Errorf("%d sockets left the room", n)
			}
		}
	}
	ts = serve(t, Config{}, withBan(ban))
	c, _ := ts.join("both", luna)
	c.join(sol, `"snapshot":true`)
	var out client.Left
	f := c.next()
	if f.Event == eventSnapshot { // the snapshot may be in flight
		f = c.next()
	}
	if f.into(t, &out); f.Event != eventLeft || out != (client.Left{SystemID: sol, Reason: "cleaning"}) {
		t.Errorf("behind the answer came %s", f.raw)
	}
	ts.source.Append(sol, clienttest.Updates(1)...)
	c.stillOpen()
	if listed := ts.Sockets(); len(listed) != 1 || !slices.Equal(listed[0].Systems, []domain.SystemID{luna}) {
		t.Errorf("listed: %v", listed)
	}
}

// Joins and commands take effect in any order. The last notice about a room always tells
// the client whether it is in the room.
func TestLastNoticeIsHowItIs(t *testing.T) {
	t.Parallel()
	fast := limit.Rate{PerSecond: 1e6, Burst: 1e6}
	ts := serve(t, Config{Rates: limit.Rates{Frames: fast, Joins: fast, Refused: fast}})
	c, _ := ts.join("both", luna)
	c.join(sol)
	in := true
	for round := range 1000 {
		var commands sync.WaitGroup
		commands.Go(func() {
			for range 3 {
				ts.takeOut()
			}
		})
		c.send(`{"event":"join-system","id":"j","data":{"systemId":"clinica-sol"}}`)
		commands.Wait()
		c.send(fmt.Sprintf(`{"event":"ping","id":%d}`, round))
		for f := c.next(); f.Event != eventPong; f = c.next() {
			switch f.Event {
			case eventJoined:
				in = true
			case eventLeft:
				in = false
			default:
				t.Fatalf("got %s", f.raw)
			}
		}
		if listed := slices.Contains(ts.Sockets()[0].Systems, sol); listed != in {
			t.Fatalf("round %d: the client was told that it is in the room: %v; it is: %v", round, in, listed)
		}
	}
}
