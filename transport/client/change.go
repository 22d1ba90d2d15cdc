package client

import (
	"context"
	"fmt"
	"time"

	"github.com/plugcast/plugcast/domain"
)

// change runs f, which changes the session. Changes of a [Keeper]'s session run one at
// a time, because each one starts from what the one before has saved. Others have
// nothing to wait for.
func (s *Session) change(f func() error) error {
	if s.keeper == nil {
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

// save saves a change of a Keeper's session. The caller has the session changing.
func (s *Session) save(ctx context.Context, c *Change) (err error) {
	if s.keeper != nil {
		c.Saved, err = s.keeper.Save(ctx, c)
	}
	return err
}

// inOrder runs f, which tells the client something, under the session's order.
func (s *Session) inOrder(f func()) {
	s.order.Lock()
	defer s.order.Unlock()
	f()
}

// commit saves a change that takes the client out of something, and lets it take
// effect. When it cannot be saved, nothing changes.
func (s *Session) commit(ctx context.Context, c *Change, answer func()) error {
	if err := s.save(ctx, c); err != nil {
		return err
	}
	s.inOrder(func() { s.take(c, answer) })
	return nil
}

// take lets a change take effect that takes the client out of something. What it takes
// the client out of is silent and left before the answer, and the client is told of it
// behind that, if it was in it. The caller holds order.
func (s *Session) take(c *Change, answer func()) {
	var out []member
	var unwatch func()
	gone := c.Gone[:0]
	s.mu.Lock()
	if c.Actor != nil {
		s.actor = *c.Actor
	}
	for _, one := range c.Gone {
		if one.Room != "" && s.unwatch != nil {
			unwatch, s.unwatch = s.unwatch, nil
			gone = append(gone, one)
		} else if m, in := s.takeOut(one.SystemID); in {
			out, gone = append(out, m), append(gone, one)
		}
	}
	s.mu.Unlock()
	c.Gone = gone
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

// Leave takes the client out of a room. The answer is called under the session's order:
// nothing of the room follows it.
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
		return s.quit(left, func() { answer(left) })
	}); err != nil {
		return err
	}
	s.publish()
	return nil
}

// quit takes the client out of a room, or of the admin dashboard.
func (s *Session) quit(left Left, answer func()) error {
	ctx, cancel := context.WithTimeout(s.server.ctx, s.server.config.JoinTimeout)
	defer cancel()
	return s.commit(ctx, &Change{Gone: []Left{left}}, answer)
}

// expel takes the client out of a room that it must not be in. The client is told if
// there is a reason. When that cannot be saved the client is cut off: it comes back and
// is checked again. The caller has the session changing.
func (s *Session) expel(left Left) {
	if err := s.quit(left, nil); err != nil {
		s.face.Cut()
	}
}

// dismiss takes the client out of a room for a reason that it is told, and reports
// whether it was in it. It waits for nothing, and no event of the room is queued when it
// returns. A Keeper's client is told when that is saved, and one that is just joining
// behind the answer to that.
func (s *Session) dismiss(system domain.SystemID, reason string) bool {
	left := &Left{SystemID: system, Reason: reason}
	if !s.mark(left) {
		return false
	}
	if s.keeper == nil {
		s.publish()
		return true
	}
	s.server.behind(s, func() { s.dismissed(left) })
	return true
}

// mark silences the room that the client is to leave, and takes the client out if
// nothing has to be waited for. It reports false for a client that is not in it.
func (s *Session) mark(left *Left) bool {
	s.order.Lock()
	defer s.order.Unlock()
	s.mu.Lock()
	i := s.find(left.SystemID)
	if i < 0 || s.members[i].dismissed != nil {
		s.mu.Unlock()
		return false
	}
	m := &s.members[i]
	m.dismissed = left
	room, now := m.room, s.keeper == nil && !m.entering
	s.mu.Unlock()
	if now {
		s.take(&Change{Gone: []Left{*left}}, nil)
	} else {
		room.Silence()
	}
	return true
}

// dismissed takes a room out of what a Keeper has saved, behind a change that is under
// way. A connection that broke is no reason not to: its client may come back. One that
// left the room by itself in between, and is perhaps in it again, is let be.
func (s *Session) dismissed(left *Left) {
	defer s.publish() // also after a panic
	err := s.change(func() error {
		m, in := s.member(left.SystemID)
		if in && m.dismissed != left || !in && !(s.IsOver() && s.keeper.Keeps(left.SystemID)) {
			return nil
		}
		return s.quit(*left, nil)
	})
	// A client that comes back is checked again. One that has left may be back over the
	// same connection, as another session.
	if err != nil && !s.IsOver() {
		s.face.Cut()
	}
}

// throwOut tells the client why, and ends the session. It reports false for one that is
// over. Rooms that a command before this one takes the client out of come first.
func (s *Session) throwOut(why ForcedDisconnect) bool {
	s.order.Lock()
	defer s.order.Unlock()
	s.mu.Lock()
	over := s.over
	var gone []Left
	for i := range s.members {
		if m := &s.members[i]; m.dismissed != nil && !m.entering {
			gone = append(gone, *m.dismissed)
		}
	}
	s.mu.Unlock()
	if over {
		return false
	}
	if len(gone) > 0 {
		s.take(&Change{Gone: gone}, nil)
	}
	s.face.ThrowOut(why)
	return true
}
