package socketio

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/limit"
	"github.com/plugcast/plugcast/transport/rooms"
)

// Sessions keeps what clients need to go on where they were, for all processes. It
// is safe for concurrent use. The holder of a session is the socket that claimed it
// last: a connection that hangs must not save over what its client did on the next.
type Sessions interface {
	// Claim returns what was saved last, and takes the session from its holder. ok
	// is false when there is nothing, or nothing any more.
	Claim(ctx context.Context, id, holder string) (saved []byte, ok bool, err error)
	// Save keeps something, durably when it returns. ok is false, and nothing is
	// saved, when another holder has claimed the session.
	Save(ctx context.Context, id, holder string, saved []byte) (ok bool, err error)
	// Keep puts off the day when something is forgotten.
	Keep(ctx context.Context, ids []string) error
}

// Session is what a client came to be in. It changes when the client joins or
// leaves a room, and not with the events.
type Session struct {
	Turn  uint64                  `json:"turn"` // counts the changes; the first join is 1
	Rooms map[domain.SystemID]Way `json:"rooms,omitempty"`
	Admin bool                    `json:"admin,omitempty"` // in the room of the admin dashboard
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

// sessionID names a session in the store. It has its owner in it, so that a pid is
// worth nothing to anybody else.
func sessionID(pid, subject string) string { return pid + ":" + subject }

// claim returns the session of a client that comes back with its pid. It is not ok
// when there is none that can be read.
func (s *socket) claim(ctx context.Context) (session Session, ok bool, err error) {
	if len(s.pid) != pidLength {
		return Session{}, false, nil
	}
	saved, ok, err := s.server.parts.Sessions.Claim(ctx, s.sessionID, s.io.ID())
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

// save stores the session, or fails with errTaken.
func (s *socket) save(ctx context.Context, session *Session) error {
	saved, err := json.Marshal(session)
	if err != nil {
		return fmt.Errorf("socketio: write a session: %w", err)
	}
	ok, err := s.server.parts.Sessions.Save(ctx, s.sessionID, s.io.ID(), saved)
	if err == nil && !ok {
		err = errTaken
	}
	return err
}

// errLost says that a client cannot go on where it was: it begins anew, and is told.
var errLost = errors.New("socketio: the place is lost")

// resume puts a client that comes back into its rooms, parked, all of them or
// none. errLost means that it has to begin anew.
func (s *socket) resume(ctx context.Context, session Session, shown *offset) error {
	if shown != nil && shown.turn > session.Turn {
		return errLost // the store came back from an older copy, which knows less of it than the client
	}
	for system, way := range session.Rooms {
		if s.actor.Authorize(domain.ActionRead, system) != nil {
			return errLost
		}
		if _, banned := s.server.ban(s.actor, system); banned {
			return errLost
		}
		if err := limit.Joins(ctx, s.server.parts.Limiter, system); err != nil {
			return err
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
