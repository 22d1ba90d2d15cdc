package ws

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/client"
	"github.com/plugcast/plugcast/transport/limit"
	"github.com/plugcast/plugcast/transport/testpeer"
	"github.com/plugcast/plugcast/transport/testpeer/clienttest"
)

// TestSnapshotAndTail joins at random moments while events arrive. Snapshot and tail
// together must always equal the fold of all events.
func TestSnapshotAndTail(t *testing.T) {
	t.Parallel()
	ts := serve(t, Config{Rates: limit.Rates{Joins: limit.Rate{PerSecond: 1000, Burst: 1000}}})
	const total = 1000
	go func() {
		for left := total; left > 0; {
			n := min(1+rand.IntN(20), left)
			ts.source.Append(sol, clienttest.Updates(n)...)
			left -= n
			runtime.Gosched()
		}
	}()
	var group sync.WaitGroup
	for range 6 {
		group.Go(func() {
			c := ts.connect("viewer")
			for done := false; !done; {
				at := c.join(sol, `"snapshot":true`)
				var snapshot domain.Snapshot
				c.expect(eventSnapshot).into(t, &snapshot)
				if snapshot.Position != at.Position || snapshot.Seq != at.Seq {
					t.Errorf("joined at %+v with a snapshot of %d", at, snapshot.Seq)
				}
				state := &domain.State{
					SystemID: sol, Cursor: domain.Cursor{Position: at.Position, Seq: at.Seq}, Devices: map[domain.DeviceID]*domain.Device{},
				}
				for _, d := range snapshot.Devices {
					state.Devices[d.DeviceID] = d
				}
				done = at.Seq == total
				for want := min(at.Seq+uint64(rand.IntN(50)), total); state.Cursor.Seq < want; {
					for _, e := range c.events(1) {
						if _, err := state.Apply(&e); err != nil { // fails if an event is missing
							t.Error(err)
							return
						}
					}
				}
				compareDevices(t, state, ts.source.Events(sol)[:state.Cursor.Seq])
				if state.Cursor.Seq < total {
					c = ts.connect("viewer") // a new socket has no frames in flight
				}
			}
		})
	}
	group.Wait()
}

func compareDevices(t *testing.T, got *domain.State, events []domain.Event) {
	t.Helper()
	want, err := clienttest.Fold(sol, events)
	if err != nil {
		t.Fatal(err)
	}
	a, _ := json.Marshal(got.Snapshot().Devices)
	b, _ := json.Marshal(want.Snapshot().Devices)
	if string(a) != string(b) {
		t.Errorf("at %s snapshot and tail give\n%s\nand everything gives\n%s", got.Cursor, a, b)
	}
}

// TestResumeAfterCuts cuts connections at random, on both sides, and resumes after each
// cut.
func TestResumeAfterCuts(t *testing.T) {
	t.Parallel()
	ts := serve(t, Config{})
	const total = 2000
	go func() {
		for range total / 10 {
			ts.source.Append(sol, clienttest.Updates(10)...)
			<-time.After(time.Duration(rand.IntN(1000)) * time.Microsecond)
		}
	}()
	var group sync.WaitGroup
	for range 6 {
		group.Go(func() {
			var got []domain.Event
			after := domain.Position{}
			for len(got) < total {
				c, at := ts.join("viewer", sol, fmt.Sprintf(`"after":%q`, after))
				if !at.Recovered || at.Seq != uint64(len(got)) {
					t.Errorf("resumed after %d at %+v", len(got), at)
					return
				}
				got = append(got, c.events(min(rand.IntN(400), total-len(got)))...)
				if len(got) > 0 {
					after = got[len(got)-1].Position
				}
				_ = c.NetConn().Close()
			}
			clienttest.RequireEvents(t, got, ts.source.Events(sol))
		})
	}
	group.Wait()
}

// joinNarrow joins through a connection with small kernel buffers, so that the server
// soon notices a client that stops reading.
func (ts *testServer) joinNarrow() (*testClient, *socket) {
	ts.t.Helper()
	c, _ := ts.join("viewer", sol)
	_ = c.NetConn().(*net.TCPConn).SetReadBuffer(64 << 10)
	var newest *socket
	for _, so := range ts.all() {
		if newest == nil || so.session.Describe().ConnectedAt.After(newest.session.Describe().ConnectedAt) {
			newest = so
		}
	}
	_ = newest.conn.WebsocketConnection().NetConn().(interface{ SetWriteBuffer(bytes int) error }).SetWriteBuffer(16 << 10)
	return c, newest
}

// stall appends events until the socket makes no more progress.
func (ts *testServer) stall(so *socket) {
	ts.t.Helper()
	passed, since := domain.Cursor{}, time.Now()
	testpeer.Eventually(ts.t, "the socket to stall", func() bool {
		ts.source.Append(sol, clienttest.Updates(100)...)
		<-time.After(10 * time.Millisecond)
		if now := so.session.Progress()[sol]; now != passed {
			passed, since = now, time.Now()
		}
		return time.Since(since) > 100*time.Millisecond
	})
}

// TestStoppedReader stops reading while many events arrive. The socket stays open, holds
// no more than a frame, and delivers everything once the client reads again.
func TestStoppedReader(t *testing.T) {
	t.Parallel()
	ts := serve(t, Config{HeartbeatEvery: 10 * time.Millisecond})
	c, so := ts.joinNarrow()
	ts.stall(so)
	for range 100 {
		ts.source.Append(sol, clienttest.Updates(50)...)
		<-time.After(2 * time.Millisecond)
		so.mu.Lock()
		waiting, answers := len(so.outbound.queue), so.outbound.bytes
		so.mu.Unlock()
		if waiting > 2 || answers > 1000 { // one frame of the room and one heartbeat may wait
			t.Fatalf("%d frames wait, %d bytes of them answers", waiting, answers)
		}
	}
	all := ts.source.Events(sol)
	clienttest.RequireEvents(t, c.events(len(all)), all)
	c.stillOpen()
}

// TestSilentPeer has a peer that answers no pings, as if it were gone.
func TestSilentPeer(t *testing.T) {
	t.Parallel()
	ts := serve(t, Config{PongWait: time.Second})
	alive, _ := ts.join("viewer", sol)
	kept := ts.Sockets()[0].SocketID
	ts.join("viewer", sol) // this client reads nothing, so it answers no pings
	go func() {
		for {
			if _, err := alive.read(); err != nil { // the library answers pings while it reads
				return
			}
		}
	}()
	testpeer.Eventually(t, "the silent one to be gone", func() bool { return len(ts.Sockets()) == 1 })
	if id := ts.Sockets()[0].SocketID; id != kept {
		t.Error("the one that answers is gone")
	}
}

// TestGreedyClient requests snapshots and reads none.
func TestGreedyClient(t *testing.T) {
	t.Parallel()
	ts := serve(t, Config{
		Rates: limit.Rates{
			Frames: limit.Rate{PerSecond: 1e6, Burst: 1e6},
			Joins:  limit.Rate{PerSecond: 1e6, Burst: 1e6},
		},
		CloseWait: 50 * time.Millisecond,
	})
	for i := range 1000 {
		ts.source.Append(sol, clienttest.Update(fmt.Sprint("plug-", i), 1))
	}
	c := ts.connect("viewer")
	_ = c.NetConn().(*net.TCPConn).SetReadBuffer(4 << 10)
	so := ts.all()[0]
	for range 200 {
		_ = c.WriteMessage(1, []byte(`{"event":"join-system","data":{"systemId":"clinica-sol","snapshot":true}}`))
		so.mu.Lock()
		bytes := so.outbound.bytes
		so.mu.Unlock()
		if bytes > maxAnswerBytes+2<<20 {
			t.Fatalf("%d bytes of answers wait", bytes)
		}
	}
	testpeer.Eventually(t, "the client to be gone", func() bool { return len(ts.all()) == 0 })
}

// TestShutdownWithStoppedReaders demands that a shutdown does not wait for clients that
// stopped reading.
func TestShutdownWithStoppedReaders(t *testing.T) {
	t.Parallel()
	ts := serve(t, Config{CloseWait: 100 * time.Millisecond})
	for range 5 {
		_, so := ts.joinNarrow()
		ts.stall(so)
	}
	if err := ts.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := len(ts.all()); n != 0 {
		t.Errorf("%d sockets after the shutdown", n)
	}
}

// TestShutdownInAHurry demands that the server cuts the remaining connections when the
// context of the shutdown ends.
func TestShutdownInAHurry(t *testing.T) {
	t.Parallel()
	ts := serve(t, Config{CloseWait: time.Hour})
	_, so := ts.joinNarrow()
	ts.stall(so)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := ts.Shutdown(ctx); err == nil {
		t.Error("the socket was closed, though nobody read")
	}
	if n := len(ts.all()); n != 0 {
		t.Errorf("%d sockets after the shutdown", n)
	}
}

// TestComingAndGoing lets many sockets join, leave and vanish at once, while the server
// disconnects some and finally shuts down. No socket or subscription may remain.
func TestComingAndGoing(t *testing.T) {
	t.Parallel()
	ts := serve(t, Config{Rates: limit.Rates{Joins: limit.Rate{PerSecond: 1000, Burst: 1000}}})
	stop := make(chan struct{})
	var group sync.WaitGroup
	group.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				if len(ts.source.Events(sol)) < 1000 {
					ts.source.Append(sol, clienttest.Updates(3)...)
					ts.source.Append(luna, clienttest.Updates(3)...)
				}
				ts.Disconnect(func(domain.Socket) bool { return rand.IntN(200) == 0 }, client.ForcedDisconnect{})
				<-time.After(time.Millisecond)
			}
		}
	})
	var clients sync.WaitGroup
	for range 16 {
		clients.Go(func() {
			for range 12 {
				c := ts.dial("both")
				for range rand.IntN(20) {
					frames := []string{
						`{"event":"join-system","data":{"systemId":"clinica-sol","after":"0-0"}}`,
						`{"event":"join-system","data":{"systemId":"centro-luna","snapshot":true,"conflate":true}}`,
						`{"event":"leave-system","data":{"systemId":"clinica-sol"}}`,
						`{"event":"authenticate","data":{"token":"luna"}}`,
						`{"event":"ping"}`,
					}
					if c.WriteMessage(1, []byte(frames[rand.IntN(len(frames))])) != nil {
						break
					}
					if _, err := c.read(); err != nil {
						break
					}
				}
				if rand.IntN(2) == 0 {
					_ = c.NetConn().Close()
				}
			}
		})
	}
	clients.Wait()
	close(stop)
	group.Wait()
	if err := ts.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if stats := ts.hub.Stats(10); stats.Subscriptions != 0 || len(ts.all()) != 0 {
		t.Errorf("%d subscriptions and %d sockets are left", stats.Subscriptions, len(ts.all()))
	}
}
