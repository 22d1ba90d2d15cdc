package client

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/rooms"
)

// parseJoin checks a request and converts it to the options of package rooms.
func (s *Server) parseJoin(j *rooms.JoinRequest) (domain.SystemID, rooms.Options, error) {
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

// Join lets the client into a room. A second join of the same system replaces the first
// after it has succeeded; see also [Pauser]. It calls answer under the session's order. If
// the session ends during the join, there is neither an answer nor an error.
func (s *Session) Join(j *rooms.JoinRequest, answer func(Joined)) error {
	system, options, err := s.server.parseJoin(j)
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
		if pauser, can := m.room.(Pauser); can {
			if plain {
				s.inOrder(func() { answer(JoinedAt(system, m.subscription.Progress(), true)) })
				return nil
			}
			if options.After == nil && !options.Snapshot {
				at := pauser.Pause() // continue with another filter from the client's place
				defer pauser.Resume()
				options.After = &at
			}
		}
	}
	if err := s.checkRoomLimit(system); err != nil {
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
	if b, banned := s.server.Ban(s.Actor(), system); banned { // raised since the check above
		refusal := b.Refusal(time.Now())
		left := Left{SystemID: system}
		if e.replaced { // the client was in the room before, and now leaves it
			left.Reason = refusal.Detail
		}
		s.removeOrAbort(left)
		s.publish()
		return refusal
	}
	if s.answerJoin(e, answer) {
		s.begin(e.Room)
	}
	s.publish()
	return nil
}

// Restore puts a resuming client into a room, without check, limit or save. Events wait
// for [Session.Begin]. It returns the place where the room begins; the session owns its
// snapshot.
func (s *Session) Restore(ctx context.Context, system domain.SystemID, options rooms.Options) (rooms.Joined, error) {
	e, err := s.enter(ctx, system, options, false)
	if e == nil {
		return rooms.Joined{}, err
	}
	return e.At, err
}

// enter joins a room, saves the join if it is a change, and then adds the room to the
// session. In this order, a client that knows of a join can resume from it. enter returns
// nil if the session has ended.
func (s *Session) enter(ctx context.Context, system domain.SystemID, options rooms.Options, change bool) (*Entered, error) {
	room := s.face.NewRoom(system)
	subscription, at, err := s.server.parts.Rooms.Join(ctx, system, options, room)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.server.config.Face, err)
	}
	m := member{system: system, room: room, subscription: subscription, snapshot: at.Snapshot, entering: change}
	entered := false
	defer func() {
		if !entered { // also after a panic
			m.release()
		}
	}()
	room.Enter(subscription, at)
	c := Change{Entered: &Entered{System: system, Room: room, Options: options, At: at}}
	if change {
		if err := s.save(ctx, &c); err != nil {
			return nil, err
		}
	}
	s.order.Lock()
	defer s.order.Unlock()
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		return nil, nil
	}
	old, replaced := s.removeMember(system)
	c.Entered.replaced = replaced
	m.evicted = old.evicted
	s.members = append(s.members, m)
	s.joined, entered = true, true
	s.mu.Unlock()
	if replaced {
		old.room.Silence()
		old.release()
	}
	if m.evicted != nil {
		room.Silence()
	}
	s.face.Apply(&c)
	return c.Entered, nil
}

// answerJoin answers a join, and tells the client that it left if a command evicted it in
// the meantime. It reports whether the room may begin.
func (s *Session) answerJoin(e *Entered, answer func(Joined)) bool {
	s.order.Lock()
	defer s.order.Unlock()
	s.mu.Lock()
	i := slices.IndexFunc(s.members, func(m member) bool { return m.room == e.Room })
	if i < 0 { // the session has ended
		s.mu.Unlock()
		return false
	}
	s.members[i].entering = false
	evicted := s.members[i].evicted
	s.mu.Unlock()
	answer(JoinedAt(e.System, e.At.Cursor, e.At.Recovered))
	if evicted == nil {
		return true
	}
	if s.saver == nil {
		s.apply(&Change{Left: []Left{*evicted}}, nil)
	}
	return false
}

// begin sends the snapshot of a room, if there is one, and starts its events.
func (s *Session) begin(room Room) {
	s.mu.Lock()
	i := slices.IndexFunc(s.members, func(m member) bool { return m.room == room })
	if i < 0 {
		s.mu.Unlock()
		return
	}
	state, subscription := s.members[i].snapshot, s.members[i].subscription
	s.members[i].snapshot = nil
	s.mu.Unlock()
	if state == nil || room.Begin(state) {
		subscription.Start()
	}
}

// Begin starts the events of all restored rooms, and evicts the client from those that it
// has been banned from since. It calls before for each room first.
func (s *Session) Begin(before func(domain.SystemID, Room)) {
	s.mu.Lock()
	members, actor := slices.Clone(s.members), s.actor
	s.mu.Unlock()
	for _, m := range members {
		before(m.system, m.room)
		if b, banned := s.server.Ban(actor, m.system); banned {
			s.evict(m.system, b.Refusal(time.Now()).Detail)
			continue
		}
		s.begin(m.room)
	}
}

// checkRoomLimit fails if the client has joined as many systems as it may.
func (s *Session) checkRoomLimit(system domain.SystemID) error {
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

// removeMember removes the member of a system, if there is one. The caller holds mu, and
// releases the member after unlocking it.
func (s *Session) removeMember(system domain.SystemID) (m member, in bool) {
	i := s.find(system)
	if i < 0 {
		return member{}, false
	}
	m = s.members[i]
	s.members = slices.Delete(s.members, i, i+1)
	return m, true
}
