package client

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/limit"
	"github.com/plugcast/plugcast/transport/rooms"
	"github.com/plugcast/plugcast/transport/snapshot"
	"github.com/plugcast/plugcast/transport/testpeer"
	"github.com/plugcast/plugcast/transport/testpeer/clienttest"
)

const (
	sol  = clienttest.Sol
	luna = clienttest.Luna
)

// notebook is a face that records everything that its client is told.
type notebook struct {
	session *Session
	saving  func(*Change) error // of a saver; nil saves

	mu    sync.Mutex
	notes []string
}

func (n *notebook) note(format string, args ...any) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.notes = append(n.notes, fmt.Sprintf(format, args...))
}

// take returns the notes since the last call.
func (n *notebook) take() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	notes := strings.Join(n.notes, ", ")
	n.notes = nil
	return notes
}

func (n *notebook) count() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.notes)
}

func (n *notebook) NewRoom(domain.SystemID) Room { return &quietRoom{} }

func (n *notebook) Apply(c *Change) {
	for _, gone := range c.Left {
		if gone.Reason != "" {
			n.note("left %s%s", gone.SystemID, gone.Room)
		}
	}
}

func (n *notebook) Watch(on bool)  { n.note("watching %v", on) }
func (n *notebook) Metrics([]byte) {}
func (n *notebook) Abort()         { n.note("aborted") }

func (n *notebook) ForceDisconnect(why ForcedDisconnect) {
	n.note("disconnected: %s", why.Reason)
	n.session.End()
}

func (n *notebook) Expire(code domain.Code) {
	n.note("%s", code)
	n.session.End()
}

func (n *notebook) Tick(time.Time) (next time.Time) { return time.Time{} }

// saver is a notebook that saves.
type saver struct{ *notebook }

func (k saver) Save(_ context.Context, c *Change) (any, error) {
	if k.saving == nil {
		return nil, nil
	}
	return nil, k.saving(c)
}

func (saver) IsSaved(domain.SystemID) bool { return false }

type quietRoom struct{ silent bool }

func (*quietRoom) Deliver(rooms.Frame)                     {}
func (*quietRoom) Restarted(domain.Cursor)                 {}
func (*quietRoom) Panicked()                               {}
func (*quietRoom) Enter(*rooms.Subscription, rooms.Joined) {}
func (r *quietRoom) Silence()                              { r.silent = true }

func (*quietRoom) Begin(state *snapshot.Snapshot) bool {
	state.Release()
	return true
}

// eva may see both systems.
var eva = domain.Actor{Subject: "eva", Role: domain.RoleViewer, Systems: []domain.SystemID{sol, luna}}

// bundle is a session with its dependencies. Its clock stands still.
type bundle struct {
	*notebook
	t      *testing.T
	server *Server
	hub    *rooms.Hub
	ban    *clienttest.Ban
}

func setup(t *testing.T, keeps bool) *bundle {
	t.Helper()
	logger := slog.New(slog.DiscardHandler)
	hub := clienttest.NewHub(t, clienttest.NewSource(), rooms.Config{})
	b := &bundle{notebook: &notebook{}, t: t, hub: hub, ban: &clienttest.Ban{}}
	var err error
	b.server, err = NewServer(Config{
		Face: "test", MaxRooms: 8, JoinTimeout: time.Minute, Tick: time.Hour, Rates: limit.Rates{}.WithDefaults(),
	}, Parts{Rooms: hub, Authenticator: &clienttest.Authenticator{}, Bans: b.ban, Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	testpeer.Run(t, b.server.Run)
	var face Face = b.notebook
	if keeps {
		face = saver{b.notebook}
	}
	b.session = b.server.NewSession(face, "socket-1", "here", eva)
	b.session.List()
	t.Cleanup(func() {
		b.session.Close()
		if err := b.server.Shutdown(context.Background(), func(Face) {}); err != nil {
			t.Error(err)
		}
		if n := hub.Stats(1).Subscriptions; n != 0 {
			t.Errorf("%d subscriptions are left", n)
		}
	})
	return b
}

func (b *bundle) join(system domain.SystemID) error {
	return b.session.Join(&rooms.JoinRequest{SystemID: string(system)}, func(at Joined) { b.note("joined %s", at.SystemID) })
}

func (b *bundle) want(notes string) {
	b.t.Helper()
	if got := b.take(); got != notes {
		b.t.Errorf("the client was told: %s; want: %s", got, notes)
	}
}

// A token that expires during a join ends the session: the join is undone and gets no
// answer.
func TestTokenExpiresDuringAJoin(t *testing.T) {
	t.Parallel()
	b := setup(t, true)
	now := time.Now()
	b.session.actor.ExpiresAt = now
	b.saving = func(*Change) error {
		b.session.tick(now)
		return nil
	}
	if err := b.join(sol); err != nil {
		t.Error(err)
	}
	b.want(string(CodeTokenExpired))
	if n := b.hub.Stats(1).Subscriptions; n != 0 {
		t.Errorf("%d subscriptions are left", n)
	}
}

// A panic in a change leaves no lock held and no room joined, and the session continues.
func TestPanicInAChange(t *testing.T) {
	t.Parallel()
	b := setup(t, true)
	b.saving = func(*Change) error { panic("on purpose") }
	func() {
		defer func() {
			if recover() == nil {
				t.Error("no panic")
			}
		}()
		_ = b.join(sol)
	}()
	if n := b.hub.Stats(1).Subscriptions; n != 0 || b.session.In(sol) {
		t.Errorf("%d subscriptions are left", n)
	}
	b.saving = nil
	if err := b.join(sol); err != nil {
		t.Error(err)
	}
	b.want("joined clinica-sol")
}

// A client that renews its token gets the answer first, and then the notices of the rooms
// that it lost, which are silent by then. The session notices a ban that is raised while
// the token takes effect.
func TestRenewal(t *testing.T) {
	t.Parallel()
	for _, keeps := range []bool{false, true} {
		t.Run(fmt.Sprint("keeps ", keeps), func(t *testing.T) {
			t.Parallel()
			b := setup(t, keeps)
			for _, system := range []domain.SystemID{sol, luna} {
				if err := b.join(system); err != nil {
					t.Fatal(err)
				}
			}
			b.take()
			lost, _ := b.session.member(sol)
			if err := b.session.Authenticate("eva:centro-luna", func(Authenticated) {
				b.note("authenticated, silent: %v", lost.room.(*quietRoom).silent)
				b.ban.Raise("eva", luna, domain.Ban{Reason: "cleaning", Until: time.Now().Add(time.Hour)})
			}); err != nil {
				t.Fatal(err)
			}
			notes := []string{"authenticated, silent: true", "left clinica-sol", "left centro-luna"}
			b.until("the client to be told", func() bool { return !keeps || b.count() >= len(notes) }) // a saver saves that apart
			b.want(strings.Join(notes, ", "))
			if systems := b.session.Describe().Systems; len(systems) > 0 {
				t.Errorf("it is in %v", systems)
			}
		})
	}
}

// A join of the admin dashboard satisfies the limit for the first join, even after the
// client has left it.
func TestAdminDashboard(t *testing.T) {
	t.Parallel()
	b := setup(t, false)
	f := &clienttest.Feed{}
	b.server.parts.Metrics = f
	staff := domain.Actor{Subject: "root", Role: domain.RoleStaff, AllSystems: true}
	b.session.actor = staff
	if err := b.session.JoinAdmin(func() { b.note("joined") }); err != nil || f.Watchers() != 1 {
		t.Errorf("%v, %d watch", err, f.Watchers())
	}
	b.want("joined, watching true")
	if err := b.session.Authenticate("eva:clinica-sol", func(Authenticated) { b.note("authenticated") }); err != nil || f.Watchers() != 0 {
		t.Errorf("%v, %d watch", err, f.Watchers())
	}
	b.want("watching false, authenticated, left admin-dashboard")
	b.server.config.JoinWithin = time.Nanosecond
	if b.session.tick(time.Now().Add(time.Hour)); !b.session.joined || b.session.IsEnded() {
		t.Error("the dashboard does not count as a join")
	}
}

// If an eviction cannot be saved, the session aborts the connection, and the client is
// checked again when it reconnects. An eviction changes nothing if the client left the
// room before it took effect.
func TestEvictionDuringAChange(t *testing.T) {
	t.Parallel()
	b := setup(t, true)
	if err := b.join(sol); err != nil {
		t.Fatal(err)
	}
	left := &Left{SystemID: sol, Reason: "cleaning"}
	if !b.session.markEvicted(left) {
		t.Fatal("not marked")
	}
	if len(b.session.Describe().Systems) != 0 {
		t.Error("it is listed in the room")
	}
	if err := b.session.Leave(string(sol), func(Left) { b.note("left by itself") }); err != nil {
		t.Error(err)
	}
	if err := b.join(sol); err != nil {
		t.Error(err)
	}
	b.session.finishEviction(left)
	b.want("joined clinica-sol, left by itself, joined clinica-sol")
	if !b.session.In(sol) {
		t.Error("a command took the client out of a room that it joined behind it")
	}
	if !b.session.markEvicted(left) {
		t.Fatal("not marked again")
	}
	b.saving = func(*Change) error { return context.DeadlineExceeded }
	b.session.finishEviction(left)
	b.want("aborted")
}

// A heartbeat names the rooms that the client knows that it is in: neither a room whose
// join is not answered yet, nor a room whose eviction waits for the save.
func TestHeartbeatNamesWhatTheClientKnows(t *testing.T) {
	t.Parallel()
	b := setup(t, true)
	beat := func() {
		b.session.Beat(func(passed map[domain.SystemID]domain.Cursor) {
			if b.session.order.TryLock() {
				b.session.order.Unlock()
				t.Error("a join or a departure may come in between")
			}
			b.note("%d rooms", len(passed))
		})
	}
	asked := 0
	b.ban.Asked = func(_ domain.Actor, system domain.SystemID) {
		if asked++; asked == 2 { // it is in the room, and has no answer
			beat()
		}
	}
	if err := b.join(sol); err != nil {
		t.Fatal(err)
	}
	beat()
	left := &Left{SystemID: sol, Reason: "cleaning"}
	b.session.markEvicted(left)
	beat()
	b.session.finishEviction(left)
	b.want("0 rooms, joined clinica-sol, 1 rooms, 0 rooms, left clinica-sol")
}
