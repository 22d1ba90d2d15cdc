package socketio

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/domain/isolate"
	"github.com/plugcast/plugcast/transport/snapshot"
	"github.com/plugcast/plugcast/transport/testpeer"
)

// badFeed is a feed of metrics that panics.
type badFeed struct{}

func (badFeed) Subscribe(func([]byte)) func() { panic("a bad feed") }

// A panic in a socket closes that socket. The other sockets notice nothing.
func TestPanicClosesOneSocket(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{})
	b.metrics = badFeed{}
	b.start()
	other := b.client("eva:clinica-sol").connect()
	before := isolate.Panics()["engineio"]
	bad := b.client("staff:clinica-sol").connect()
	bad.send(`421["join-admin-dashboard"]`)
	for {
		if _, err := bad.ws.Next(bad.ctx); bad.ctx.Err() != nil {
			t.Fatal("the socket is open")
		} else if err != nil {
			break
		}
	}
	if answer := other.join("clinica-sol"); answer["ok"] != true {
		t.Errorf("the other socket was answered %v", answer)
	}
	if n := isolate.Panics()["engineio"] - before; n != 1 {
		t.Errorf("%d panics are counted", n)
	}
}

// badLimiter panics when a returning client rejoins its second room.
type badLimiter struct{ joins atomic.Int32 }

func (l *badLimiter) Allow(_ context.Context, flow domain.Flow, _ domain.SystemID, _ int) (bool, time.Duration) {
	if flow == domain.FlowJoins && l.joins.Add(1) == 4 { // two joins, and the first room of the recovery
		panic("a bad limiter")
	}
	return true, 0
}

// After a panic in a recovery, no restored room remains.
func TestPanicInARecovery(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{})
	b.limiter = &badLimiter{}
	b.start()
	c := b.joined(sol, luna)
	if text, closed := c.attempt(); !closed {
		t.Fatalf("connected: %s", text)
	}
	c.cut()
	subscriptions := func() int { return b.server.parts.Rooms.Stats(1).Subscriptions }
	testpeer.Eventually(t, "the end of its subscriptions", func() bool { return subscriptions() == 0 })
	c.resume()
}

// emptySystem is a source of empty snapshots.
type emptySystem struct{}

func (emptySystem) WriteSnapshot(_ context.Context, _ domain.SystemID, write func([]byte) error) (domain.Cursor, error) {
	return domain.Cursor{}, write([]byte(`{}`))
}

func (emptySystem) Base(context.Context, domain.SystemID) (domain.Position, domain.Cursor, error) {
	return domain.Position{}, domain.Cursor{}, nil
}

// A panic while the server queues a snapshot releases the snapshot and the lock that
// deliveries take.
func TestPanicReleasesTheSnapshot(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{})
	b.joined(sol)
	cache := snapshot.New(snapshot.Config{Source: emptySystem{}})
	defer cache.Close()
	get := func() *snapshot.Snapshot {
		t.Helper()
		state, err := cache.Snapshot(t.Context(), sol)
		if err != nil {
			t.Fatal(err)
		}
		return state
	}
	s := b.server.all()[0]
	m, rooms := s.rooms[0], s.rooms
	s.saved.Revision, s.rooms = 2, []*membership{nil} // the nil membership panics
	state := get()
	if isolate.Do(nil, "test", func() { m.Begin(state) }) {
		t.Error("no panic")
	}
	again := get()
	defer again.Release()
	if again == state {
		t.Error("the snapshot is held") // otherwise the cache would have made a new one
	}
	s.sending.Lock()
	defer s.sending.Unlock()
	s.rooms = rooms
}
