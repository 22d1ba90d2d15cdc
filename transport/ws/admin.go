package ws

import (
	"github.com/plugcast/plugcast/domain"
)

// joinAdmin lets the socket into the room of the admin dashboard: it gets the
// frames of the metrics feed from here on.
func (s *socket) joinAdmin(r *request) error {
	if err := s.identity().AuthorizeAnywhere(domain.ActionMonitor); err != nil {
		return err
	}
	feed := s.server.parts.Metrics
	if feed == nil {
		return domain.Fail(domain.KindUnavailable, domain.CodeUnavailable, "this server has no admin dashboard")
	}
	s.mu.Lock()
	there := s.unwatch != nil
	s.mu.Unlock()
	s.answer(encodeFrame(eventJoined, r.ID, inRoom{adminRoom}))
	if there {
		return nil
	}
	unwatch := feed.Subscribe(s.watch)
	s.mu.Lock()
	ending := s.ending
	if !ending {
		s.unwatch, s.joined = unwatch, true
	}
	s.mu.Unlock()
	if ending {
		unwatch()
	}
	return nil
}

// watch sends a frame of the metrics feed, unless the client has left.
func (s *socket) watch(frame []byte) {
	s.mu.Lock()
	watching := s.unwatch != nil
	s.mu.Unlock()
	if watching {
		s.enqueue(outgoing{bytes: frame, kind: metrics})
	}
}

// leaveAdmin takes the socket out again.
func (s *socket) leaveAdmin(r *request) error {
	if !s.unwatchNow() {
		return domain.Fail(domain.KindNotFound, CodeNotJoined, "the admin dashboard is not joined")
	}
	s.answer(encodeFrame(eventLeft, r.ID, left{Room: adminRoom}))
	return nil
}

func (s *socket) unwatchNow() bool {
	s.mu.Lock()
	unwatch := s.unwatch
	s.unwatch = nil
	s.outbound.filter(func(g *outgoing) bool { return g.kind != metrics })
	s.mu.Unlock()
	if unwatch == nil {
		return false
	}
	unwatch()
	return true
}
