package ws

import (
	"context"
	"slices"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/rooms"
)

// authenticate replaces the socket's token. It takes the socket out of the rooms
// that the new token is not for, and puts the expiry off. A token that is
// refused changes nothing. One whose owner may not come back yet is thrown out,
// or taken out of the rooms that it is kept out of.
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
	s.mu.Unlock()
	if s.keptOut() {
		return nil
	}
	lost := s.leaveLost(actor)
	s.schedule()

	s.answer(encodeFrame(eventAuthenticated, r.ID, authenticated{actor.Subject, actor.Role, actor.ExpiresAt.UTC()}))
	for _, one := range lost {
		s.answer(encodeFrame(eventLeft, nil, one))
	}
	if actor.AuthorizeAnywhere(domain.ActionMonitor) != nil && s.unwatchNow() {
		s.answer(encodeFrame(eventLeft, nil, left{Room: adminRoom, Reason: notForIt}))
	}
	s.publish()
	return nil
}

const notForIt = "the new token is not for it"

// leaveLost takes the socket out of the rooms that are not the actor's, and says
// which.
func (s *socket) leaveLost(actor domain.Actor) (lost []left) {
	s.mu.Lock()
	members := slices.Clone(s.rooms)
	s.mu.Unlock()
	for _, m := range members {
		why := ""
		if actor.Authorize(domain.ActionRead, m.system) != nil {
			why = notForIt
		} else if f, banned := s.server.ban(actor, m.system); banned {
			why = f.Refusal().Detail
		}
		if why != "" && s.leave(m.system) {
			lost = append(lost, left{SystemID: m.system, Reason: why})
		}
	}
	return lost
}

// ban asks whether the actor may come back.
func (s *Server) ban(actor domain.Actor, system domain.SystemID) (rooms.Banned, bool) {
	return rooms.CheckBan(s.parts.Ban, actor, system)
}

// keptOut throws the socket out if its owner was, and may not come back yet.
func (s *socket) keptOut() bool {
	f, banned := s.server.ban(s.identity(), "")
	if banned {
		s.end(closeThrownOut, encodeFrame(eventForcedDisconnect, nil, ForcedDisconnect{Reason: f.Reason, CommandID: f.CommandID}))
	}
	return banned
}

// ping is for clients that cannot see the pings of the protocol below, such as
// browsers.
func (s *socket) ping(r *request) error {
	s.answer(encodeFrame(eventPong, r.ID, nil))
	return nil
}
