package socketio

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/client"
	"github.com/plugcast/plugcast/transport/limit"
	"github.com/plugcast/plugcast/transport/rooms"
)

// Sessions keeps what clients need to go on where they were, for all processes. It
// is safe for concurrent use. The holder of a session is the socket that claimed it
// last: a connection that hangs must not save over what its client did on the next.
// The sessions of one subject and of one system are bounded: a new session replaces
// those that expire first.
type Sessions interface {
	// Claim returns what was saved last, and takes the session from its holder. ok
	// is false when there is nothing, or nothing any more.
	Claim(ctx context.Context, ref domain.SessionRef, holder string) (saved []byte, ok bool, err error)
	// Save keeps something, durably when it returns. ok is false, and nothing is
	// saved, when another holder has claimed the session.
	Save(ctx context.Context, ref domain.SessionRef, holder string, saved []byte) (ok bool, err error)
	// End says that nothing is left to resume, or that the client does not mean to:
	// the session expires soon, unless another holder has claimed it.
	End(ctx context.Context, ref domain.SessionRef, holder string) error
	// Keep extends the sessions' expiry.
	Keep(ctx context.Context, refs []domain.SessionRef) error
}

// Session is what a client came to be in. It changes when the client joins or
// leaves a room, and not with the events.
type Session struct {
	Revision uint64                        `json:"revision"` // counts the changes; the first join is 1
	Rooms    map[domain.SystemID]RoomState `json:"rooms,omitempty"`
	Admin    bool                          `json:"admin,omitempty"` // in the room of the admin dashboard
	// Left are rooms that the client did not ask to leave: one that shows an earlier
	// revision was not told.
	Left map[domain.SystemID]Departure `json:"left,omitempty"`
}

// Departure is when and why a client was taken out of a room.
type Departure struct {
	Revision uint64 `json:"revision"`
	Reason   string `json:"reason"`
}

// mostLeft bounds the departures that are kept; the oldest are dropped.
const mostLeft = 64

// leave takes the client out of rooms, in a revision of its own, or of the room of the
// admin dashboard. It notes those that the client did not ask to leave.
func (s *Session) leave(gone []client.Left) {
	if slices.ContainsFunc(gone, func(one client.Left) bool { return one.Room == "" }) {
		s.Revision++
	}
	for _, one := range gone {
		switch {
		case one.Room == client.AdminRoom:
			s.Admin = false
			continue
		case one.Reason != "":
			if s.Left == nil {
				s.Left = map[domain.SystemID]Departure{}
			}
			s.Left[one.SystemID] = Departure{Revision: s.Revision, Reason: one.Reason}
		}
		delete(s.Rooms, one.SystemID)
	}
	for len(s.Left) > mostLeft {
		oldest := slices.MinFunc(slices.Collect(maps.Keys(s.Left)), func(a, b domain.SystemID) int {
			return cmp.Or(cmp.Compare(s.Left[a].Revision, s.Left[b].Revision), cmp.Compare(a, b))
		})
		delete(s.Left, oldest)
	}
}

// untold returns the rooms that a client was not told to have left, which showed an
// offset or nil.
func (s *Session) untold(shown *offset) (gone []client.Left) {
	for _, system := range slices.Sorted(maps.Keys(s.Left)) {
		if d := s.Left[system]; shown == nil || shown.revision < d.Revision {
			gone = append(gone, client.Left{SystemID: system, Reason: d.Reason})
		}
	}
	return gone
}

// isWorthKeeping reports whether the client is in any room.
func (s *Session) isWorthKeeping() bool { return len(s.Rooms) > 0 || s.Admin }

// RoomState is how a client is in a room.
type RoomState struct {
	Revision uint64             `json:"revision"`           // in which it joined
	After    domain.Position    `json:"after"`              // what comes behind this is for it
	Snapshot bool               `json:"snapshot,omitempty"` // it wanted the state, which is sent again to who did not get it
	Types    []domain.EventType `json:"types,omitempty"`
	Devices  []domain.DeviceID  `json:"devices,omitempty"`
	Conflate bool               `json:"conflate,omitempty"`
}

// options are the join with which a client goes on in a room that it showed an
// offset for, or nil when it has none.
func (r *RoomState) options(system domain.SystemID, shown *offset) rooms.Options {
	o := rooms.Options{
		After: &r.After, Filter: domain.EventFilter{Types: r.Types, Devices: r.Devices}, Conflate: r.Conflate, Encoding: encoding{},
		Snapshot: r.Snapshot,
	}
	if shown == nil || shown.revision < r.Revision {
		return o // it got nothing since it joined
	}
	at, named := shown.rooms[system]
	if !named { // the event was of this room
		at = shown.position
	} else if at.IsZero() {
		return o // what it begins with was not sent when the offset was made
	}
	o.After, o.Snapshot = &at, false
	return o
}

const (
	pidLength = 26 // of rand.Text
	maxOffset = 4 << 10
)

// newRef names a new session of an actor.
func newRef(actor domain.Actor) domain.SessionRef {
	return domain.SessionRef{System: actor.QuotaSystem(""), Subject: actor.Subject, PID: rand.Text()}
}

// pidOf is what the client shows to resume a session. The system is in it because
// the client's next token may list its systems in another order.
func pidOf(ref domain.SessionRef) string { return ref.PID + "." + string(ref.System) }

// parsePID names the session that the actor's client means. It is not ok for what
// is no pid. The actor's subject is part of the name, so a pid is worth nothing to
// anybody else.
func parsePID(pid string, actor domain.Actor) (ref domain.SessionRef, ok bool) {
	random, name, ok := strings.Cut(pid, ".")
	if !ok || len(random) != pidLength || strings.Trim(random, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") != "" {
		return domain.SessionRef{}, false
	}
	system, err := domain.ParseSystemID(name)
	return domain.SessionRef{System: system, Subject: actor.Subject, PID: random}, err == nil
}

// claim returns the session of a client that comes back with its pid. It is not ok
// when there is none that can be read.
func (s *socket) claim(ctx context.Context) (session Session, ok bool, err error) {
	saved, ok, err := s.server.sessions.Claim(ctx, s.ref, s.io.ID())
	if err != nil || !ok {
		return Session{}, false, err
	}
	if err := json.Unmarshal(saved, &session); err != nil { // as from another version: it will not get better
		s.server.parts.Logger.Warn("socketio: a session cannot be read; its client begins anew", "error", err)
		return Session{}, false, nil
	}
	return session, true, nil
}

// errTaken says that the client has come back on another connection.
var errTaken = errors.New("socketio: the client is on another connection")

// copied is a copy of the session.
func (s *socket) copied() Session {
	s.sending.Lock()
	defer s.sending.Unlock()
	next := s.saved
	next.Rooms, next.Left = maps.Clone(next.Rooms), maps.Clone(next.Left)
	if next.Rooms == nil {
		next.Rooms = map[domain.SystemID]RoomState{}
	}
	return next
}

// Keeps implements [client.Saver].
func (s *socket) IsSaved(system domain.SystemID) bool {
	_, in := s.copied().Rooms[system]
	return in
}

// Save implements [client.Saver].
func (s *socket) Save(ctx context.Context, c *client.Change) (any, error) {
	next := s.copied()
	if e := c.Entered; e != nil {
		next.Revision++
		next.Rooms[e.System] = RoomState{
			Revision: next.Revision, After: e.At.Cursor.Position, Snapshot: e.Options.Snapshot, Conflate: e.Options.Conflate,
			Types: e.Options.Filter.Types, Devices: e.Options.Filter.Devices,
		}
	}
	if len(c.Left) > 0 {
		next.leave(c.Left)
	}
	next.Admin = next.Admin || c.Admin
	return &next, s.store(ctx, &next)
}

// store saves the session, or fails with errTaken.
func (s *socket) store(ctx context.Context, session *Session) error {
	saved, err := json.Marshal(session)
	if err != nil {
		return fmt.Errorf("socketio: write a session: %w", err)
	}
	ok, err := s.server.sessions.Save(ctx, s.ref, s.io.ID(), saved)
	if err == nil && !ok {
		err = errTaken
	}
	if err == nil && !session.isWorthKeeping() {
		s.endSession(ctx)
	}
	return err
}

// endSession lets the session expire soon. When the store does not answer, the
// session expires later.
func (s *socket) endSession(ctx context.Context) {
	if err := s.server.sessions.End(ctx, s.ref, s.io.ID()); err != nil {
		s.server.parts.Logger.Debug("socketio: a session is kept longer than needed", "error", err)
	}
}

// errLost says that a client cannot go on where it was: it begins anew, and is told.
var errLost = errors.New("socketio: the place is lost")

// reclaim claims the client's session and resumes it. When it fails the socket is over,
// and in no room.
func (s *socket) reclaim(ctx context.Context, shown *offset) error {
	recovered := false
	defer func() {
		if !recovered { // also after a panic
			s.client.End()
		}
	}()
	session, known, err := s.claim(ctx)
	if err == nil && !known {
		err = errLost
	}
	if err == nil {
		err = s.resume(ctx, session, shown)
	}
	recovered = err == nil
	return err
}

// resume puts a client that comes back into its rooms, parked, all of them or
// none. A room that it may not be in any more costs it that room alone: it is told, as
// it would have been while connected. errLost means that it has to start over.
func (s *socket) resume(ctx context.Context, session Session, shown *offset) error {
	if shown != nil && shown.revision > session.Revision {
		return errLost // the store came back from an older copy, which knows less of it than the client
	}
	var lost []client.Left
	for system := range session.Rooms {
		if why := s.server.clients.DenialReason(s.client.Actor(), system); why != "" {
			lost = append(lost, client.Left{SystemID: system, Reason: why})
		}
	}
	if len(lost) > 0 {
		if session.leave(lost); !session.isWorthKeeping() {
			return errLost
		}
		if err := s.store(ctx, &session); err != nil {
			return err
		}
	}
	for system, state := range session.Rooms {
		if err := limit.Joins(ctx, s.server.parts.Limiter, system); err != nil {
			return err
		}
		options := state.options(system, shown)
		at, err := s.client.Restore(ctx, system, options)
		if err != nil {
			return err
		}
		if !at.Recovered && !options.Snapshot {
			return errLost
		}
	}
	s.saved, s.untold = session, session.untold(shown)
	return nil
}
