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

// Sessions stores the state that clients need to resume, for all processes. It is safe for
// concurrent use. The holder of a session is the socket that claimed it last, so that a
// connection that hangs cannot overwrite what its client did on a later one. The number of
// sessions per subject and per system is limited: a new session replaces those that expire
// first.
type Sessions interface {
	// Claim returns the last saved state, and makes holder the session's holder. ok is false
	// if there is none, or if it has expired.
	Claim(ctx context.Context, ref domain.SessionRef, holder string) (saved []byte, ok bool, err error)
	// Save stores the state durably. ok is false, and nothing is saved, if another holder has
	// claimed the session.
	Save(ctx context.Context, ref domain.SessionRef, holder string, saved []byte) (ok bool, err error)
	// End makes the session expire soon, because its client has nothing to resume or does not
	// intend to, unless another holder has claimed it.
	End(ctx context.Context, ref domain.SessionRef, holder string) error
	// Keep extends the sessions' expiry.
	Keep(ctx context.Context, refs []domain.SessionRef) error
}

// Session is the state from which a client resumes. It changes when the client joins or
// leaves a room, but not with the events.
type Session struct {
	Revision uint64                        `json:"revision"` // counts the changes; the first join is 1
	Rooms    map[domain.SystemID]RoomState `json:"rooms,omitempty"`
	Admin    bool                          `json:"admin,omitempty"` // whether the client is in the room of the admin dashboard
	// Left are the rooms that the client had to leave. A client that sends an earlier revision
	// does not know of them.
	Left map[domain.SystemID]Departure `json:"left,omitempty"`
}

// Departure says when and why a client had to leave a room.
type Departure struct {
	Revision uint64 `json:"revision"`
	Reason   string `json:"reason"`
}

// maxDepartures limits the stored departures; the oldest are dropped.
const maxDepartures = 64

// leave removes rooms in a new revision, or the room of the admin dashboard. It records the
// rooms that the client had to leave.
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
	for len(s.Left) > maxDepartures {
		oldest := slices.MinFunc(slices.Collect(maps.Keys(s.Left)), func(a, b domain.SystemID) int {
			return cmp.Or(cmp.Compare(s.Left[a].Revision, s.Left[b].Revision), cmp.Compare(a, b))
		})
		delete(s.Left, oldest)
	}
}

// unnotified returns the rooms that a client with this offset, or nil, does not know it has
// left.
func (s *Session) unnotified(shown *offset) (gone []client.Left) {
	for _, system := range slices.Sorted(maps.Keys(s.Left)) {
		if d := s.Left[system]; shown == nil || shown.revision < d.Revision {
			gone = append(gone, client.Left{SystemID: system, Reason: d.Reason})
		}
	}
	return gone
}

// isWorthKeeping reports whether the client is in any room.
func (s *Session) isWorthKeeping() bool { return len(s.Rooms) > 0 || s.Admin }

// RoomState is the state of a client in a room.
type RoomState struct {
	Revision uint64             `json:"revision"`           // the revision of the join
	After    domain.Position    `json:"after"`              // events after this are for the client
	Snapshot bool               `json:"snapshot,omitempty"` // the client requested the state, which is sent again if it did not get it
	Types    []domain.EventType `json:"types,omitempty"`
	Devices  []domain.DeviceID  `json:"devices,omitempty"`
	Conflate bool               `json:"conflate,omitempty"`
}

// options returns the join with which a client resumes a room, given its offset or nil.
func (r *RoomState) options(system domain.SystemID, shown *offset) rooms.Options {
	o := rooms.Options{
		After: &r.After, Filter: domain.EventFilter{Types: r.Types, Devices: r.Devices}, Conflate: r.Conflate, Encoding: encoding{},
		Snapshot: r.Snapshot,
	}
	if shown == nil || shown.revision < r.Revision {
		return o // the client has got nothing since it joined
	}
	at, named := shown.rooms[system]
	if !named { // the event was of this room
		at = shown.position
	} else if at.IsZero() {
		return o // the room's snapshot was not sent yet when the offset was made
	}
	o.After, o.Snapshot = &at, false
	return o
}

const (
	pidLength = 26 // the length of rand.Text
	maxOffset = 4 << 10
)

// newRef names a new session of an actor.
func newRef(actor domain.Actor) domain.SessionRef {
	return domain.SessionRef{System: actor.QuotaSystem(""), Subject: actor.Subject, PID: rand.Text()}
}

// pidOf returns the pid with which the client resumes a session. It contains the system
// because the client's next token may list its systems in another order.
func pidOf(ref domain.SessionRef) string { return ref.PID + "." + string(ref.System) }

// parsePID returns the session of a pid. ok is false if the text is not a pid. The actor's
// subject is part of the reference, so a pid is worthless to another subject.
func parsePID(pid string, actor domain.Actor) (ref domain.SessionRef, ok bool) {
	random, name, ok := strings.Cut(pid, ".")
	if !ok || len(random) != pidLength || strings.Trim(random, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") != "" {
		return domain.SessionRef{}, false
	}
	system, err := domain.ParseSystemID(name)
	return domain.SessionRef{System: system, Subject: actor.Subject, PID: random}, err == nil
}

// claim claims the session of a client that resumes with its pid. ok is false if there is
// none that can be read.
func (s *socket) claim(ctx context.Context) (session Session, ok bool, err error) {
	saved, ok, err := s.server.sessions.Claim(ctx, s.ref, s.io.ID())
	if err != nil || !ok {
		return Session{}, false, err
	}
	if err := json.Unmarshal(saved, &session); err != nil { // for example from another version; a retry would not help
		s.server.parts.Logger.Warn("socketio: cannot read a session; its client starts over", "error", err)
		return Session{}, false, nil
	}
	return session, true, nil
}

// errClaimed says that the client has resumed the session on another connection.
var errClaimed = errors.New("socketio: the client is on another connection")

// cloneSession returns a deep copy of the session.
func (s *socket) cloneSession() Session {
	s.sending.Lock()
	defer s.sending.Unlock()
	next := s.saved
	next.Rooms, next.Left = maps.Clone(next.Rooms), maps.Clone(next.Left)
	if next.Rooms == nil {
		next.Rooms = map[domain.SystemID]RoomState{}
	}
	return next
}

// IsSaved implements [client.Saver].
func (s *socket) IsSaved(system domain.SystemID) bool {
	_, in := s.cloneSession().Rooms[system]
	return in
}

// Save implements [client.Saver].
func (s *socket) Save(ctx context.Context, c *client.Change) (any, error) {
	next := s.cloneSession()
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

// store saves the session, or fails with errClaimed.
func (s *socket) store(ctx context.Context, session *Session) error {
	saved, err := json.Marshal(session)
	if err != nil {
		return fmt.Errorf("socketio: write a session: %w", err)
	}
	ok, err := s.server.sessions.Save(ctx, s.ref, s.io.ID(), saved)
	if err == nil && !ok {
		err = errClaimed
	}
	if err == nil && !session.isWorthKeeping() {
		s.endSession(ctx)
	}
	return err
}

// endSession makes the session expire soon. If the store does not answer, the session
// expires later.
func (s *socket) endSession(ctx context.Context) {
	if err := s.server.sessions.End(ctx, s.ref, s.io.ID()); err != nil {
		s.server.parts.Logger.Debug("socketio: cannot end a session early; it expires later", "error", err)
	}
}

// errNotResumable says that a client cannot resume its place. It starts over, and is told.
var errNotResumable = errors.New("socketio: the session cannot be resumed")

// reclaim claims the client's session and resumes it. If it fails, the socket has ended and
// is in no room.
func (s *socket) reclaim(ctx context.Context, shown *offset) error {
	recovered := false
	defer func() {
		if !recovered { // also after a panic
			s.client.End()
		}
	}()
	session, known, err := s.claim(ctx)
	if err == nil && !known {
		err = errNotResumable
	}
	if err == nil {
		err = s.resume(ctx, session, shown)
	}
	recovered = err == nil
	return err
}

// resume puts a client back into its rooms, parked: either all of them or none. A room that
// the client may no longer be in is left, and the client is told, as it would have been
// while connected. errNotResumable means that the client has to start over.
func (s *socket) resume(ctx context.Context, session Session, shown *offset) error {
	if shown != nil && shown.revision > session.Revision {
		return errNotResumable // the store was restored from an older copy than the client's
	}
	var lost []client.Left
	for system := range session.Rooms {
		if why := s.server.clients.DenialReason(s.client.Actor(), system); why != "" {
			lost = append(lost, client.Left{SystemID: system, Reason: why})
		}
	}
	if len(lost) > 0 {
		if session.leave(lost); !session.isWorthKeeping() {
			return errNotResumable
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
			return errNotResumable
		}
	}
	s.saved, s.unnotified = session, session.unnotified(shown)
	return nil
}
