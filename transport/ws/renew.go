package ws

import (
	"context"

	"github.com/plugcast/plugcast/domain"
)

// authenticate replaces the socket's token. It takes the socket out of the rooms
// that the new token is not for, and puts the expiry off. A token that is
// refused changes nothing.
func (s *socket) authenticate(r *request) error {
	var token string
	if err := r.decode(member{"token", &token}); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(s.server.ctx, s.server.config.JoinTimeout)
	defer cancel()
	actor, err := s.server.parts.Authenticator.Verify(ctx, token)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.actor = actor
	var lost []*membership
	for _, m := range append([]*membership(nil), s.rooms...) {
		if actor.Authorize(domain.ActionRead, m.system) != nil {
			lost = append(lost, s.take(m.system))
		}
	}
	s.mu.Unlock()
	for _, m := range lost {
		m.cursor.Leave()
	}
	s.schedule()

	s.answer(encodeFrame(eventAuthenticated, r.ID, authenticated{actor.Subject, actor.Role, actor.ExpiresAt.UTC()}))
	const why = "the new token is not for it"
	for _, m := range lost {
		s.answer(encodeFrame(eventLeft, nil, left{SystemID: m.system, Reason: why}))
	}
	if actor.AuthorizeAnywhere(domain.ActionMonitor) != nil && s.unwatchNow() {
		s.answer(encodeFrame(eventLeft, nil, left{Room: adminRoom, Reason: why}))
	}
	s.publish()
	return nil
}

// ping is for clients that cannot see the pings of the protocol below, such as
// browsers.
func (s *socket) ping(r *request) error {
	s.answer(encodeFrame(eventPong, r.ID, nil))
	return nil
}
