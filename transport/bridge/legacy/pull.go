package legacy

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"time"

	"github.com/google/uuid"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/bridge"
	"github.com/plugcast/plugcast/transport/bridge/legacy/sioclient"
)

var errBinary = errors.New("it has binary attachments")

// forward forwards events both ways, until the connection ends.
func (s *systemLink) forward(ctx context.Context, conn *sioclient.Conn, before SavedState, state *bridge.State) error {
	if s.system.Direction.Pulls() {
		s.reportGap(conn, before, "the server does not remember what it emitted in this time")
	}
	s.noteSession(conn, before)
	// A link that only pushes takes events off the connection too, or the connection would
	// stall. Events that came before the connection ended are appended after that.
	parts := []func(context.Context) error{func(context.Context) error { return s.pull(ctx, conn, state) }}
	out := &outbox{systemLink: s, conn: conn, state: state}
	pushDone := make(chan struct{})
	ended := func() {}
	if s.system.Direction.Pushes() {
		parts = append(parts, func(ctx context.Context) error {
			defer close(pushDone)
			return out.push(ctx)
		})
		ended = out.reportUnconfirmed
	} else {
		close(pushDone)
	}
	return s.runParts(ctx, conn, state, pushDone, ended, parts...)
}

// pull appends the events that the server emits, until the connection has ended and all of
// them are appended. When ctx ends, it has endGrace for the rest.
func (s *systemLink) pull(ctx context.Context, conn *sioclient.Conn, state *bridge.State) error {
	ctx, cancel := withGrace(ctx, endGrace)
	defer cancel()
	for e := range conn.Events() {
		if s.system.Direction.Pulls() {
			s.appending.Store(e.At.UnixNano())
			if err := s.receive(ctx, &e, state); err != nil {
				return err
			}
			if conn.Waiting() == 0 { // otherwise the waiting events are older than conn.LastHeard
				s.appending.Store(0)
			}
		}
		s.finish(ctx, conn, &e)
	}
	return conn.Err()
}

// finish notes the offset of an event that was handled, and acknowledges it if the server asks.
func (s *systemLink) finish(ctx context.Context, conn *sioclient.Conn, e *sioclient.Event) {
	if e.Offset != "" {
		s.saved.change(func(saved *SavedState) { saved.Offset = e.Offset })
	}
	if e.Ack != "" {
		_ = conn.Acknowledge(ctx, e.Ack) // if the connection is broken, conn.Events ends
	}
}

// withGrace returns a context that ends a grace period after ctx ends.
func withGrace(ctx context.Context, grace time.Duration) (context.Context, context.CancelFunc) {
	longer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		timer := time.AfterFunc(grace, cancel)
		context.AfterFunc(longer, func() { timer.Stop() })
	})
	return longer, func() {
		stop()
		cancel()
	}
}

// receive appends the event that the server emitted, unless it is none of ours to append. It
// fails only when ctx ends, or when the log refuses a valid event.
func (s *systemLink) receive(ctx context.Context, e *sioclient.Event, state *bridge.State) error {
	t := domain.EventType(e.Name)
	if !forwards(t) {
		return nil // connection-status, or another event that the server means for browsers only
	}
	if !s.system.Wants(t) {
		state.OnPull(func(f *bridge.Flow) { f.Filtered++ })
		return nil
	}
	event, own, err := s.translate(t, e)
	var appended domain.Appended
	if err == nil && !own {
		appended, err = s.appendOnce(ctx, event)
		if err != nil && domain.AsError(err).Kind != domain.KindInvalid && !domain.HasCode(err, domain.CodeTooManyDevices) {
			return err
		}
	}
	switch {
	case err != nil:
		s.reporter.addRejected(e, err)
		state.OnPull(func(f *bridge.Flow) { f.Refused++ })
	case own:
		s.reporter.count("echoes", 1)
		state.OnPull(func(f *bridge.Flow) { f.Own++ })
	default:
		result := domain.ImportResult{Accepted: 1}
		if appended.Replayed {
			result = domain.ImportResult{Duplicates: 1}
		}
		s.reporter.count("pulled", 1)
		state.OnPull(func(f *bridge.Flow) { f.Moved(appended.Last(), result) })
	}
	return nil
}

// translate converts an event of the server to one of plugcast. own reports that this
// deployment emitted it.
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
		s.echoes.setMarked(e.Name)
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
			event.ID, event.Origin = m.ID, origin // from another deployment with a link to the same server
		}
	}
	return event, false, nil
}

// eventID returns the id for an event of the server. If the event has an offset, the id is
// derived from it, so that the same event has the same id when the server sends it again
// after a recovery or over another connection; otherwise the id is new. The offset names a
// broadcast of one server; the content is hashed too, because two servers behind one address
// could use the same offset.
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

// appendOnce appends an event, and tries until ctx ends or the log refuses it. The event's id
// is the idempotency key, so that an event that another connection has appended is not
// appended again. It fails with [domain.CodeTooManyDevices] if the quota refuses the device.
func (s *systemLink) appendOnce(ctx context.Context, e domain.Event) (appended domain.Appended, err error) {
	if device := e.Introduces(); device != "" && s.Quota != nil {
		admission, ended := s.Quota.Admit(ctx, e.SystemID, []domain.DeviceID{device})
		switch {
		case ended != nil:
			return appended, ended
		case admission.Refused != nil:
			return appended, admission.Refusal()
		}
		defer func() { admission.SettleAppend(err) }()
	}
	opts := domain.AppendOptions{Idempotency: &domain.Idempotency{Scope: "bridge:" + s.origin(), Key: e.ID, Fingerprint: e.ID}}
	return domain.AppendUntilDone(ctx, s.Log, []domain.Event{e}, opts, func(err error) {
		s.reporter.logger.Warn("an event from a bridge cannot be appended; trying again", "error", err)
	})
}
