package socketio

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/rooms"
)

// Sessions keeps what clients need to go on where they were, for all processes. It
// is safe for concurrent use.
type Sessions interface {
	// Load returns what was saved last. ok is false when there is nothing, or
	// nothing any more.
	Load(ctx context.Context, pid string) (saved []byte, ok bool, err error)
	// Save keeps something, durably when it returns.
	Save(ctx context.Context, pid string, saved []byte) error
	// Keep puts off the day when something is forgotten.
	Keep(ctx context.Context, pids []string) error
}

// Session is what a client came to be in. It changes when the client joins or
// leaves a room, and not with the events.
type Session struct {
	Subject string                  `json:"subject"` // whose it is
	Turn    uint64                  `json:"turn"`    // counts the changes; the first join is 1
	Rooms   map[domain.SystemID]Way `json:"rooms,omitempty"`
	Admin   bool                    `json:"admin,omitempty"` // in the room of the admin dashboard
}

// Way is how a client is in a room.
type Way struct {
	Turn     uint64             `json:"turn"`               // in which it joined
	After    domain.Position    `json:"after"`              // what comes behind this is for it
	Snapshot bool               `json:"snapshot,omitempty"` // it wanted the state, which is sent again to who did not get it
	Types    []domain.EventType `json:"types,omitempty"`
	Devices  []domain.DeviceID  `json:"devices,omitempty"`
	Conflate bool               `json:"conflate,omitempty"`
}

// options are the join with which a client goes on in a room that it showed an
// offset for, or nil when it has none.
func (w *Way) options(system domain.SystemID, shown *offset) rooms.Options {
	o := rooms.Options{
		After: &w.After, Filter: rooms.Filter{Types: w.Types, Devices: w.Devices}, Conflate: w.Conflate, Encoding: encoding{},
		Snapshot: w.Snapshot,
	}
	if shown == nil || shown.turn < w.Turn {
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

func newPID() string { return rand.Text() }

// load returns the session of a client that comes back. It is not ok for one that
// is not known, or not the actor's.
func (s *Server) load(ctx context.Context, pid string, actor domain.Actor) (Session, bool, error) {
	if len(pid) != pidLength {
		return Session{}, false, nil
	}
	saved, ok, err := s.parts.Sessions.Load(ctx, pid)
	if err != nil || !ok {
		return Session{}, false, err
	}
	var session Session
	if err := json.Unmarshal(saved, &session); err != nil {
		return Session{}, false, fmt.Errorf("socketio: read a session: %w", err)
	}
	if session.Subject != actor.Subject {
		return Session{}, false, nil
	}
	return session, true, nil
}

func (s *Server) save(ctx context.Context, pid string, session *Session) error {
	saved, err := json.Marshal(session)
	if err != nil {
		return fmt.Errorf("socketio: write a session: %w", err)
	}
	return s.parts.Sessions.Save(ctx, pid, saved)
}

// errLost says that a client cannot go on where it was: it begins anew, and is told.
var errLost = errors.New("socketio: the place is lost")

// resume puts a client that comes back into its rooms, parked, all of them or
// none. errLost means that it has to begin anew.
func (s *socket) resume(ctx context.Context, session Session, shown *offset) error {
	for system, way := range session.Rooms {
		if s.actor.Authorize(domain.ActionRead, system) != nil {
			return errLost
		}
		if _, fenced := s.server.fence(s.actor, system); fenced {
			return errLost
		}
		if wait, ok := s.server.allow(ctx, FlowJoins, system, 1); !ok {
			return limited("joins", wait)
		}
		options := way.options(system, shown)
		m := &membership{socket: s, system: system}
		cursor, at, err := s.server.parts.Rooms.Join(ctx, system, options, m)
		if err != nil {
			return fmt.Errorf("socketio: %w", err)
		}
		m.enter(cursor, at)
		s.members = append(s.members, m)
		if !at.Recovered && !options.Snapshot {
			return errLost
		}
	}
	s.session = session
	return nil
}
