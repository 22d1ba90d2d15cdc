package client

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/rooms"
)

// readJoin checks a request and turns it into what rooms understand.
func (s *Server) readJoin(j *rooms.JoinRequest) (domain.SystemID, rooms.Options, error) {
	o := rooms.Options{Snapshot: j.Snapshot, Conflate: j.Conflate, Encoding: s.config.Encoding}
	system, err := domain.ParseSystemID(j.SystemID)
	if err != nil {
		return "", o, err
	}
	if j.After != nil {
		after, err := s.config.Position(*j.After, system)
		if err != nil {
			return "", o, err
		}
		o.After = &after
	}
	o.Filter, err = j.Filter()
	return system, o, err
}

// Join lets the client into a room. Joining again replaces what was asked for the first
// time, once the new join has succeeded; see also [Holder]. A session that ends before
// that has no answer and no error. The answer is called under the session's order.
func (s *Session) Join(j *rooms.JoinRequest, answer func(Joined)) error {
	system, options, err := s.server.readJoin(j)
	if err != nil {
		return err
	}
	return s.change(func() error { return s.join(system, options, j.IsPlain(), answer) })
}

func (s *Session) join(system domain.SystemID, options rooms.Options, plain bool, answer func(Joined)) error {
	actor := s.Actor()
	if err := actor.Authorize(domain.ActionRead, system); err != nil {
		return err
	}
	if b, banned := s.server.Ban(actor, system); banned {
		return b.Refusal(time.Now())
	}
	if m, in := s.member(system); in {
		if held, can := m.room.(Holder); can {
			if plain {
				s.inOrder(func() { answer(JoinedAt(system, m.cursor.Passed(), true)) })
				return nil
			}
			if options.After == nil && !options.Snapshot {
				at := held.Hold() // another filter, from where the client is
				defer held.Release()
				options.After = &at
			}
		}
	}
	if err := s.roomFor(system); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(s.server.ctx, s.server.config.JoinTimeout)
	defer cancel()
	if err := s.budget.Join(ctx, time.Now(), &s.server.config.Rates, s.server.parts.Limiter, system); err != nil {
		return err
	}
	e, err := s.enter(ctx, system, options, true)
	if err != nil || e == nil {
		return err
	}
	if b, banned := s.server.Ban(s.Actor(), system); banned { // since it was asked above
		refusal := b.Refusal(time.Now())
		left := Left{SystemID: system}
		if e.replaced { // the client was in the room, and is not any more
			left.Reason = refusal.Detail
		}
		s.expel(left)
		s.publish()
		return refusal
	}
	if s.welcome(e, answer) {
		s.begin(e.Room)
	}
	s.publish()
	return nil
}

// Restore puts the client into a room before it is told anything: nothing is checked,
// counted or saved, and events wait for [Session.Begin]. It returns where the room
// begins, whose snapshot is the session's.
func (s *Session) Restore(ctx context.Context, system domain.SystemID, options rooms.Options) (rooms.Joined, error) {
	e, err := s.enter(ctx, system, options, false)
	if e == nil {
		return rooms.Joined{}, err
	}
	return e.At, err
}

// enter joins a room, saves that if it is a change, and makes the room the session's, in
// this order: a client that knows of a join can go on from there. It returns nil for a
// session that is over.
func (s *Session) enter(ctx context.Context, system domain.SystemID, options rooms.Options, change bool) (*Entered, error) {
	room := s.face.NewRoom(system)
	cursor, at, err := s.server.parts.Rooms.Join(ctx, system, options, room)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.server.config.Face, err)
	}
	m := member{system: system, room: room, cursor: cursor, snapshot: at.Snapshot, entering: change}
	entered := false
	defer func() {
		if !entered { // also after a panic
			m.release()
		}
	}()
	room.Enter(cursor, at)
	c := Change{Entered: &Entered{System: system, Room: room, Options: options, At: at}}
	if change {
		if err := s.save(ctx, &c); err != nil {
			return nil, err
		}
	}
	s.order.Lock()
	defer s.order.Unlock()
	s.mu.Lock()
	if s.over {
		s.mu.Unlock()
		return nil, nil
	}
	old, replaced := s.takeOut(system)
	c.Entered.replaced = replaced
	m.dismissed = old.dismissed
	s.members = append(s.members, m)
	s.joined, entered = true, true
	s.mu.Unlock()
	if replaced {
		old.room.Silence()
		old.release()
	}
	if m.dismissed != nil {
		room.Silence()
	}
	s.face.Apply(&c)
	return c.Entered, nil
}

// welcome answers a join, and tells the client to have left if a command came in
// between. It reports whether the room is to begin.
func (s *Session) welcome(e *Entered, answer func(Joined)) bool {
	s.order.Lock()
	defer s.order.Unlock()
	s.mu.Lock()
	i := slices.IndexFunc(s.members, func(m member) bool { return m.room == e.Room })
	if i < 0 { // the session is over
		s.mu.Unlock()
		return false
	}
	s.members[i].entering = false
	dismissed := s.members[i].dismissed
	s.mu.Unlock()
	answer(JoinedAt(e.System, e.At.Cursor, e.At.Recovered))
	if dismissed == nil {
		return true
	}
	if s.keeper == nil {
		s.take(&Change{Gone: []Left{*dismissed}}, nil)
	}
	return false
}

// begin sends the snapshot of a room, if there is one, and lets events flow.
func (s *Session) begin(room Room) {
	s.mu.Lock()
	i := slices.IndexFunc(s.members, func(m member) bool { return m.room == room })
	if i < 0 {
		s.mu.Unlock()
		return
	}
	state, cursor := s.members[i].snapshot, s.members[i].cursor
	s.members[i].snapshot = nil
	s.mu.Unlock()
	if state == nil || room.Begin(state) {
		cursor.Start()
	}
}

// Begin lets the events of all rooms flow that were restored. Those that the client was
// banned from since they were restored end at once. Before each of the others, before
// is called.
func (s *Session) Begin(before func(domain.SystemID, Room)) {
	s.mu.Lock()
	members, actor := slices.Clone(s.members), s.actor
	s.mu.Unlock()
	for _, m := range members {
		before(m.system, m.room)
		if b, banned := s.server.Ban(actor, m.system); banned {
			s.dismiss(m.system, b.Refusal(time.Now()).Detail)
			continue
		}
		s.begin(m.room)
	}
}

// roomFor fails when the client has joined as many systems as it may.
func (s *Session) roomFor(system domain.SystemID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	most := s.server.config.MaxRooms
	if s.actor.Role == domain.RoleStaff {
		most = s.server.config.MaxRoomsStaff
	}
	if s.find(system) < 0 && len(s.members) >= most {
		return domain.Fail(domain.KindConflict, CodeTooManyRooms, fmt.Sprintf("a socket may join %d systems", most))
	}
	return nil
}

// find returns the index of the member of a system, or -1. The caller holds mu.
func (s *Session) find(system domain.SystemID) int {
	return slices.IndexFunc(s.members, func(m member) bool { return m.system == system })
}

func (s *Session) member(system domain.SystemID) (member, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := s.find(system); i >= 0 {
		return s.members[i], true
	}
	return member{}, false
}

// takeOut takes the member of a system out, if there is one. The caller holds mu, and
// releases the member without it.
func (s *Session) takeOut(system domain.SystemID) (m member, in bool) {
	i := s.find(system)
	if i < 0 {
		return member{}, false
	}
	m = s.members[i]
	s.members = slices.Delete(s.members, i, i+1)
	return m, true
}
