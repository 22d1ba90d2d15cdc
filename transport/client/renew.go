package client

import (
	"context"
	"slices"
	"time"

	"github.com/plugcast/plugcast/domain"
)

// Authenticate replaces the client's token and its expiry, and takes the client out of
// the rooms that the new token does not allow. If the token is refused or the save fails,
// nothing changes. A client whose new actor is banned from the platform is disconnected
// without an answer; a client that is banned from rooms is taken out of them. answer is
// called under the session's order.
func (s *Session) Authenticate(token string, answer func(Authenticated)) error {
	return s.change(func() error { return s.authenticate(token, answer) })
}

func (s *Session) authenticate(token string, answer func(Authenticated)) error {
	ctx, cancel := context.WithTimeout(s.server.ctx, s.server.config.JoinTimeout)
	defer cancel()
	actor, err := s.server.parts.Authenticator.Verify(ctx, token)
	if err != nil {
		return err
	}
	if s.server.config.OneSubject && actor.Subject != s.Actor().Subject {
		return domain.Fail(domain.KindForbidden, domain.CodeForbidden, "the token belongs to another subject; open a new connection with it")
	}
	if s.enforceBan(actor) {
		return nil
	}
	c := &Change{Actor: &actor, Left: s.forbidden(actor)}
	told := func() { answer(Authenticated{actor.Subject, actor.Role, actor.ExpiresAt.UTC()}) }
	if len(c.Left) == 0 { // nothing to save
		s.inOrder(func() { s.apply(c, told) })
	} else if err := s.commit(ctx, c, told); err != nil {
		return err
	}
	s.schedule(time.Time{})
	s.recheck(actor)
	s.publish()
	return nil
}

// forbidden returns the rooms of the client that an actor may not be in, with reasons.
func (s *Session) forbidden(actor domain.Actor) (lost []Left) {
	s.mu.Lock()
	members, watching := slices.Clone(s.members), s.unwatch != nil
	s.mu.Unlock()
	for _, m := range members {
		if why := s.server.DenialReason(actor, m.system); why != "" {
			lost = append(lost, Left{SystemID: m.system, Reason: why})
		}
	}
	if watching && actor.AuthorizeAnywhere(domain.ActionMonitor) != nil {
		lost = append(lost, Left{Room: AdminRoom, Reason: reasonNewToken})
	}
	return lost
}

// recheck checks the bans again after the session has its new actor. A ban may have been
// raised since the first check, and the command behind it did not match this session yet.
func (s *Session) recheck(actor domain.Actor) {
	if s.enforceBan(actor) {
		return
	}
	s.mu.Lock()
	members := slices.Clone(s.members)
	s.mu.Unlock()
	for _, m := range members {
		if b, banned := s.server.Ban(actor, m.system); banned {
			s.evict(m.system, b.Refusal(time.Now()).Detail)
		}
	}
}

// EnforceBan disconnects the client if it is banned from the platform, and reports
// whether it did. The face calls it after [Session.List], so that a command behind a
// later ban finds the session.
func (s *Session) EnforceBan() bool { return s.enforceBan(s.Actor()) }

func (s *Session) enforceBan(actor domain.Actor) bool {
	b, banned := s.server.Ban(actor, "")
	if banned {
		s.forceDisconnect(ForcedDisconnect{Reason: b.Reason, CommandID: b.CommandID})
	}
	return banned
}
