package ws

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/rooms"
)

// joinMembers are the members of a join's data.
func joinMembers(j *rooms.JoinRequest) []member {
	return []member{
		{"systemId", &j.SystemID}, {"after", &j.After}, {"snapshot", &j.Snapshot}, {"types", &j.Types}, {"devices", &j.Devices},
		{"conflate", &j.Conflate}, {"type", &j.Type}, {"deviceId", &j.DeviceID},
	}
}

// joinOptions checks the request and turns it into what rooms understand.
func joinOptions(j *rooms.JoinRequest) (domain.SystemID, rooms.Options, error) {
	o := rooms.Options{Snapshot: j.Snapshot, Conflate: j.Conflate}
	system, err := domain.ParseSystemID(j.SystemID)
	if err != nil {
		return "", o, err
	}
	if j.After != nil {
		after, err := domain.ParsePosition(*j.After)
		if err != nil {
			return "", o, err
		}
		o.After = &after
	}
	o.Filter, err = j.Filter()
	return system, o, err
}

// joinSystem lets the socket into a room. Joining again replaces what was asked
// for the first time, once the new join has succeeded.
func (s *socket) joinSystem(r *request) error {
	var j rooms.JoinRequest
	if err := r.decode(joinMembers(&j)...); err != nil {
		return err
	}
	system, options, err := joinOptions(&j)
	if err != nil {
		return err
	}
	if err := s.identity().Authorize(domain.ActionRead, system); err != nil {
		return err
	}
	if f, banned := s.server.ban(s.identity(), system); banned {
		return f.Refusal()
	}
	if err := s.roomFor(system); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(s.server.ctx, s.server.config.JoinTimeout)
	defer cancel()
	if err := s.budget.Join(ctx, time.Now(), &s.server.config.Rates, s.server.parts.Limiter, system); err != nil {
		return err
	}
	m := &membership{socket: s, system: system}
	cursor, at, err := s.server.parts.Rooms.Join(ctx, system, options, m)
	if err != nil {
		return fmt.Errorf("ws: %w", err)
	}
	m.cursor = cursor
	if !s.enter(m) {
		at.Snapshot.Release()
		cursor.Leave()
		return nil // the socket is ending
	}
	if f, banned := s.server.ban(s.identity(), system); banned { // since it was asked above
		at.Snapshot.Release()
		s.leave(system)
		s.publish()
		return f.Refusal()
	}
	s.answer(encodeFrame(eventJoined, r.ID, joined{system, at.Cursor.Position, at.Cursor.Seq, at.Recovered}))
	if at.Snapshot != nil {
		s.enqueue(outgoing{bytes: at.Snapshot.Frame(), done: at.Snapshot.Release})
	}
	cursor.Start()
	s.publish()
	return nil
}

// roomFor fails when the socket has joined as many systems as it may.
func (s *socket) roomFor(system domain.SystemID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	most := s.server.config.MaxRooms
	if s.actor.Role == domain.RoleStaff {
		most = s.server.config.MaxRoomsStaff
	}
	if s.find(system) < 0 && len(s.rooms) >= most {
		return domain.Fail(domain.KindConflict, CodeTooManyRooms, fmt.Sprintf("a socket may join %d systems", most))
	}
	return nil
}

// find returns the index of the room of a system, or -1. The caller holds the
// lock.
func (s *socket) find(system domain.SystemID) int {
	return slices.IndexFunc(s.rooms, func(m *membership) bool { return m.system == system })
}

// enter makes m the socket's membership of its system. It reports false for a
// socket that is ending.
func (s *socket) enter(m *membership) bool {
	s.mu.Lock()
	if s.ending {
		s.mu.Unlock()
		return false
	}
	old := s.take(m.system)
	s.rooms = append(s.rooms, m)
	s.joined = true
	s.mu.Unlock()
	if old != nil {
		old.cursor.Leave()
	}
	return true
}

// take takes the room of a system out, if the socket has joined it: nothing of
// it is sent from here on. The caller holds the lock, and calls Leave without it.
func (s *socket) take(system domain.SystemID) *membership {
	i := s.find(system)
	if i < 0 {
		return nil
	}
	m := s.rooms[i]
	s.rooms = slices.Delete(s.rooms, i, i+1)
	m.left = true
	s.outbound.drop()
	return m
}

// leaveSystem takes the socket out of a room. No event of it follows the answer.
func (s *socket) leaveSystem(r *request) error {
	var name string
	if err := r.decode(member{"systemId", &name}); err != nil {
		return err
	}
	system, err := domain.ParseSystemID(name)
	if err != nil {
		return err
	}
	if !s.leave(system) {
		return domain.Fail(domain.KindNotFound, CodeNotJoined, fmt.Sprintf("system %q is not joined", system))
	}
	s.answer(encodeFrame(eventLeft, r.ID, left{SystemID: system}))
	s.publish()
	return nil
}

func (s *socket) leave(system domain.SystemID) bool {
	s.mu.Lock()
	m := s.take(system)
	s.mu.Unlock()
	if m == nil {
		return false
	}
	m.cursor.Leave()
	return true
}

// dismiss takes the socket out of a room by command, and tells it why. It may be
// called from any goroutine.
func (s *socket) dismiss(system domain.SystemID, reason string) bool {
	if !s.leave(system) {
		return false
	}
	s.answer(encodeFrame(eventLeft, nil, left{SystemID: system, Reason: rooms.Dismissed(reason)}))
	s.publish()
	return true
}
