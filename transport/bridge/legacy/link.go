package legacy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/domain/isolate"
	"github.com/plugcast/plugcast/transport/bridge"
	"github.com/plugcast/plugcast/transport/bridge/legacy/sioclient"
)

// Parts are what links stand on. All but Quota and Logger are required.
type Parts struct {
	Deployment string          // the id of ours
	Log        domain.Appender // where events that come in are appended
	Reader     bridge.Reader
	Store      Store
	Quota      domain.DeviceQuota // nil admits every device
	Logger     *slog.Logger
}

// New makes the kind.
func New(parts Parts) bridge.Factory {
	if parts.Logger == nil {
		parts.Logger = slog.New(slog.DiscardHandler)
	}
	return func(raw bridge.Raw) (bridge.Link, error) {
		l := &link{parts: parts, systems: map[domain.SystemID]*systemLink{}}
		if err := raw.Decode(&l.config); err != nil {
			return nil, err
		}
		if err := l.config.check(); err != nil {
			return nil, raw.AtPath(err)
		}
		raw.BindToken(&l.config.Token)
		l.config.setDefaults()
		return l, nil
	}
}

// link is one server of the old system.
type link struct {
	config Config
	parts  Parts

	mu      sync.Mutex
	systems map[domain.SystemID]*systemLink
}

var _ bridge.Link = (*link)(nil)

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

// origin is where events that come over the link are from.
func (l *link) origin() string { return Kind + ":" + l.config.Name }

// systemLink is what this process remembers of one system of a link, from one connection
// to the next. One Run at a time has it.
type systemLink struct {
	*link
	Parts
	system   *System
	echoes   *echoes
	reporter *reporter
	runLock  chan struct{} // has a token while nobody runs it
	saveLock chan struct{} // has a token while nobody saves: a later place is not overwritten by an earlier one

	loaded     bool
	saved      currentState
	comparison *comparison
	appending  atomic.Int64 // when the event came that is being appended, in nanoseconds; 0 when none is
}

// heardUntil is up to when all that the other side said is taken.
func (s *systemLink) heardUntil(conn *sioclient.Conn) time.Time {
	if at := s.appending.Load(); at != 0 {
		return time.Unix(0, at).UTC()
	}
	return conn.LastHeard().UTC()
}

// systemLink returns what is remembered of a system.
func (l *link) systemLink(system domain.SystemID) *systemLink {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.systems[system]
	if s != nil {
		return s
	}
	s = &systemLink{link: l, Parts: l.parts, echoes: newEchoes(l.config.EchoSeconds.duration()), runLock: make(chan struct{}, 1), saveLock: make(chan struct{}, 1)}
	for i := range l.config.Systems {
		if l.config.Systems[i].System.System == system {
			s.system = &l.config.Systems[i]
		}
	}
	s.reporter = &reporter{
		link: l.config.Name, system: system, store: l.parts.Store, counts: map[string]uint64{}, totals: map[string]uint64{},
		logger: l.parts.Logger.With("bridge", l.config.Name, "system", system),
	}
	s.runLock <- struct{}{}
	s.saveLock <- struct{}{}
	l.systems[system] = s
	return s
}

// keeping is what is kept, as it changes while a connection is open.
type currentState struct {
	mu    sync.Mutex
	now   SavedState
	dirty bool
}

func (k *currentState) get() SavedState {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.now
}

func (k *currentState) change(change func(*SavedState)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	change(&k.now)
	k.dirty = true
}

// saveEvery is the pace at which what is remembered and reported is made durable,
// besides the moments at which it matters.
const saveEvery = time.Second

// endGrace bounds what is kept after a connection's end.
const endGrace = 5 * time.Second

// Run implements bridge.Link.
func (l *link) Run(ctx context.Context, system bridge.System, state *bridge.State) error {
	s := l.systemLink(system.System)
	select {
	case <-s.runLock:
		defer func() { s.runLock <- struct{}{} }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := s.takeOver(ctx); err != nil {
		return err
	}
	defer func() {
		keeping, cancel := context.WithTimeout(context.WithoutCancel(ctx), endGrace)
		defer cancel()
		s.saved.change(func(k *SavedState) { k.Open = false })
		s.trySave(keeping, state)
	}()
	return s.connect(ctx, state)
}

// takeOver goes on from where the link stands. Another process may have run it since
// we did, or run it still: then what that one keeps from now on is void.
func (s *systemLink) takeOver(ctx context.Context) error {
	kept, err := s.Store.LoadState(ctx, s.config.Name, s.system.System.System)
	if err != nil {
		return fmt.Errorf("legacy: what was kept of the link: %w", err)
	}
	if s.loaded && kept.Revision == s.saved.get().Revision {
		return nil // what is remembered here is at least as new
	}
	was := kept
	kept.Revision++
	if err := s.Store.SaveState(ctx, s.config.Name, s.system.System.System, was.Revision, kept); err != nil {
		return fmt.Errorf("legacy: take over the link: %w", err)
	}
	s.saved.change(func(k *SavedState) { *k = kept })
	s.comparison = nil // what was compared meanwhile is not known here
	s.afterCrash(was)
	s.loaded = true
	return nil
}

// afterCrash reports what a process that died may have sent without noting it.
func (s *systemLink) afterCrash(kept SavedState) {
	if kept.Open && kept.Pushed != nil && s.system.Mode == Forward && s.system.Direction.Pushes() {
		s.reporter.add(domain.Finding{
			Kind: domain.FindingMaybeTwice, After: kept.Pushed,
			Detail: "the process that ran the bridge died: what followed, one page at most, may have been sent by it, and is sent again with the same id",
		})
	}
}

// connect works over one connection.
func (s *systemLink) connect(ctx context.Context, state *bridge.State) error {
	before := s.saved.get()
	resume := sioclient.Session{PID: before.PID, Offset: before.Offset}
	if s.system.Mode == Shadow && s.comparison == nil {
		resume = sioclient.Session{} // what was said here meanwhile is not at hand
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

// auth is what goes with the CONNECT packet.
func (s *systemLink) auth(context.Context) (map[string]json.RawMessage, error) {
	auth := make(map[string]json.RawMessage, len(s.config.Auth)+1)
	for name, value := range s.config.Auth {
		auth[name] = value
	}
	if s.config.Token.File != "" || s.config.Token.Env != "" {
		token, err := s.config.Token.Read()
		if err != nil {
			return nil, err
		}
		auth["token"] = quoted(token)
	}
	return auth, nil
}

// join asks for the system's room. An answer that says no is a refusal.
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
		if why, refused := refusal(args); refused {
			err = errors.Join(bridge.ErrRefused, fmt.Errorf("legacy: %s: %s", s.config.Join.Event, why))
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
		case args := <-answer: // it came just before the end
			return args, nil
		default:
		}
		return nil, conn.Err()
	case <-timer.C:
		return nil, errors.New("legacy: the server does not acknowledge")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// refusal reads an acknowledgement: {ok:false} or {error:…} say that the server
// did not take the event. Anything else says that it did.
func refusal(args []json.RawMessage) (why string, refused bool) {
	var said struct {
		OK    *bool           `json:"ok"`
		Error json.RawMessage `json:"error"`
	}
	if len(args) == 0 || json.Unmarshal(args[0], &said) != nil {
		return "", false
	}
	if (said.OK == nil || *said.OK) && (len(said.Error) == 0 || isNull(said.Error)) {
		return "", false
	}
	return "the server says " + domain.TruncateText(string(args[0]), maxDetail), true
}

// gap reports that the other side was not heard since it was last, if that is so.
func (s *systemLink) reportGap(conn *sioclient.Conn, before SavedState, detail string) {
	if before.Heard.IsZero() || conn.Recovered() {
		return
	}
	from, to := before.Heard, time.Now().UTC().Truncate(time.Microsecond)
	s.reporter.add(domain.Finding{Kind: domain.FindingGap, From: &from, To: &to, Detail: detail})
}

// begin notes the new session, so that a resumption asks for the right one.
func (s *systemLink) noteSession(conn *sioclient.Conn, before SavedState) {
	session := conn.Session("")
	s.appending.Store(0)
	s.saved.change(func(k *SavedState) {
		if session.PID != before.PID {
			k.PID, k.Offset = session.PID, ""
		}
		k.Heard, k.Open = conn.LastHeard().UTC(), true
	})
}

// runParts runs the parts of a connection's work until one of them ends, and the
// others have ended after it. All of them get a context that ends then. The
// connection is closed when last is; then ended is called, and what it reports is
// kept: the parts may still work for long on what came.
func (s *systemLink) runParts(ctx context.Context, conn *sioclient.Conn, state *bridge.State, last <-chan struct{}, ended func(), parts ...func(context.Context) error) error {
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
				heard := s.heardUntil(conn)
				s.saved.change(func(k *SavedState) { k.Heard = heard })
				s.trySave(ctx, state)
			case <-ctx.Done():
				late := time.AfterFunc(2*syncFor, conn.Abort) // the server may read nothing any more
				<-last
				late.Stop()
				conn.Close() // ends the parts that wait for it
				ended()
				keeping, cancel := context.WithTimeout(context.WithoutCancel(ctx), endGrace)
				defer cancel()
				s.trySave(keeping, state)
				return ctx.Err()
			}
		}
	})
	err := group.Wait()
	heard := s.heardUntil(conn)
	s.saved.change(func(k *SavedState) { k.Heard = heard })
	return err
}

// save makes durable what is remembered and reported. It fails when what is
// remembered is not kept; what is reported waits.
func (s *systemLink) save(ctx context.Context, state *bridge.State) error {
	select {
	case <-s.saveLock:
		defer func() { s.saveLock <- struct{}{} }()
	case <-ctx.Done():
		return ctx.Err()
	}
	s.saved.mu.Lock()
	now, dirty := s.saved.now, s.saved.dirty
	s.saved.dirty = false
	s.saved.mu.Unlock()
	var err error
	if dirty {
		if err = s.Store.SaveState(ctx, s.config.Name, s.system.System.System, now.Revision, now); err != nil {
			s.saved.change(func(*SavedState) {}) // try again
			err = fmt.Errorf("legacy: keep where the link stands: %w", err)
		}
	}
	s.reporter.flush(ctx)
	state.SetDetail(s.reporter.detail())
	return err
}

// trySave saves where that may wait: what comes in is taken meanwhile.
func (s *systemLink) trySave(ctx context.Context, state *bridge.State) {
	switch err := s.save(ctx, state); {
	case errors.Is(err, ErrSuperseded): // we are going to be told to end
	case err != nil && ctx.Err() == nil:
		s.reporter.logger.Warn("where a bridge stands cannot be kept now", "error", err)
	}
}
