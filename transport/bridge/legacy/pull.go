package legacy

import (
	"context"
	"crypto/sha256"
	"io"
	"time"

	"github.com/google/uuid"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/bridge"
	"github.com/plugcast/plugcast/transport/bridge/legacy/sioclient"
)

// forward passes events on, both ways.
func (s *systemLink) forward(ctx context.Context, conn *sioclient.Conn, before SavedState, state *bridge.State) error {
	if s.system.Direction.Pulls() {
		s.reportGap(conn, before, "the other side does not remember what it said meanwhile")
	}
	s.noteSession(conn, before)
	// What comes is taken off the connection in any case, or it would stall.
	// And what came before the connection ended is taken when that is over.
	parts := []func(context.Context) error{func(context.Context) error { return s.pull(ctx, conn, state) }}
	out := &outbox{systemLink: s, conn: conn, state: state}
	quiet := make(chan struct{}) // closed when nothing is emitted any more
	ended := func() {}
	if s.system.Direction.Pushes() {
		parts = append(parts, func(ctx context.Context) error {
			defer close(quiet)
			return out.push(ctx)
		})
		ended = out.reportUnconfirmed
	} else {
		close(quiet)
	}
	return s.runParts(ctx, conn, state, quiet, ended, parts...)
}

// pull appends what the other side says until the connection has ended and all that
// came before is appended. When ctx ends it has a moment for the rest.
func (s *systemLink) pull(ctx context.Context, conn *sioclient.Conn, state *bridge.State) error {
	ctx, cancel := withGrace(ctx, endGrace)
	defer cancel()
	for e := range conn.Events() {
		if s.system.Direction.Pulls() {
			s.appending.Store(e.At.UnixNano())
			if err := s.receive(ctx, &e, state); err != nil {
				return err
			}
			if conn.Waiting() == 0 { // else what waits came before the last that was heard
				s.appending.Store(0)
			}
		}
		if e.Offset != "" {
			s.saved.change(func(k *SavedState) { k.Offset = e.Offset })
		}
		if e.Ack != "" {
			_ = conn.Acknowledge(ctx, e.Ack) // a broken connection ends the loop by itself
		}
	}
	return conn.Err()
}

// afterwards is a context that ends some time after another.
func withGrace(ctx context.Context, grace time.Duration) (context.Context, context.CancelFunc) {
	lasting, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		timer := time.AfterFunc(grace, cancel)
		context.AfterFunc(lasting, func() { timer.Stop() })
	})
	return lasting, func() {
		stop()
		cancel()
	}
}

// take appends one event, unless it is none or one of ours. It fails when ctx ends,
// or when the log refuses an event that is valid.
func (s *systemLink) receive(ctx context.Context, e *sioclient.Event, state *bridge.State) error {
	t := domain.EventType(e.Name)
	if !forwards(t) {
		return nil // connection-status, or what the old system says to its browsers only
	}
	if !s.system.Wants(t) {
		state.OnPull(func(f *bridge.Flow) { f.Filtered++ })
		return nil
	}
	event, own, err := s.translate(t, e)
	switch {
	case err != nil:
		s.reporter.addRejected(e, err)
		state.OnPull(func(f *bridge.Flow) { f.Refused++ })
		return nil
	case own:
		s.reporter.count("echoes", 1)
		state.OnPull(func(f *bridge.Flow) { f.Own++ })
		return nil
	}
	appended, err := s.appendOnce(ctx, event)
	switch {
	case err == nil:
	case domain.AsError(err).Kind == domain.KindInvalid, domain.HasCode(err, domain.CodeTooManyDevices):
		s.reporter.addRejected(e, err)
		state.OnPull(func(f *bridge.Flow) { f.Refused++ })
		return nil
	default:
		return err
	}
	s.reporter.count("pulled", 1)
	state.OnPull(func(f *bridge.Flow) {
		taken := domain.ImportResult{Accepted: 1}
		if appended.Replayed {
			taken = domain.ImportResult{Duplicates: 1}
		}
		f.Moved(appended.Last(), taken)
	})
	return nil
}

// translate makes an event of ours. own says that it came from here.
func (s *systemLink) translate(t domain.EventType, e *sioclient.Event) (event domain.Event, own bool, err error) {
	if e.Binary {
		return event, false, errBinary
	}
	payload, m, err := parsePayload(e.Args)
	if err != nil {
		return event, false, err
	}
	switch {
	case m != nil && (m.Via == s.Deployment || m.Origin == s.Deployment):
		s.echoes.marked(e.Name)
		return event, true, nil
	case m == nil && s.echoes.isEcho(e.Name, payload.canonical(), time.Now()):
		return event, true, nil
	}
	if err := s.checkSystem(payload); err != nil {
		return event, false, err
	}
	if event, err = eventOf(t, s.system.System.System, payload); err != nil {
		return event, false, err
	}
	event.Actor, event.Origin = s.origin(), s.origin()
	event.ID = s.eventID(e)
	if m != nil && uuid.Validate(m.ID) == nil {
		if origin, err := domain.ParseOrigin(m.Origin); err == nil {
			event.ID, event.Origin = m.ID, origin // of another deployment on the same server
		}
	}
	return event, false, nil
}

// eventID is the same for an event that the other side sends again after a
// recovery, or over another connection to another process of ours, and new where
// nobody can tell. The offset names a broadcast; the content is there because two
// servers behind one address could give the same.
func (s *systemLink) eventID(e *sioclient.Event) string {
	if e.Offset == "" {
		return uuid.Must(uuid.NewV7()).String()
	}
	hash := sha256.New()
	for _, part := range []string{s.origin(), string(s.system.System.System), e.Offset, e.Name} {
		_, _ = io.WriteString(hash, part+"\x00") // a hash never fails
	}
	for _, arg := range e.Args {
		_, _ = hash.Write(arg)
		_, _ = io.WriteString(hash, "\x00")
	}
	sum := hash.Sum(nil)
	id := uuid.UUID(sum[:16])
	id[6] = id[6]&0x0f | 0x80 // version 8: made by a rule of our own
	id[8] = id[8]&0x3f | 0x80
	return id.String()
}

// append appends an event once, and tries until ctx ends or the log refuses it. The
// event's id is its key: what was appended already, by whichever connection, is not
// appended again. It fails with [domain.CodeTooManyDevices] for a device too many.
func (s *systemLink) appendOnce(ctx context.Context, e domain.Event) (appended domain.Appended, err error) {
	if device := e.Introduces(); device != "" && s.Quota != nil {
		admission, ended := s.Quota.Admit(ctx, e.SystemID, []domain.DeviceID{device})
		switch {
		case ended != nil:
			return appended, ended
		case admission.Refused != nil:
			return appended, admission.Refusal()
		}
		defer func() { admission.Settle(err == nil) }()
	}
	opts := domain.AppendOptions{Idempotency: &domain.Idempotency{Scope: "bridge:" + s.origin(), Key: e.ID, Fingerprint: e.ID}}
	return domain.AppendUntilDone(ctx, s.Log, []domain.Event{e}, opts, func(err error) {
		s.reporter.logger.Warn("an event from a bridge cannot be appended now; trying again", "error", err)
	})
}
