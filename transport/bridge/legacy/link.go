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
	"github.com/plugcast/plugcast/transport/bridge/socketio"
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
func New(parts Parts) bridge.Kind {
	if parts.Logger == nil {
		parts.Logger = slog.New(slog.DiscardHandler)
	}
	return func(raw bridge.Raw) (bridge.Link, error) {
		l := &link{parts: parts, sites: map[domain.SystemID]*site{}}
		if err := raw.Decode(&l.config); err != nil {
			return nil, err
		}
		if err := l.config.check(); err != nil {
			return nil, raw.Wrong(err)
		}
		raw.Bind(&l.config.Token)
		l.config.setDefaults()
		return l, nil
	}
}

// link is one server of the old system.
type link struct {
	config Config
	parts  Parts

	mu    sync.Mutex
	sites map[domain.SystemID]*site
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

// site is what this process remembers of one system of a link, from one connection
// to the next. One Run at a time has it.
type site struct {
	*link
	Parts
	system  *System
	echoes  *echoes
	journal *journal
	running chan struct{} // has a token while nobody runs it
	saving  chan struct{} // has a token while nobody saves: a later place is not overwritten by an earlier one

	loaded bool
	kept   keeping
	shadow *comparison
	taking atomic.Int64 // when the event came that is being appended, in nanoseconds; 0 when none is
}

// heardUpTo is up to when all that the other side said is taken.
func (s *site) heardUpTo(conn *socketio.Conn) time.Time {
	if at := s.taking.Load(); at != 0 {
		return time.Unix(0, at).UTC()
	}
	return conn.LastHeard().UTC()
}

// site returns what is remembered of a system.
func (l *link) site(system domain.SystemID) *site {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.sites[system]
	if s != nil {
		return s
	}
	s = &site{link: l, Parts: l.parts, echoes: newEchoes(l.config.EchoSeconds.duration()), running: make(chan struct{}, 1), saving: make(chan struct{}, 1)}
	for i := range l.config.Systems {
		if l.config.Systems[i].System.System == system {
			s.system = &l.config.Systems[i]
		}
	}
	s.journal = &journal{
		link: l.config.Name, system: system, store: l.parts.Store, counts: map[string]uint64{}, totals: map[string]uint64{},
		logger: l.parts.Logger.With("bridge", l.config.Name, "system", system),
	}
	s.running <- struct{}{}
	s.saving <- struct{}{}
	l.sites[system] = s
	return s
}

// keeping is what is kept, as it changes while a connection is open.
type keeping struct {
	mu    sync.Mutex
	now   Kept
	dirty bool
}

func (k *keeping) get() Kept {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.now
}

func (k *keeping) change(change func(*Kept)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	change(&k.now)
	k.dirty = true
}

// keepEvery is the pace at which what is remembered and reported is made durable,
// besides the moments at which it matters.
const keepEvery = time.Second

// lastWords bounds what is kept after a connection's end.
const lastWords = 5 * time.Second

// Run implements bridge.Link.
func (l *link) Run(ctx context.Context, system bridge.System, state *bridge.State) error {
	s := l.site(system.System)
	select {
	case <-s.running:
		defer func() { s.running <- struct{}{} }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := s.takeOver(ctx); err != nil {
		return err
	}
	defer func() {
		keeping, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWords)
		defer cancel()
		s.kept.change(func(k *Kept) { k.Open = false })
		s.trySave(keeping, state)
	}()
	return s.connect(ctx, state)
}

// takeOver goes on from where the link stands. Another process may have run it since
// we did, or run it still: then what that one keeps from now on is void.
func (s *site) takeOver(ctx context.Context) error {
	kept, err := s.Store.Kept(ctx, s.config.Name, s.system.System.System)
	if err != nil {
		return fmt.Errorf("legacy: what was kept of the link: %w", err)
	}
	if s.loaded && kept.Revision == s.kept.get().Revision {
		return nil // what is remembered here is at least as new
	}
	was := kept
	kept.Revision++
	if err := s.Store.Keep(ctx, s.config.Name, s.system.System.System, was.Revision, kept); err != nil {
		return fmt.Errorf("legacy: take over the link: %w", err)
	}
	s.kept.change(func(k *Kept) { *k = kept })
	s.shadow = nil // what was compared meanwhile is not known here
	s.afterCrash(was)
	s.loaded = true
	return nil
}

// afterCrash reports what a process that died may have sent without noting it.
func (s *site) afterCrash(kept Kept) {
	if kept.Open && kept.Pushed != nil && s.system.Mode == Forward && s.system.Direction.Pushes() {
		s.journal.add(domain.Finding{
			Kind: domain.FindingMaybeTwice, After: kept.Pushed,
			Detail: "the process that ran the bridge died: what followed, one page at most, may have been sent by it, and is sent again with the same id",
		})
	}
}

// connect works over one connection.
func (s *site) connect(ctx context.Context, state *bridge.State) error {
	before := s.kept.get()
	resume := socketio.Session{PID: before.PID, Offset: before.Offset}
	if s.system.Mode == Shadow && s.shadow == nil {
		resume = socketio.Session{} // what was said here meanwhile is not at hand
	}
	cfg := socketio.Config{URL: s.config.URL, Path: s.config.Path, Auth: s.auth}
	conn, err := socketio.Dial(ctx, cfg, resume)
	if refused := new(socketio.RefusedError); errors.As(err, &refused) {
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
func (s *site) auth(context.Context) (map[string]json.RawMessage, error) {
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
func (s *site) join(ctx context.Context, conn *socketio.Conn) error {
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
func (s *site) await(ctx context.Context, conn *socketio.Conn, answer <-chan []json.RawMessage) ([]json.RawMessage, error) {
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
func (s *site) gap(conn *socketio.Conn, before Kept, detail string) {
	if before.Heard.IsZero() || conn.Recovered() {
		return
	}
	from, to := before.Heard, time.Now().UTC().Truncate(time.Microsecond)
	s.journal.add(domain.Finding{Kind: domain.FindingGap, From: &from, To: &to, Detail: detail})
}

// begin notes the new session, so that a resumption asks for the right one.
func (s *site) begin(conn *socketio.Conn, before Kept) {
	session := conn.Session("")
	s.taking.Store(0)
	s.kept.change(func(k *Kept) {
		if session.PID != before.PID {
			k.PID, k.Offset = session.PID, ""
		}
		k.Heard, k.Open = conn.LastHeard().UTC(), true
	})
}

// alongside runs the parts of a connection's work until one of them ends, and the
// others have ended after it. All of them get a context that ends then. The
// connection is closed when last is; then ended is called, and what it reports is
// kept: the parts may still work for long on what came.
func (s *site) alongside(ctx context.Context, conn *socketio.Conn, state *bridge.State, last <-chan struct{}, ended func(), parts ...func(context.Context) error) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, part := range parts {
		group.Go(func() error {
			if err := isolate.Run(s.journal.logger, bridge.Where, func() error { return part(ctx) }); err != nil {
				return err
			}
			if err := conn.Err(); err != nil {
				return err
			}
			return ctx.Err()
		})
	}
	group.Go(func() error {
		ticker := time.NewTicker(keepEvery)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				heard := s.heardUpTo(conn)
				s.kept.change(func(k *Kept) { k.Heard = heard })
				s.trySave(ctx, state)
			case <-ctx.Done():
				late := time.AfterFunc(2*syncFor, conn.Abort) // the server may read nothing any more
				<-last
				late.Stop()
				conn.Close() // ends the parts that wait for it
				ended()
				keeping, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWords)
				defer cancel()
				s.trySave(keeping, state)
				return ctx.Err()
			}
		}
	})
	err := group.Wait()
	heard := s.heardUpTo(conn)
	s.kept.change(func(k *Kept) { k.Heard = heard })
	return err
}

// save makes durable what is remembered and reported. It fails when what is
// remembered is not kept; what is reported waits.
func (s *site) save(ctx context.Context, state *bridge.State) error {
	select {
	case <-s.saving:
		defer func() { s.saving <- struct{}{} }()
	case <-ctx.Done():
		return ctx.Err()
	}
	s.kept.mu.Lock()
	now, dirty := s.kept.now, s.kept.dirty
	s.kept.dirty = false
	s.kept.mu.Unlock()
	var err error
	if dirty {
		if err = s.Store.Keep(ctx, s.config.Name, s.system.System.System, now.Revision, now); err != nil {
			s.kept.change(func(*Kept) {}) // try again
			err = fmt.Errorf("legacy: keep where the link stands: %w", err)
		}
	}
	s.journal.keep(ctx)
	state.SetDetail(s.journal.status())
	return err
}

// trySave saves where that may wait: what comes in is taken meanwhile.
func (s *site) trySave(ctx context.Context, state *bridge.State) {
	switch err := s.save(ctx, state); {
	case errors.Is(err, ErrSuperseded): // we are going to be told to end
	case err != nil && ctx.Err() == nil:
		s.journal.logger.Warn("where a bridge stands cannot be kept now", "error", err)
	}
}
