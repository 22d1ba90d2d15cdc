package legacy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/domain/isolate"
	"github.com/plugcast/plugcast/transport/bridge"
	"github.com/plugcast/plugcast/transport/bridge/legacy/sioclient"
)

// Parts are the dependencies of links. All but Quota and Logger are required.
type Parts struct {
	Deployment string          // id of this deployment
	Log        domain.Appender // gets the events that come in
	Reader     bridge.Reader
	Store      Store
	Quota      domain.DeviceQuota // nil admits every device
	Logger     *slog.Logger
}

// New returns the factory of links of this kind.
func New(parts Parts) bridge.Factory {
	if parts.Logger == nil {
		parts.Logger = slog.New(slog.DiscardHandler)
	}
	return func(raw bridge.Raw) (bridge.Link, error) {
		var c Config
		if err := raw.Decode(&c); err != nil {
			return nil, err
		}
		if err := c.check(); err != nil {
			return nil, raw.AtPath(err)
		}
		raw.BindToken(&c.Token)
		return newLink(c, parts), nil
	}
}

// link is a link to one server.
type link struct {
	Parts
	config  Config
	systems map[domain.SystemID]*systemLink
}

var _ bridge.Link = (*link)(nil)

func newLink(c Config, parts Parts) *link {
	c.setDefaults()
	l := &link{Parts: parts, config: c, systems: map[domain.SystemID]*systemLink{}}
	for i := range l.config.Systems {
		system := &l.config.Systems[i]
		l.systems[system.System.System] = &systemLink{
			link: l, system: system, echoes: newEchoes(c.EchoSeconds.duration()),
			reporter: &reporter{
				link: c.Name, system: system.System.System, store: parts.Store, counts: map[string]uint64{}, totals: map[string]uint64{},
				logger: parts.Logger.With("bridge", c.Name, "system", system.System.System),
			},
			runLock: make(chan struct{}, 1), saveLock: make(chan struct{}, 1),
		}
	}
	return l
}

// Name implements bridge.Link.
func (l *link) Name() string { return l.config.Name }

// Kind implements bridge.Link.
func (l *link) Kind() string { return Kind }

// Systems implements bridge.Link.
func (l *link) Systems() []bridge.System {
	systems := make([]bridge.System, len(l.config.Systems))
	for i, s := range l.config.Systems {
		systems[i] = s.System
	}
	return systems
}

// origin is the origin of the events that come over the link.
func (l *link) origin() string { return Kind + ":" + l.config.Name }

// systemLink is one system of a link. It outlives connections, and one Run at a time uses it.
type systemLink struct {
	*link
	system   *System
	echoes   *echoes
	reporter *reporter
	runLock  chan struct{} // held by Run; a channel, so that waiting for it can end
	saveLock chan struct{} // held by save, so that an earlier state never replaces a later one

	loaded       bool
	saved        currentState
	comparison   *comparison
	lossReported *domain.Position // see reportLogLoss
	appending    atomic.Int64     // when the event arrived that is being appended, in nanoseconds; 0 if there is none
}

// heardUntil returns the time up to which everything that the server emitted is appended.
func (s *systemLink) heardUntil(conn *sioclient.Conn) time.Time {
	if at := s.appending.Load(); at != 0 {
		return time.Unix(0, at).UTC()
	}
	return conn.LastHeard().UTC()
}

// saveEvery is the interval of saves, in addition to those that must come before an emission.
const saveEvery = time.Second

// endGrace bounds the work after a connection's end: the last appends, and the last save.
const endGrace = 5 * time.Second

// Run implements bridge.Link.
func (l *link) Run(ctx context.Context, system bridge.System, state *bridge.State) error {
	s := l.systems[system.System]
	select {
	case s.runLock <- struct{}{}:
		defer func() { <-s.runLock }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := s.takeOver(ctx); err != nil {
		return err
	}
	defer func() {
		s.saved.change(func(saved *SavedState) { saved.Open = false })
		s.saveLast(ctx, state)
	}()
	return s.connect(ctx, state)
}

// takeOver loads the saved state. If another process has run the link since this one did, or
// still runs it, takeOver increments the revision, so that the other process's saves fail.
func (s *systemLink) takeOver(ctx context.Context) error {
	stored, err := s.Store.LoadState(ctx, s.config.Name, s.system.System.System)
	if err != nil {
		return fmt.Errorf("legacy: load the state of the link: %w", err)
	}
	if s.loaded && stored.Revision == s.saved.get().Revision {
		return nil // the state in memory is at least as new
	}
	next := stored
	next.Revision++
	if err := s.Store.SaveState(ctx, s.config.Name, s.system.System.System, stored.Revision, next); err != nil {
		return fmt.Errorf("legacy: take over the link: %w", err)
	}
	s.saved.change(func(saved *SavedState) { *saved = next })
	s.comparison = nil // it lacks what the other process compared
	s.reportCrash(stored)
	s.loaded = true
	return nil
}

// reportCrash reports that the process that saved the state died with an open connection,
// and may have emitted events that the state does not cover.
func (s *systemLink) reportCrash(stored SavedState) {
	if stored.Open && stored.Pushed != nil && s.system.Mode == Forward && s.system.Direction.Pushes() {
		s.reporter.add(domain.Finding{
			Kind: domain.FindingMaybeTwice, After: stored.Pushed,
			Detail: "the process that ran the bridge died; it may have sent the next events, one page at most; " +
				"they are sent again with the same ids",
		})
	}
}

// connect opens one connection and works over it until it ends.
func (s *systemLink) connect(ctx context.Context, state *bridge.State) error {
	before := s.saved.get()
	resume := sioclient.Session{PID: before.PID, Offset: before.Offset}
	if s.system.Mode == Shadow && s.comparison == nil {
		resume = sioclient.Session{} // the comparison has lost our side of the time to recover
	}
	cfg := sioclient.Config{URL: s.config.URL, Path: s.config.Path, Auth: s.auth}
	conn, err := sioclient.Dial(ctx, cfg, resume)
	if refused := new(sioclient.RefusedError); errors.As(err, &refused) {
		return errors.Join(bridge.ErrRefused, errors.New(domain.TruncateText(refused.Message, maxDetail)))
	}
	if err != nil {
		return err
	}
	defer conn.Close()
	if !conn.Recovered() {
		if err := s.join(ctx, conn); err != nil {
			return err
		}
	}
	state.Connected(conn.SocketID())
	work := s.forward
	if s.system.Mode == Shadow {
		work = s.compare
	}
	return work(ctx, conn, before, state)
}

// auth returns the payload of the CONNECT packet.
func (s *systemLink) auth(context.Context) (map[string]json.RawMessage, error) {
	auth := make(map[string]json.RawMessage, len(s.config.Auth)+1)
	maps.Copy(auth, s.config.Auth)
	if s.config.Token.File != "" || s.config.Token.Env != "" {
		token, err := s.config.Token.Read()
		if err != nil {
			return nil, err
		}
		auth["token"] = quoted(token)
	}
	return auth, nil
}

// join joins the system's room. It fails with [bridge.ErrRefused] if the server refuses.
func (s *systemLink) join(ctx context.Context, conn *sioclient.Conn) error {
	argument := s.config.joinArgument(s.system)
	if !s.config.Join.Acknowledged {
		return conn.Emit(ctx, s.config.Join.Event, argument)
	}
	answer, err := conn.EmitAck(ctx, s.config.Join.Event, argument)
	if err != nil {
		return err
	}
	args, err := s.await(ctx, conn, answer)
	if err == nil {
		if reason, refused := refusal(args); refused {
			err = errors.Join(bridge.ErrRefused, fmt.Errorf("legacy: %s: %s", s.config.Join.Event, reason))
		}
	}
	return err
}

// await waits for an acknowledgement.
func (s *systemLink) await(ctx context.Context, conn *sioclient.Conn, answer <-chan []json.RawMessage) ([]json.RawMessage, error) {
	timer := time.NewTimer(s.config.AckSeconds.duration())
	defer timer.Stop()
	select {
	case args := <-answer:
		return args, nil
	case <-conn.Done():
		select {
		case args := <-answer: // it arrived just before the end
			return args, nil
		default:
		}
		return nil, conn.Err()
	case <-timer.C:
		return nil, errors.New("legacy: the server did not acknowledge in time")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// refusal reads an acknowledgement. {ok:false} and {error:…} say that the server refused the
// event; any other says that it took it.
func refusal(args []json.RawMessage) (reason string, refused bool) {
	var answer struct {
		OK    *bool           `json:"ok"`
		Error json.RawMessage `json:"error"`
	}
	if len(args) == 0 || json.Unmarshal(args[0], &answer) != nil {
		return "", false
	}
	if (answer.OK == nil || *answer.OK) && (len(answer.Error) == 0 || isNull(answer.Error)) {
		return "", false
	}
	return "the server answered " + domain.TruncateText(string(args[0]), maxDetail), true
}

// reportGap reports the time since the last connection, unless the server sends what it
// emitted in that time.
func (s *systemLink) reportGap(conn *sioclient.Conn, before SavedState, detail string) {
	if before.Heard.IsZero() || conn.Recovered() {
		return
	}
	from, to := before.Heard, time.Now().UTC().Truncate(time.Microsecond)
	s.reporter.add(domain.Finding{Kind: domain.FindingGap, From: &from, To: &to, Detail: detail})
}

// noteSession notes the connection's session in the state, for the next connection to resume.
func (s *systemLink) noteSession(conn *sioclient.Conn, before SavedState) {
	session := conn.Session("")
	s.appending.Store(0)
	s.saved.change(func(saved *SavedState) {
		if session.PID != before.PID {
			saved.PID, saved.Offset = session.PID, ""
		}
		saved.Heard, saved.Open = conn.LastHeard().UTC(), true
	})
}

// noteHeard notes in the state up to when everything is appended.
func (s *systemLink) noteHeard(conn *sioclient.Conn) {
	heard := s.heardUntil(conn)
	s.saved.change(func(saved *SavedState) { saved.Heard = heard })
}

// runParts runs the parts of a connection's work, and saves regularly, until one part ends;
// then it cancels the context of the others and waits for them. It closes the connection
// once pushDone is closed, calls ended, and saves at once what ended reports: the other
// parts may take long to handle the events that came before.
func (s *systemLink) runParts(
	ctx context.Context, conn *sioclient.Conn, state *bridge.State, pushDone <-chan struct{}, ended func(),
	parts ...func(context.Context) error,
) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, part := range parts {
		group.Go(func() error {
			if err := isolate.Run(s.reporter.logger, bridge.Component, func() error { return part(ctx) }); err != nil {
				return err
			}
			if err := conn.Err(); err != nil {
				return err
			}
			return ctx.Err()
		})
	}
	group.Go(func() error {
		ticker := time.NewTicker(saveEvery)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				s.noteHeard(conn)
				s.trySave(ctx, state)
			case <-ctx.Done():
				abort := time.AfterFunc(2*syncTimeout, conn.Abort) // the server may have stopped reading
				<-pushDone
				abort.Stop()
				conn.Close() // ends the parts that wait for the connection
				ended()
				s.saveLast(ctx, state)
				return ctx.Err()
			}
		}
	})
	err := group.Wait()
	s.noteHeard(conn)
	return err
}

// save stores the state and the report. It fails if the state cannot be stored; the report
// waits for the next save.
func (s *systemLink) save(ctx context.Context, state *bridge.State) error {
	select {
	case s.saveLock <- struct{}{}:
		defer func() { <-s.saveLock }()
	case <-ctx.Done():
		return ctx.Err()
	}
	var err error
	if current, dirty := s.saved.clean(); dirty {
		if err = s.Store.SaveState(ctx, s.config.Name, s.system.System.System, current.Revision, current); err != nil {
			s.saved.change(func(*SavedState) {}) // dirty again
			err = fmt.Errorf("legacy: save the state of the link: %w", err)
		}
	}
	s.reporter.flush(ctx)
	state.SetDetail(s.reporter.detail())
	return err
}

// trySave saves at a moment when that may fail: the next save covers it.
func (s *systemLink) trySave(ctx context.Context, state *bridge.State) {
	switch err := s.save(ctx, state); {
	case errors.Is(err, ErrSuperseded): // ctx is about to end
	case err != nil && ctx.Err() == nil:
		s.reporter.logger.Warn("the state of a bridge cannot be saved; trying again", "error", err)
	}
}

// saveLast is trySave after the end of ctx.
func (s *systemLink) saveLast(ctx context.Context, state *bridge.State) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endGrace)
	defer cancel()
	s.trySave(ctx, state)
}
