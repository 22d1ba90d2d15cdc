package client

import (
	"context"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/rooms"
	"github.com/plugcast/plugcast/transport/snapshot"
)

// Face is a connection as its session sees it. Its methods queue what is to be written
// and return: they wait for no client, and call back none of the session's methods but
// [Session.Over], [Session.Due] and those that only read; see also [Session.Beat].
type Face interface {
	// NewRoom makes the face's end of a room that the client is about to join. Nothing
	// is delivered before [Room.Enter], and the join may come to nothing.
	NewRoom(domain.SystemID) Room
	// Apply is told that a change takes effect, and tells the client of the rooms in
	// Gone that have a Reason. The rooms that the client is out of are silent already.
	// Called under the session's order.
	Apply(*Change)
	// Watch says whether frames of the metrics feed are for the client from here on.
	// When it returns after false, none is queued any more. Called under the session's
	// order.
	Watch(on bool)
	// Metrics takes a frame of the metrics feed. The face drops it unless Watch let it
	// through. Called at any time.
	Metrics(frame []byte)
	// ThrowOut tells the client why it is thrown out, ends the connection behind that, and
	// calls [Session.Over]. Called once at most, under the session's order.
	ThrowOut(ForcedDisconnect)
	// End tells the client that its token has expired or that it joined nothing in time,
	// as [CodeTokenExpired] or [CodeNoJoin], ends the connection behind that, and calls
	// [Session.Over]. Called under the session's order.
	End(domain.Code)
	// Cut ends the connection for a fault that is not the client's, who may come back.
	// Called at any time.
	Cut()
	// Tick looks at what else the face does by the clock, and returns when it wants to be
	// called next, or zero. [Session.Due] may bring that forward. Called by one goroutine.
	Tick(now time.Time) (next time.Time)
}

// Room is a face's end of a room: what events are delivered to.
type Room interface {
	rooms.Sink
	rooms.Breaker
	// Enter says where the room begins, before it takes effect. The snapshot in it is the
	// session's until Begin.
	Enter(*rooms.Cursor, rooms.Joined)
	// Begin queues the snapshot that the room begins with, unless the room is silent, and
	// releases it when it was written or will not be, also after a panic. When it returns false the face has
	// cut the connection.
	Begin(*snapshot.Snapshot) bool
	// Silence says that nothing of the room is for the client any more: when it returns,
	// none is queued. Silencing twice is fine. Called under the session's order.
	Silence()
}

// Holder is a [Room] in which a client stays where it is when it joins again without
// saying from where: the join is answered with the client's place if it asks for
// nothing, and else goes on from there.
type Holder interface {
	// Hold keeps events back until Release, and returns the place up to which all were
	// sent.
	Hold() domain.Position
	// Release lets events flow again, if the room is not silent.
	Release()
}

// Keeper is a [Face] whose client can come back to where it was.
type Keeper interface {
	// Save makes a change durable before it takes effect. [Face.Apply] finds what it
	// returns in the change. One change at a time is saved and applied.
	Save(context.Context, *Change) (saved any, err error)
	// Keeps reports whether the client would come back to a room. Called between
	// changes.
	Keeps(domain.SystemID) bool
}

// Change is a change of what a client is in, and of who it is.
type Change struct {
	Actor   *domain.Actor // who the client is from here on; nil when that stays
	Entered *Entered      // the room that it joined, in place of one that it has of the system; nil for none
	Admin   bool          // it joined the admin dashboard
	Gone    []Left        // what it is out of
	Saved   any           // what [Keeper.Save] returned; nil when nothing was saved
}

// Entered is a room that a client joined.
type Entered struct {
	System  domain.SystemID
	Room    Room
	Options rooms.Options // as the room was joined
	At      rooms.Joined

	replaced bool // the client was in the system's room before
}

// AdminRoom is the name of the room of the admin dashboard.
const AdminRoom = "admin-dashboard"

// Joined answers a join of a system's room.
type Joined struct {
	SystemID  domain.SystemID `json:"systemId"`
	Position  domain.Position `json:"position"` // events follow from here
	Seq       uint64          `json:"seq"`
	Recovered bool            `json:"recovered"`
}

// JoinedAt is the answer for a place.
func JoinedAt(system domain.SystemID, at domain.Cursor, recovered bool) Joined {
	return Joined{SystemID: system, Position: at.Position, Seq: at.Seq, Recovered: recovered}
}

// Left says that a client is out of a system's room, or of the admin dashboard.
type Left struct {
	SystemID domain.SystemID `json:"systemId,omitempty"`
	Room     string          `json:"room,omitempty"`
	Reason   string          `json:"reason,omitempty"` // of a room that the client did not ask to leave
}

// Authenticated answers a renewal of the token.
type Authenticated struct {
	Subject   string      `json:"subject"`
	Role      domain.Role `json:"role"`
	ExpiresAt time.Time   `json:"expiresAt"`
}

// ForcedDisconnect says why a client is thrown out.
type ForcedDisconnect struct {
	Reason    string `json:"reason"`
	CommandID string `json:"commandId"`
	Reconnect bool   `json:"reconnect"` // whether the client may come back at once
	// Room is the system whose room this is about: a socket that lives on without it,
	// see [domain.Socket.LivesWithout], is not closed but leaves it. Empty is all rooms.
	Room domain.SystemID `json:"-"`
}
