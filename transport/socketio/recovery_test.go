package socketio

import (
	"encoding/json"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/testpeer"
)

// A client that returns after its server died gets the events that it missed, even if it
// never got one before, and is in its rooms without joining.
func TestRecoveryAfterTheServerDied(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{})
	b.append(sol, 3)
	c := b.client("eva:clinica-sol").connect()
	if answer := c.join("clinica-sol"); answer["seq"] != 3.0 || answer["recovered"] != false {
		t.Errorf("joined at %v", answer)
	}
	b.start()
	b.append(sol, 2)
	c.resume()
	c.expect("clinica-sol 4")
	c.cut() // the fifth event is in flight
	b.append(sol, 1)
	b.start()
	c.resume()
	c.expect("clinica-sol 5", "clinica-sol 6")
}

// Applications join on every connect. A repeated join must not move the client's
// position.
func TestJoiningAgainKeepsThePlace(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{})
	c := b.joined(sol)
	c.cut()
	b.append(sol, 300)
	c.connect()
	got := 0
	answer := c.ask(func(e event) {
		if got++; e.seq != uint64(got) {
			t.Fatalf("event %d came as number %d", e.seq, got)
		}
	}, "join-system", map[string]any{"systemId": "clinica-sol"})
	if answer["ok"] != true {
		t.Fatal(answer)
	}
	for ; got < 300; got++ {
		if e := c.next(); e.seq != uint64(got+1) {
			t.Fatalf("event %d came as number %d", e.seq, got+1)
		}
	}
}

// A client in two rooms has a position in each, even if one delivered nothing since the
// client joined the other.
func TestRecoveryInTwoRooms(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{})
	c := b.client("eva:clinica-sol,centro-luna").connect()
	c.join("clinica-sol")
	b.append(sol, 1)
	c.expect("clinica-sol 1")
	c.join("centro-luna")
	again := func(sols, lunas int, want ...string) {
		t.Helper()
		c.cut()
		b.append(sol, sols)
		b.append(luna, lunas)
		b.start()
		c.resume()
		seen := map[string]bool{}
		for range want {
			e := c.next()
			var meta struct{ SystemID string }
			_ = json.Unmarshal(e.args[1], &meta)
			seen[meta.SystemID+" "+string(rune('0'+e.seq))] = true
		}
		for _, w := range want {
			if !seen[w] {
				t.Errorf("no %s among %v", w, seen)
			}
		}
	}
	again(1, 1, "clinica-sol 2", "centro-luna 1")
	again(1, 0, "clinica-sol 3")
	again(0, 1, "centro-luna 2")
	if answer := c.ask(nil, "leave-system", "clinica-sol"); answer["ok"] != true {
		t.Fatal(answer)
	}
	again(1, 1, "centro-luna 3")
	c.join(map[string]any{"systemId": "clinica-sol", "after": "0-0"})
	c.expect("clinica-sol 1") // the first of four events
	c.cut()
	b.append(luna, 1)
	c.connect()
	rest := map[uint64]bool{}
	for range 4 {
		rest[c.next().seq] = true
	}
	if len(rest) != 3 || !rest[2] || !rest[3] || !rest[4] { // luna's event has seq 4 too
		t.Errorf("then came %v", rest)
	}
}

// The server must not take an offset from before a join for a position in the room that
// the client joined later.
func TestOldOffsetsAreNotBelieved(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{})
	c := b.joined(sol)
	b.append(sol, 2)
	c.expect("clinica-sol 1", "clinica-sol 2")
	c.join(map[string]any{"systemId": "clinica-sol", "after": "0-0"}) // the cut comes before the first event
	c.cut()
	c.connect()
	c.expect("clinica-sol 1", "clinica-sol 2")

	for pid := range b.sessions.all() { // as if a week had passed
		_ = b.sessions.do(func() { delete(b.sessions.saved, pid) })
	}
	if c.connect(); c.recovered {
		t.Error("recovered from nothing")
	}
	c.join(map[string]any{"systemId": "clinica-sol", "after": "0-0"})
	c.cut()
	c.resume()
	c.expect("clinica-sol 1", "clinica-sol 2")
}

// The server sends the snapshot once, unless the cut may have lost it.
func TestSnapshotComesAgainToWhoDidNotGetIt(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{})
	b.append(sol, 2)
	c := b.client("eva:clinica-sol").connect()
	c.join(map[string]any{"systemId": "clinica-sol", "snapshot": true}) // the cut comes before the snapshot
	c.connect()
	e := c.next()
	var snapshot struct {
		Seq     uint64
		Devices []domain.Device
	}
	if err := json.Unmarshal(e.args[0], &snapshot); err != nil || e.name != "snapshot" || snapshot.Seq != 2 || len(snapshot.Devices) != 1 {
		t.Fatalf("got %s %s", e.name, e.args)
	}
	b.append(sol, 1)
	c.expect("clinica-sol 3")
	b.append(sol, 1)
	c.connect()
	c.expect("clinica-sol 4")
}

// A pid is useless to another subject, and in a system that its owner may no longer
// read.
func TestSessionsAreTheirOwners(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{})
	c := b.joined(sol)
	for name, token := range map[string]string{"somebody else": "ana:clinica-sol", "not allowed any more": "eva:centro-luna"} {
		other := b.client(token)
		other.pid, other.offset = c.pid, c.offset
		if other.connect(); other.recovered || other.pid == c.pid {
			t.Errorf("%s has the session", name)
		}
		if len(b.server.Sockets()) == 0 {
			t.Error("nobody is listed")
		}
	}
}

// While the session store is unavailable, the server closes connections, so that clients
// come back later and keep their sessions.
func TestStoreThatIsAway(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{})
	c := b.client("eva:clinica-sol").connect()
	b.sessions.fail(true)
	if answer := c.ask(nil, "join-system", "clinica-sol"); answer["ok"] != false {
		t.Errorf("joined without a session: %v", answer)
	}
	b.sessions.fail(false)
	c.join("clinica-sol")
	b.sessions.fail(true)
	c.cut()
	other := b.client(c.token)
	other.pid = c.pid
	if text, closed := other.attempt(); !closed {
		t.Errorf("connected: %s", text)
	}
	b.sessions.fail(false)
	c.resume()
}

// The offset of an event in one room must not acknowledge the snapshot of another room
// that the client has not got yet.
func TestEventBeforeTheSnapshotOfAnotherRoom(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{})
	var asked atomic.Int32
	there, goOn := make(chan struct{}), make(chan struct{})
	b.ban.Asked = func(_ domain.Actor, system domain.SystemID) {
		if system == luna && asked.Add(1) == 2 { // the client is in luna, and the server has sent nothing of it yet
			close(there)
			<-goOn
		}
	}
	b.append(luna, 2)
	c := b.client("eva:clinica-sol,centro-luna").connect()
	c.join("clinica-sol")
	c.send(`42["join-system",{"systemId":"centro-luna","snapshot":true}]`)
	<-there
	b.append(sol, 1)
	c.expect("clinica-sol 1")
	c.cut()
	close(goOn)
	c.resume()
	snapshots := 0
	c.ask(func(e event) { // the answer follows the first packets of the connection
		if e.name == "snapshot" {
			snapshots++
		}
	}, "ping", nil)
	if snapshots != 1 {
		t.Errorf("%d snapshots came", snapshots)
	}
}

// A session store that was restored from an older copy does not know the last joins: the
// client must learn that it is not in those rooms.
func TestStoreThatWentBack(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{})
	c := b.client("eva:clinica-sol,centro-luna").connect()
	c.join("clinica-sol")
	older := b.sessions.all()
	c.join("centro-luna")
	b.append(luna, 1)
	c.expect("centro-luna 1")
	_ = b.sessions.do(func() { b.sessions.saved = older })
	if c.connect(); c.recovered {
		t.Error("recovered, without a room that was joined")
	}
	c.join("centro-luna")
	b.append(luna, 1)
	c.expect("centro-luna 2")
	c.resume()
}

// An unreadable session does not lock its client out for ever.
func TestSessionThatCannotBeRead(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{})
	c := b.joined(sol)
	for id := range b.sessions.all() {
		_ = b.sessions.do(func() { b.sessions.saved[id] = []byte(`{"revision":"first"}`) })
	}
	if c.connect(); c.recovered {
		t.Error("recovered from nothing")
	}
	c.join("clinica-sol")
	c.resume()
}

// A client that disconnects on purpose, or that has left all its rooms, leaves no
// session that the store must keep for days.
func TestSessionsOfClientsThatGoExpireSoon(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{})
	ended := func(c *testClient, systems ...domain.SystemID) {
		t.Helper()
		ref, ok := parsePID(c.pid, domain.Actor{Subject: "eva", Systems: systems})
		if !ok {
			t.Fatalf("no pid: %q", c.pid)
		}
		testpeer.Eventually(t, "the end of the session", func() bool { return b.sessions.isEnded(ref) })
	}
	c := b.joined(sol)
	c.ask(nil, "leave-system", map[string]any{"systemId": "clinica-sol"})
	ended(c, sol)
	c = b.client("eva:clinica-sol").connect()
	c.join("clinica-sol")
	c.send("41")
	ended(c, sol)
	c.resume() // the client returns after all
	ref, _ := parsePID(c.pid, domain.Actor{Subject: "eva"})
	c.cut()
	if c.connect(); b.sessions.isEnded(ref) {
		t.Error("the session of a client that was cut off is not kept")
	}
}

// A pid never names a session of another subject.
func TestPIDs(t *testing.T) {
	t.Parallel()
	actor := domain.Actor{Subject: "eva", Systems: []domain.SystemID{sol}}
	ref := newRef(actor)
	if got, ok := parsePID(pidOf(ref), actor); !ok || got != ref {
		t.Errorf("%v became %v", ref, got)
	}
	for _, bad := range []string{
		"", ref.PID, ref.PID + ".", "." + string(sol), strings.Repeat("A", 25) + ".clinica-sol", strings.Repeat(":", 26) + ".clinica-sol",
		ref.PID + ".clinica sol", ref.PID + "." + strings.Repeat("a", 70_000),
	} {
		if got, ok := parsePID(bad, actor); ok {
			t.Errorf("%.60q is %v", bad, got)
		}
	}
}
