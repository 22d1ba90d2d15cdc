package client

import (
	"context"
	"slices"
	"time"

	"github.com/plugcast/plugcast/domain"
)

// Authenticate replaces the client's token. It takes the client out of the rooms that
// the new token is not for, and puts the expiry off. What is refused or cannot be saved
// changes nothing. A client whose new token is banned is thrown out without an answer,
// or taken out of the rooms that it is banned from. The answer is called under the
// session's order.
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
	if s.bannedAs(actor) {
		return nil
	}
	c := &Change{Actor: &actor, Gone: s.lost(actor)}
	told := func() { answer(Authenticated{actor.Subject, actor.Role, actor.ExpiresAt.UTC()}) }
	if len(c.Gone) == 0 { // nothing to save
		s.inOrder(func() { s.take(c, told) })
	} else if err := s.commit(ctx, c, told); err != nil {
		return err
	}
	s.schedule(time.Time{})
	s.recheck(actor)
	s.publish()
	return nil
}

// lost returns what the client is in and an actor may not be in, with the reasons.
func (s *Session) lost(actor domain.Actor) (lost []Left) {
	s.mu.Lock()
	members, watches := slices.Clone(s.members), s.unwatch != nil
	s.mu.Unlock()
	for _, m := range members {
		if why := s.server.Barred(actor, m.system); why != "" {
			lost = append(lost, Left{SystemID: m.system, Reason: why})
		}
	}
	if watches && actor.AuthorizeAnywhere(domain.ActionMonitor) != nil {
		lost = append(lost, Left{Room: AdminRoom, Reason: notForIt})
	}
	return lost
}

// recheck asks once more for bans of an actor that the client has become: the command
// behind one that was raised since it was asked before has not found this client.
func (s *Session) recheck(actor domain.Actor) {
	if s.bannedAs(actor) {
		return
	}
	s.mu.Lock()
	members := slices.Clone(s.members)
	s.mu.Unlock()
	for _, m := range members {
		if b, banned := s.server.Ban(actor, m.system); banned {
			s.dismiss(m.system, b.Refusal(time.Now()).Detail)
		}
	}
}

// Banned throws the client out if it is banned from everything, and reports that. It is
// asked when the session is listed, where a command behind a later ban finds it.
func (s *Session) Banned() bool { return s.bannedAs(s.Actor()) }

func (s *Session) bannedAs(actor domain.Actor) bool {
	b, banned := s.server.Ban(actor, "")
	if banned {
		s.throwOut(ForcedDisconnect{Reason: b.Reason, CommandID: b.CommandID})
	}
	return banned
}
