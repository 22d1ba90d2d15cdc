package socketio

import (
	"encoding/json"
	"slices"
	"sync"
	"testing"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/client"
	"github.com/plugcast/plugcast/transport/limit"
)

// A command that removes a client from a room during its join takes effect after the
// join. The client learns of both in this order.
func TestTakenOutWhileJoining(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{})
	c := b.client("eva:clinica-sol,centro-luna").connect()
	c.join("centro-luna")
	var asked, out int
	b.ban.Asked = func(_ domain.Actor, system domain.SystemID) {
		if system != sol {
			return
		}
		if asked++; asked == 2 { // the socket is in the room, but its client does not know yet
			out = dismissal(b)
		}
	}
	c.join(map[string]any{"systemId": "clinica-sol", "snapshot": true})
	if e := c.next(); e.name != "left" || string(e.args[0]) != toldToHaveLeft || out != 1 {
		t.Errorf("%d sockets left the room, and behind the answer came %s %s", out, e.name, e.args)
	}
	b.append(sol, 1)
	c.ask(func(e event) { t.Errorf("got %s %s", e.name, e.args) }, "ping", nil)
	if sockets := b.server.Sockets(); len(sockets) != 1 || !slices.Equal(sockets[0].Systems, []domain.SystemID{luna}) {
		t.Errorf("open are %+v", sockets)
	}
}

// Joins and commands take effect in any order. The last notice about a room always tells
// the client whether it is in the room.
func TestLastNoticeIsHowItIs(t *testing.T) {
	t.Parallel()
	fast := limit.Rate{PerSecond: 1e6, Burst: 1e6}
	b := setup(t, Config{Rates: limit.Rates{Frames: fast, Joins: fast, Refused: fast}})
	c := b.client("eva:clinica-sol,centro-luna").connect()
	c.join("centro-luna")
	in := false
	take := func(e event) {
		var of struct{ SystemID domain.SystemID }
		if err := json.Unmarshal(e.args[0], &of); err != nil || e.name != "left" || of.SystemID != sol {
			t.Fatalf("got %s %s", e.name, e.args)
		}
		in = false
	}
	for round := range 300 {
		var commands sync.WaitGroup
		commands.Go(func() {
			for range 3 {
				dismissal(b)
			}
		})
		if answer := c.ask(take, "join-system", "clinica-sol"); answer["ok"] != true {
			t.Fatal(answer)
		}
		in = true
		commands.Wait()
		listed := slices.Contains(b.server.Sockets()[0].Systems, sol)
		for in && !listed { // the notice follows the save
			take(c.next())
		}
		c.ask(take, "ping", nil)
		if in != listed {
			t.Fatalf("round %d: the client was told that it is in the room: %v; it is: %v", round, in, listed)
		}
	}
}

// A command holds the session's order lock while it disconnects a client, so it must not
// wait for deliveries: a delivery that finds the queue full ends the connection, and
// would wait for the command.
func TestThrowingOutWaitsForNoDelivery(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{})
	c := b.joined(sol)
	s := b.server.all()[0]
	thrown := make(chan int, 1)
	s.sending.Lock() // a delivery holds this lock
	defer s.sending.Unlock()
	go func() {
		thrown <- b.server.Disconnect(func(domain.Socket) bool { return true }, client.ForcedDisconnect{Reason: "cleaning", Reconnect: true})
	}()
	select {
	case n := <-thrown:
		if n != 1 {
			t.Errorf("%d sockets were thrown out", n)
		}
	case <-c.ctx.Done():
		t.Error("the command waits for a delivery")
	}
}
