package client

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/rooms"
	"github.com/plugcast/plugcast/transport/testpeer"
)

// listing is a registry of sockets that can panic.
type listing struct {
	mu      sync.Mutex
	systems []domain.SystemID // of the socket
	panics  bool
}

func (l *listing) Put(s domain.Socket) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.panics {
		panic("on purpose")
	}
	l.systems = s.Systems
}

func (*listing) Remove(string) {}

func (l *listing) lists() []domain.SystemID {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.systems
}

// until waits until another goroutine has made the condition true.
func (b *bundle) until(what string, done func() bool) {
	b.t.Helper()
	testpeer.Eventually(b.t, what, done)
}

// A panic after an eviction does not leave the client in a room that is silent for good:
// its connection is aborted, and the client is checked again when it reconnects. The
// registry does not show it in the room.
func TestPanicAfterAnEviction(t *testing.T) {
	t.Parallel()
	b := setup(t, true)
	list := &listing{}
	b.server.parts.Registry = list
	for _, system := range []domain.SystemID{sol, luna} {
		if err := b.join(system); err != nil {
			t.Fatal(err)
		}
	}
	b.take()
	b.saving = func(*Change) error { panic("on purpose") }
	if n := b.command(sol); n != 1 {
		t.Errorf("%d sockets were meant", n)
	}
	b.until("the client is cut off", func() bool { return b.count() > 0 })
	b.want("aborted")
	if systems := list.lists(); !slices.Equal(systems, []domain.SystemID{luna}) {
		t.Errorf("listed in %v", systems)
	}
}

// command takes the clients out of a room.
func (b *bundle) command(system domain.SystemID) int {
	in := func(s domain.Socket) bool { return slices.Contains(s.Systems, system) }
	return b.server.Disconnect(in, ForcedDisconnect{Room: system, Reason: "cleaning", Reconnect: true})
}

// A panic while a command disconnects one client aborts that client's connection, and the
// command continues with the others.
func TestPanicInACommand(t *testing.T) {
	t.Parallel()
	b := setup(t, false)
	b.server.parts.Registry = &listing{panics: true}
	for _, one := range []*Session{b.session, b.server.NewSession(b.notebook, "socket-2", "here", eva)} {
		one.List()
		t.Cleanup(func() {
			b.server.parts.Registry = nil
			one.Close()
		})
		for _, system := range []domain.SystemID{sol, luna} {
			if _, err := one.Restore(t.Context(), system, rooms.Options{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	b.command(sol)
	b.want("left clinica-sol, aborted, left clinica-sol, aborted")
}

// A client that is banned from a room while it joins the room again loses the membership
// that it had. It is told so, and its join is refused.
func TestBanWhileJoiningAgain(t *testing.T) {
	t.Parallel()
	for _, keeps := range []bool{false, true} {
		for _, commanded := range []bool{false, true} {
			t.Run(fmt.Sprintf("keeps %v, commanded %v", keeps, commanded), func(t *testing.T) {
				t.Parallel()
				b := setup(t, keeps)
				var asked atomic.Int32
				b.ban.Asked = func(_ domain.Actor, system domain.SystemID) {
					if system != sol || asked.Add(1)%2 != 0 {
						return
					}
					b.ban.Raise("eva", sol, domain.Ban{Reason: "cleaning", Until: time.Now().Add(time.Hour)})
					if commanded {
						b.command(sol)
					}
				}
				if err := b.join(luna); err != nil {
					t.Fatal(err)
				}
				b.take()
				if err := b.join(sol); err == nil {
					t.Error("joined in spite of a ban")
				}
				b.want("") // it was not in the room
				b.ban.Lower("eva", sol)
				raise := b.ban.Asked
				b.ban.Asked = nil
				if err := b.join(sol); err != nil {
					t.Fatal(err)
				}
				b.take()
				b.ban.Asked = raise
				if err := b.join(sol); err == nil {
					t.Error("joined again in spite of a ban")
				}
				b.want("left clinica-sol")
				if b.session.In(sol) || !b.session.In(luna) {
					t.Error("it is in the wrong rooms")
				}
			})
		}
	}
}
