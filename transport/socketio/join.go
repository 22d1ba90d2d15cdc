package socketio

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/domain/isolate"
	"github.com/plugcast/plugcast/transport/rooms"
	"github.com/plugcast/plugcast/transport/socketio/engineio"
	"github.com/plugcast/plugcast/transport/socketio/sio"
)

// joined says where a reader is.
type joined struct {
	SystemID  domain.SystemID `json:"systemId"`
	Position  domain.Position `json:"position"` // events follow from here
	Seq       uint64          `json:"seq"`
	Recovered bool            `json:"recovered"`
}

// joinAnswer acknowledges a join.
type joinAnswer struct {
	OK bool `json:"ok"`
	joined
}

// left says that a socket is out of a room.
type left struct {
	SystemID domain.SystemID `json:"systemId,omitempty"`
	Room     string          `json:"room,omitempty"`
	Reason   string          `json:"reason,omitempty"` // of a room that the client did not ask to leave
}

// joinSystem lets the socket into a room. One that is in it already and asks for
// nothing else stays where it is: applications join whenever they connect, also
// when they were put back into their rooms.
func (s *socket) joinSystem(e *sio.Event) error {
	var j rooms.JoinRequest
	if err := readArgument(e, &j.SystemID, &j); err != nil {
		return err
	}
	if s.after != "" && j.After == nil && !j.Snapshot && s.member(domain.SystemID(j.SystemID)) == nil {
		j.After = &s.after
	}
	system, way, options, err := wayOf(&j)
	if err != nil {
		return err
	}
	if err := s.identity().Authorize(domain.ActionRead, system); err != nil {
		return err
	}
	if f, banned := s.server.ban(s.identity(), system); banned {
		return f.Refusal()
	}
	if m := s.member(system); m != nil && j.IsPlain() {
		s.acknowledge(e, joinAnswer{true, place(system, m.cursor.Passed(), true)})
		return nil
	}
	if m := s.member(system); m != nil && options.After == nil && !options.Snapshot {
		at := m.hold() // another filter, from where the client is
		defer m.release()
		options.After = &at
	}
	if err := s.roomFor(system); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(s.server.ctx, s.server.config.JoinTimeout)
	defer cancel()
	if err := s.budget.Join(ctx, time.Now(), &s.server.config.Rates, s.server.parts.Limiter, system); err != nil {
		return err
	}
	return s.enter(ctx, e, &membership{socket: s, system: system}, way, options)
}

func place(system domain.SystemID, at domain.Cursor, recovered bool) joined {
	return joined{SystemID: system, Position: at.Position, Seq: at.Seq, Recovered: recovered}
}

// wayOf checks the request and turns it into what is kept and what rooms understand.
func wayOf(j *rooms.JoinRequest) (domain.SystemID, Way, rooms.Options, error) {
	o := rooms.Options{Snapshot: j.Snapshot, Conflate: j.Conflate, Encoding: encoding{}}
	system, err := domain.ParseSystemID(j.SystemID)
	if err != nil {
		return "", Way{}, o, err
	}
	if j.After != nil {
		after, err := positionIn(*j.After, system)
		if err != nil {
			return "", Way{}, o, err
		}
		o.After = &after
	}
	if o.Filter, err = j.Filter(); err != nil {
		return "", Way{}, o, err
	}
	return system, Way{Snapshot: j.Snapshot, Conflate: j.Conflate, Types: o.Filter.Types, Devices: o.Filter.Devices}, o, nil
}

// enter joins, notes where, and tells the client, in this order: a client that
// knows of a join can go on from there.
func (s *socket) enter(ctx context.Context, e *sio.Event, m *membership, way Way, options rooms.Options) error {
	cursor, at, err := s.server.parts.Rooms.Join(ctx, m.system, options, m)
	if err != nil {
		return fmt.Errorf("socketio: %w", err)
	}
	m.enter(cursor, at)
	next := s.turned()
	way.Turn, way.After = next.Turn, at.Cursor.Position
	next.Rooms[m.system] = way
	if err := s.save(ctx, &next); err != nil {
		m.takeSnapshot().Release()
		cursor.Leave()
		return err
	}
	if !s.take(m, next) {
		m.takeSnapshot().Release()
		cursor.Leave()
		return nil // the socket is over
	}
	if f, banned := s.server.ban(s.identity(), m.system); banned { // since it was asked before
		s.expel(m.system, "") // the refusal says why
		s.publish()
		return f.Refusal()
	}
	s.acknowledge(e, joinAnswer{true, place(m.system, at.Cursor, at.Recovered)})
	m.begin()
	s.publish()
	return nil
}

// turned is a copy of the session whose rooms are about to change.
func (s *socket) turned() Session {
	next := s.copied()
	next.Turn++
	return next
}

// copied is a copy of the session.
func (s *socket) copied() Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := s.session
	next.Rooms, next.Left = maps.Clone(next.Rooms), maps.Clone(next.Left)
	if next.Rooms == nil {
		next.Rooms = map[domain.SystemID]Way{}
	}
	return next
}

// take makes m the socket's membership of its system, in place of one that it may
// have. It reports false for a socket that is over.
func (s *socket) take(m *membership, next Session) bool {
	s.sending.Lock() // what is queued before has the offsets of the turn before
	defer s.sending.Unlock()
	s.mu.Lock()
	if s.over {
		s.mu.Unlock()
		return false
	}
	old := s.takeOut(m.system)
	if old != nil {
		m.dismissed = old.dismissed
	}
	s.members = append(s.members, m)
	s.session = next
	s.mu.Unlock()
	if old != nil {
		old.takeSnapshot().Release()
		old.cursor.Leave()
	}
	return true
}

// takeOut takes the membership of a system out, if there is one. The caller holds
// the lock.
func (s *socket) takeOut(system domain.SystemID) *membership {
	for i, m := range s.members {
		if m.system == system {
			s.members = slices.Delete(s.members, i, i+1)
			m.left = true
			return m
		}
	}
	return nil
}

// leave takes the socket out of a room, and reports whether it was in it. What is
// sent afterwards comes behind the room's last event.
func (s *socket) leave(system domain.SystemID) bool {
	s.sending.Lock() // an event may be on its way into the queue
	s.mu.Lock()
	m := s.takeOut(system)
	s.mu.Unlock()
	s.sending.Unlock()
	if m == nil {
		return false
	}
	m.takeSnapshot().Release()
	m.cursor.Leave()
	return true
}

// leaveSystem takes the socket out of a room. No event of it follows the answer.
func (s *socket) leaveSystem(e *sio.Event) error {
	var name struct {
		SystemID string `json:"systemId"`
	}
	if err := readArgument(e, &name.SystemID, &name); err != nil {
		return err
	}
	system, err := domain.ParseSystemID(name.SystemID)
	if err != nil {
		return err
	}
	if s.member(system) == nil {
		return domain.Fail(domain.KindNotFound, CodeNotJoined, fmt.Sprintf("system %q is not joined", system))
	}
	if err := s.quit(system, ""); err != nil {
		return err
	}
	s.acknowledge(e, ok{true})
	s.publish()
	return nil
}

// quit takes the socket out of a room, and the room out of the session. When that
// cannot be saved, nothing changes. The client is told the reason, if there is one. The
// caller changes the session.
func (s *socket) quit(system domain.SystemID, reason string) error {
	next := s.turned()
	delete(next.Rooms, system)
	var gone []left
	if reason != "" {
		gone = append(gone, left{SystemID: system, Reason: reason})
		next.noteLeft(gone...)
	}
	if err := s.store(&next); err != nil {
		return err
	}
	s.settle(next, gone...)
	s.leave(system)
	return nil
}

// expel is quit for who must not stay. When it cannot be saved, the connection is
// closed: its client comes back and is checked anew.
func (s *socket) expel(system domain.SystemID, reason string) {
	if err := s.quit(system, reason); err != nil {
		s.leave(system)
		s.io.Close(engineio.ReasonForced)
	}
}

// dismiss takes the socket out of a room by command, and reports whether it was in
// it. It may be called from any goroutine, and waits for nothing: no event of the room is
// queued when it returns, and the client is told when the session says so too.
func (s *socket) dismiss(system domain.SystemID, reason string) bool {
	s.sending.Lock() // an event may be on its way into the queue
	s.mu.Lock()
	at := slices.IndexFunc(s.members, func(m *membership) bool { return m.system == system && m.dismissed == nil })
	if at >= 0 {
		s.members[at].dismissed = &left{SystemID: system, Reason: rooms.Dismissed(reason)}
	}
	s.mu.Unlock()
	s.sending.Unlock()
	if at < 0 {
		return false
	}
	if !s.server.dismissing.Enter() {
		return true // the server shuts down, and closes the socket
	}
	go func() {
		defer s.server.dismissing.Leave()
		s.server.saving <- struct{}{}
		defer func() { <-s.server.saving }()
		isolate.Do(s.server.parts.Logger, where, func() { s.dismissed(system, rooms.Dismissed(reason)) })
	}()
	return true
}

// dismissed takes a room out of the session, behind a change that is under way. A
// connection that broke is no reason not to: its client may come back.
func (s *socket) dismissed(system domain.SystemID, reason string) {
	err := s.change(func() error {
		if _, in := s.copied().Rooms[system]; !in {
			return nil // the client left it by itself
		}
		return s.quit(system, reason)
	})
	if err != nil {
		s.leave(system)
		// A client that comes back is checked again. One that has left the namespace may
		// have entered it again over the same connection, as another socket.
		if !s.isOver() {
			s.io.Close(engineio.ReasonForced)
		}
	}
	s.publish()
}

// change runs f, which changes the session. Changes run one at a time, because each
// one starts from the session that the one before has saved.
func (s *socket) change(f func() error) error {
	timeout := time.NewTimer(s.server.config.JoinTimeout)
	defer timeout.Stop()
	select {
	case s.changing <- struct{}{}:
		defer func() { <-s.changing }()
		return f()
	case <-timeout.C:
		return domain.Fail(domain.KindUnavailable, domain.CodeUnavailable, "another change of this socket's rooms takes too long; try again")
	}
}

// store saves a session.
func (s *socket) store(next *Session) error {
	ctx, cancel := context.WithTimeout(s.server.ctx, s.server.config.JoinTimeout)
	defer cancel()
	return s.save(ctx, next)
}

// settle makes a session that was saved the socket's, takes it out of the rooms that it
// is not in any more, and tells the client: an offset of this turn says that it was told.
func (s *socket) settle(next Session, gone ...left) {
	s.sending.Lock()
	s.mu.Lock()
	s.session = next
	s.mu.Unlock()
	members := s.takeOutAndTell(gone)
	s.sending.Unlock()
	end(members)
}

// takeOutAndTell takes the socket out of rooms and tells the client, unless that was done
// before. The caller has sending, and ends the memberships when it does not any more.
func (s *socket) takeOutAndTell(gone []left) (members []*membership) {
	for _, one := range gone {
		s.mu.Lock()
		m := s.takeOut(one.SystemID)
		s.mu.Unlock()
		if m != nil {
			members = append(members, m)
		}
		if m != nil || one.Room != "" {
			s.emit("left", one)
		}
	}
	return members
}

// end lets go of what memberships hold that were taken out.
func end(members []*membership) {
	for _, m := range members {
		m.takeSnapshot().Release()
		m.cursor.Leave()
	}
}

func (s *socket) member(system domain.SystemID) *membership {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.members {
		if m.system == system {
			return m
		}
	}
	return nil
}

// roomFor fails when the socket has joined as many systems as it may.
func (s *socket) roomFor(system domain.SystemID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	in := slices.ContainsFunc(s.members, func(m *membership) bool { return m.system == system })
	if most := s.server.config.MaxRooms; !in && len(s.members) >= most {
		return domain.Fail(domain.KindConflict, CodeTooManyRooms, fmt.Sprintf("a socket may join %d systems", most))
	}
	return nil
}
