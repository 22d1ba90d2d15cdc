package client

import (
	"context"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/rooms"
	"github.com/plugcast/plugcast/transport/snapshot"
)

// Face is a connection as its session sees it. Its methods queue frames and return: they
// wait for no client, and call no method of the session except [Session.End],
// [Session.WakeBy] and methods that only read; see also [Session.Beat].
type Face interface {
	// NewRoom makes the face's end of a room that the client is about to join. The room
	// delivers nothing before [Room.Enter], and the join may still fail.
	NewRoom(domain.SystemID) Room
	// Apply tells the face that a change takes effect. The face tells the client of those
	// rooms in Change.Left that have a Reason; all of them are silent already. Called under
	// the session's order.
	Apply(*Change)
	// Watch turns the frames of the metrics feed on or off for the client. After
	// Watch(false) returns, no such frame is queued. Called under the session's order.
	Watch(on bool)
	// Metrics receives a frame of the metrics feed. The face drops it while Watch is off.
	// Called at any time, from any goroutine.
	Metrics(frame []byte)
	// ForceDisconnect tells the client the reason, ends the connection after that, and
	// calls [Session.End]. Called at most once, under the session's order.
	ForceDisconnect(ForcedDisconnect)
	// Expire tells the client that its token has expired ([CodeTokenExpired]) or that it
	// joined no room in time ([CodeNoJoin]), ends the connection after that, and calls
	// [Session.End]. Called under the session's order.
	Expire(domain.Code)
	// Abort closes the connection because of a fault of the server. The client may
	// reconnect. Called at any time, from any goroutine.
	Abort()
	// Tick does the face's own timed work, and returns when it has to be called next, or
	// zero. [Session.WakeBy] can make that earlier. Called from one goroutine.
	Tick(now time.Time) (next time.Time)
}

// Room is a face's end of a room. It receives the room's events.
type Room interface {
	rooms.Sink
	rooms.PanicHandler
	// Enter tells the face where the room begins, before the join takes effect. The session
	// owns the snapshot in it until Begin.
	Enter(*rooms.Subscription, rooms.Joined)
	// Begin queues the room's first snapshot, unless the room is silent, and releases it
	// when it has been written or will not be, even after a panic. It returns false if the
	// face has aborted the connection.
	Begin(*snapshot.Snapshot) bool
	// Silence stops the room: when it returns, nothing of the room is queued for the
	// client. Calling it twice is fine. Called under the session's order.
	Silence()
}

// Pauser is a [Room] that keeps a client's place when the client joins again without a
// position. If such a join requests nothing else, it is answered with that place;
// otherwise events continue from there with the new filter.
type Pauser interface {
	// Pause holds events back until Resume, and returns the place up to which all events
	// were sent.
	Pause() domain.Position
	// Resume lets events flow again, if the room is not silent.
	Resume()
}

// Saver is a [Face] whose client can resume its rooms after a reconnect.
type Saver interface {
	// Save makes a change durable before it takes effect. [Face.Apply] finds the result in
	// the change. The session saves and applies one change at a time.
	Save(context.Context, *Change) (saved any, err error)
	// IsSaved reports whether the client would resume a room. Called between changes.
	IsSaved(domain.SystemID) bool
}

// Change is a change of a client's rooms or of its actor.
type Change struct {
	Actor   *domain.Actor // the new actor; nil if it stays
	Entered *Entered      // the room that the client joined, replacing any room of the same system; nil if none
	Admin   bool          // the client joined the admin dashboard
	Left    []Left        // the rooms that the client left
	Saved   any           // the result of [Saver.Save]; nil when nothing was saved
}

// Entered describes a room that a client joined.
type Entered struct {
	System  domain.SystemID
	Room    Room
	Options rooms.Options // the options of the join
	At      rooms.Joined

	replaced bool // the client was in the system's room before
}

// AdminRoom is the name of the room of the admin dashboard.
const AdminRoom = "admin-dashboard"

// Joined is the answer to a join of a system's room.
type Joined struct {
	SystemID  domain.SystemID `json:"systemId"`
	Position  domain.Position `json:"position"` // events follow from here on
	Seq       uint64          `json:"seq"`
	Recovered bool            `json:"recovered"`
}

// JoinedAt returns the answer for a join at a place.
func JoinedAt(system domain.SystemID, at domain.Cursor, recovered bool) Joined {
	return Joined{SystemID: system, Position: at.Position, Seq: at.Seq, Recovered: recovered}
}

// Left says that a client left a system's room, or the admin dashboard.
type Left struct {
	SystemID domain.SystemID `json:"systemId,omitempty"`
	Room     string          `json:"room,omitempty"`
	Reason   string          `json:"reason,omitempty"` // why the client had to leave; empty if it asked to
}

// Authenticated is the answer to a renewal of the token.
type Authenticated struct {
	Subject   string      `json:"subject"`
	Role      domain.Role `json:"role"`
	ExpiresAt time.Time   `json:"expiresAt"`
}

// ForcedDisconnect tells a client why a command disconnects it.
type ForcedDisconnect struct {
	Reason    string `json:"reason"`
	CommandID string `json:"commandId"`
	Reconnect bool   `json:"reconnect"` // whether the client may reconnect at once
	// Room limits the command to one system's room. A socket that can continue without the
	// room, see [domain.Socket.LivesWithout], leaves it and stays open. Empty means all rooms.
	Room domain.SystemID `json:"-"`
}
