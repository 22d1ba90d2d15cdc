package client

import (
	"context"
	"fmt"
	"time"

	"github.com/plugcast/plugcast/domain"
)

// change runs f, which changes the session. The changes of a [Saver]'s session run one
// at a time, because each starts from the state that the previous one saved. Other
// sessions need no such order.
func (s *Session) change(f func() error) error {
	if s.saver == nil {
		return f()
	}
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

// save saves a change of a Saver's session. The caller runs inside [Session.change].
func (s *Session) save(ctx context.Context, c *Change) (err error) {
	if s.saver != nil {
		c.Saved, err = s.saver.Save(ctx, c)
	}
	return err
}

// inOrder runs f, which writes something to the client, under the session's order.
func (s *Session) inOrder(f func()) {
	s.order.Lock()
	defer s.order.Unlock()
	f()
}

// commit saves a change that takes the client out of rooms, and applies it. When the
// save fails, nothing changes.
func (s *Session) commit(ctx context.Context, c *Change, answer func()) error {
	if err := s.save(ctx, c); err != nil {
		return err
	}
	s.inOrder(func() { s.apply(c, answer) })
	return nil
}

// apply applies a change that takes the client out of rooms. It silences and leaves
// those rooms before the answer, and the face tells the client of them after it. Rooms
// that the client was not in are removed from c.Left. The caller holds order.
func (s *Session) apply(c *Change, answer func()) {
	var out []member
	var unwatch func()
	left := c.Left[:0]
	s.mu.Lock()
	if c.Actor != nil {
		s.actor = *c.Actor
	}
	for _, one := range c.Left {
		if one.Room != "" && s.unwatch != nil {
			unwatch, s.unwatch = s.unwatch, nil
			left = append(left, one)
		} else if m, in := s.removeMember(one.SystemID); in {
			out, left = append(out, m), append(left, one)
		}
	}
	s.mu.Unlock()
	c.Left = left
	for i := range out {
		out[i].room.Silence()
		out[i].release()
	}
	if unwatch != nil {
		s.face.Watch(false)
		unwatch()
	}
	if answer != nil {
		answer()
	}
	s.face.Apply(c)
}

// Leave takes the client out of a room. It calls answer under the session's order;
// nothing of the room follows the answer.
func (s *Session) Leave(name string, answer func(Left)) error {
	system, err := domain.ParseSystemID(name)
	if err != nil {
		return err
	}
	left := Left{SystemID: system}
	if err := s.change(func() error {
		if !s.In(system) {
			return domain.Fail(domain.KindNotFound, CodeNotJoined, fmt.Sprintf("system %q is not joined", system))
		}
		return s.leave(left, func() { answer(left) })
	}); err != nil {
		return err
	}
	s.publish()
	return nil
}

// leave takes the client out of a room, or of the admin dashboard.
func (s *Session) leave(left Left, answer func()) error {
	ctx, cancel := context.WithTimeout(s.server.ctx, s.server.config.JoinTimeout)
	defer cancel()
	return s.commit(ctx, &Change{Left: []Left{left}}, answer)
}

// removeOrAbort takes the client out of a room that it must not be in. The client is
// told if left has a reason. When the save fails, the connection is aborted, because the
// client is checked again when it reconnects. The caller runs inside [Session.change].
func (s *Session) removeOrAbort(left Left) {
	if err := s.leave(left, nil); err != nil {
		s.face.Abort()
	}
}

// evict takes the client out of a room and tells it the reason. It reports whether the
// client was in the room. It does not wait, and when it returns no further event of the
// room is queued. A Saver's client is told after the save, and a client that is just
// joining after the answer to its join.
func (s *Session) evict(system domain.SystemID, reason string) bool {
	left := &Left{SystemID: system, Reason: reason}
	if !s.markEvicted(left) {
		return false
	}
	if s.saver == nil {
		s.publish()
		return true
	}
	s.server.goBounded(s, func() { s.finishEviction(left) })
	return true
}

// markEvicted silences the room that the client is to leave, and takes the client out at
// once if no save or join has to finish first. It reports whether the client was in the
// room.
func (s *Session) markEvicted(left *Left) bool {
	s.order.Lock()
	defer s.order.Unlock()
	s.mu.Lock()
	i := s.find(left.SystemID)
	if i < 0 || s.members[i].evicted != nil {
		s.mu.Unlock()
		return false
	}
	m := &s.members[i]
	m.evicted = left
	room, now := m.room, s.saver == nil && !m.entering
	s.mu.Unlock()
	if now {
		s.apply(&Change{Left: []Left{*left}}, nil)
	} else {
		room.Silence()
	}
	return true
}

// finishEviction removes a room from the state that a Saver has saved, after the change
// that is in progress. It does so even if the connection broke, because its client may
// resume. It does nothing if the client itself left the room in the meantime, even if
// the client has joined it again.
func (s *Session) finishEviction(left *Left) {
	defer s.publish() // also after a panic
	err := s.change(func() error {
		m, in := s.member(left.SystemID)
		if in && m.evicted != left || !in && !(s.IsEnded() && s.saver.IsSaved(left.SystemID)) {
			return nil
		}
		return s.leave(*left, nil)
	})
	// A client that reconnects is checked again. A client whose session has ended may use
	// the same connection for another session.
	if err != nil && !s.IsEnded() {
		s.face.Abort()
	}
}

// forceDisconnect tells the client the reason and ends the session. It returns false if
// the session had ended. Evictions by earlier commands take effect first.
func (s *Session) forceDisconnect(why ForcedDisconnect) bool {
	s.order.Lock()
	defer s.order.Unlock()
	s.mu.Lock()
	ended := s.ended
	var left []Left
	for i := range s.members {
		if m := &s.members[i]; m.evicted != nil && !m.entering {
			left = append(left, *m.evicted)
		}
	}
	s.mu.Unlock()
	if ended {
		return false
	}
	if len(left) > 0 {
		s.apply(&Change{Left: left}, nil)
	}
	s.face.ForceDisconnect(why)
	return true
}
