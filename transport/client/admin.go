package client

import (
	"context"

	"github.com/plugcast/plugcast/domain"
)

// JoinAdmin lets the client into the room of the admin dashboard. It calls answer under
// the session's order; the client gets the frames of the metrics feed after the answer.
func (s *Session) JoinAdmin(answer func()) error {
	if err := s.Actor().AuthorizeAnywhere(domain.ActionMonitor); err != nil {
		return err
	}
	if s.server.parts.Metrics == nil {
		return domain.Fail(domain.KindUnavailable, domain.CodeUnavailable, "this server has no admin dashboard")
	}
	return s.change(func() error {
		ctx, cancel := context.WithTimeout(s.server.ctx, s.server.config.JoinTimeout)
		defer cancel()
		c := &Change{Admin: true}
		if err := s.save(ctx, c); err != nil {
			return err
		}
		s.watch(func() {
			answer()
			s.face.Apply(c)
		})
		return nil
	})
}

// RestoreAdmin puts a resuming client back into the room of the admin dashboard, if its
// actor may watch it and the server has one.
func (s *Session) RestoreAdmin() {
	if s.server.parts.Metrics != nil && s.Actor().AuthorizeAnywhere(domain.ActionMonitor) == nil {
		s.watch(func() {})
	}
}

// watch subscribes to the metrics feed, unless the session already has, and calls told
// before the first frame.
func (s *Session) watch(told func()) {
	s.mu.Lock()
	watching := s.unwatch != nil
	s.mu.Unlock()
	var unwatch func()
	if !watching {
		unwatch = s.server.parts.Metrics.Subscribe(s.face.Metrics)
	}
	s.order.Lock()
	defer s.order.Unlock()
	s.mu.Lock()
	ended := s.ended
	if !ended && unwatch != nil {
		s.unwatch, s.joined = unwatch, true
	}
	s.mu.Unlock()
	if ended {
		if unwatch != nil {
			unwatch()
		}
		return
	}
	told()
	s.face.Watch(true)
}

// LeaveAdmin takes the client out of the room of the admin dashboard. It calls answer
// under the session's order; no frame of the feed follows the answer.
func (s *Session) LeaveAdmin(answer func()) error {
	return s.change(func() error {
		s.mu.Lock()
		watching := s.unwatch != nil
		s.mu.Unlock()
		if !watching {
			return domain.Fail(domain.KindNotFound, CodeNotJoined, "the admin dashboard is not joined")
		}
		return s.leave(Left{Room: AdminRoom}, answer)
	})
}
