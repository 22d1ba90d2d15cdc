package cloud

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/domain/backoff"
	"github.com/plugcast/plugcast/domain/isolate"
	"github.com/plugcast/plugcast/transport/shelly"
)

// actor holds one credential's socket. One goroutine runs it and owns all of it but
// what mu guards and the atomics.
type actor struct {
	cfg    Config
	parts  Parts
	conn   shelly.Connection
	logger *slog.Logger
	http   *http.Client
	gates  *gates
	out    *outbox

	given    Secret // to begin with
	secret   Secret
	rejected bool // the access token was refused
	retried  bool // it was renewed for that, and has been of no use since
	doubted  bool // the last socket closed before it was of use: ask whether it was for the token
	said     domain.ConnectionState
	retry    backoff.Backoff
	trid     int64 // of the last request; unlike that of any actor before

	rows    map[domain.DeviceID][]*domain.Device // by base id, as loaded
	devices map[domain.DeviceID]*held

	open  atomic.Bool  // there is a socket
	phase atomic.Value // domain.ConnectionState, for metrics

	corrected chan correction

	mu       sync.Mutex
	known    map[domain.DeviceID]standing // by base id
	requests chan request
	live     bool   // requests are taken
	word     string // why they are not
}

// correction is rows of a device after its energy was corrected.
type correction struct {
	base domain.DeviceID
	rows []*domain.Device
}

func newActor(cfg Config, parts Parts, c Connection, secret Secret, client *http.Client, gates *gates) *actor {
	logger := parts.Logger.With("system", c.System, "connection", c.ID)
	a := &actor{
		cfg: cfg, parts: parts, conn: c.Connection, logger: logger, http: client, gates: gates,
		out: newOutbox(parts.Events, c.Connection, logger), given: secret, secret: secret, said: c.State, retry: newBackoff(cfg),
		trid: rand.Int64N(1 << 40), devices: map[domain.DeviceID]*held{}, known: map[domain.DeviceID]standing{},
		requests: make(chan request, maxRequests), word: wordDown, corrected: make(chan correction, maxRequests),
	}
	a.phase.Store(domain.StateDisconnected)
	return a
}

// run goes on until ctx ends, or the log refuses what it is given for good. It leaves
// nothing behind that runs.
func (a *actor) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	var appending sync.WaitGroup
	defer appending.Wait()
	defer cancel()
	said := a.said
	appending.Go(func() {
		defer cancel()
		isolate.Do(a.logger, where, func() { a.out.run(ctx, said) })
	})
	if !a.load(ctx) {
		return
	}
	for ctx.Err() == nil {
		end := a.attempt(ctx)
		if ctx.Err() != nil {
			return
		}
		switch {
		case end.redial:
		case end.refused || end.rejected && a.retried && !end.lapsed:
			a.refuse(ctx, end.reason)
			return
		case end.rejected:
			a.rejected, a.retried = true, true
			if a.said == domain.StateConnected {
				a.become(domain.StateDisconnected, end.reason)
			}
			fresh := a.retry.Fresh()
			if wait := a.retry.Next(); !fresh { // once at once: it may be nothing but the token's end
				_ = backoff.Sleep(ctx, wait)
			}
		default:
			a.become(domain.StateDisconnected, end.reason)
			_ = a.retry.Wait(ctx)
		}
	}
}

// load reads what is known of the connection's devices, until it can.
func (a *actor) load(ctx context.Context) bool {
	retry := a.retry
	for {
		devices, err := a.parts.Store.Devices(ctx, a.conn.System, a.conn.ID)
		if err == nil {
			a.rows = map[domain.DeviceID][]*domain.Device{}
			a.mu.Lock()
			for _, d := range devices {
				base := baseOf(d.DeviceID)
				a.rows[base] = append(a.rows[base], d)
				a.known[base] = byRow
			}
			a.mu.Unlock()
			return true
		}
		if ctx.Err() == nil {
			a.logger.Error("the connection's devices cannot be loaded", "error", err)
		}
		if retry.Wait(ctx) != nil {
			return false
		}
	}
}

// ending is how an attempt ended.
type ending struct {
	redial   bool // we closed it to open another
	rejected bool // the token is not taken
	lapsed   bool // its time was up by then, which says nothing of the credential
	refused  bool // the credential is no good
	reason   string
	err      error // for the log
}

// dropped is an ending that is nobody's fault.
func dropped(reason string, err error) ending { return ending{reason: reason, err: err} }

// The reasons of a connection's state, for people.
const (
	reasonUnreachable = "the Shelly Cloud cannot be reached"
	reasonDropped     = "the socket was closed"
	reasonNoPong      = "no answer to two pings"
	reasonStalled     = "the log does not keep up"
	reasonRejected    = "the Shelly Cloud does not take the token"
	reasonStopped     = "stopped"
)

// attempt opens a socket and stays with it until it ends.
func (a *actor) attempt(ctx context.Context) (end ending) {
	g, err := a.authorise(ctx)
	var refused *refusal
	switch {
	case errors.As(err, &refused):
		return ending{refused: true, reason: refused.reason}
	case err != nil:
		return a.ended(dropped(reasonUnreachable, err))
	}
	defer func() { end.lapsed = end.rejected && !g.alive(time.Now()) }()
	if a.doubted {
		if rejects(a.probe(ctx, g)) {
			return a.ended(ending{rejected: true, reason: reasonRejected})
		}
		a.doubted = false
	}
	socket, err := dial(ctx, a.cfg, g, a.secret, a.logger)
	switch {
	case errors.Is(err, errRejected):
		return a.ended(ending{rejected: true, reason: reasonRejected, err: err})
	case err != nil:
		return a.ended(dropped(reasonUnreachable, err))
	}
	a.open.Store(true)
	defer a.open.Store(false)
	opened := time.Now()
	s := newSession(a, socket, g)
	end = s.run(ctx)
	lasted := time.Since(opened)
	a.retry.Lasted(lasted)
	if s.synced {
		a.retried = false
	}
	// A token that has ended may be let in and thrown out moments later (measured).
	a.doubted = !end.redial && !end.rejected && !s.synced
	return a.ended(end)
}

// probe asks by HTTP whether the token is taken.
func (a *actor) probe(ctx context.Context, g grant) error {
	account, done := a.account(g.user)
	defer done()
	_, err := account.allStatus(ctx, g.at, g.token)
	return err
}

func rejects(err error) bool {
	var answer *httpError
	return errors.As(err, &answer) && answer.refuses()
}

// ended logs an ending: the first of a row aloud.
func (a *actor) ended(e ending) ending {
	level := slog.LevelDebug
	if a.said != domain.StateDisconnected {
		level = slog.LevelInfo
	}
	text := ""
	if e.err != nil {
		text = a.secret.scrub(e.err.Error())
	}
	a.logger.Log(context.Background(), level, "the socket to the Shelly Cloud ended", "reason", e.reason, "planned", e.redial, "error", text)
	return e
}

// become says what the connection's state is, when it is another than was said.
func (a *actor) become(state domain.ConnectionState, reason string) {
	a.phase.Store(state)
	if a.said == state {
		return
	}
	a.said = state
	a.out.push(job{state: a.changed(state, reason)})
}

func (a *actor) changed(state domain.ConnectionState, reason string) *domain.ConnectionStateChanged {
	const most = 512 // bytes; the cloud's own words may be in it
	return &domain.ConnectionStateChanged{ConnectionID: a.conn.ID, State: state, Reason: domain.CutText(reason, most)}
}

// refuse waits for the end: only a new credential, or a command, starts another
// actor.
func (a *actor) refuse(ctx context.Context, reason string) {
	a.mu.Lock()
	a.word = wordRefused
	a.mu.Unlock()
	a.logger.Warn("the credential is refused", "reason", reason)
	a.become(domain.StateRefused, reason)
	<-ctx.Done()
}

// isKnown reports whether a device was seen on this account, or is by its row.
func (a *actor) isKnown(base domain.DeviceID) bool {
	return a.standingOf(base) != stranger
}

// standing is how the actor stands to a device that it knows.
type standing int

const (
	stranger standing = iota
	byRow             // it came through this connection before; its rows are loaded
	onAccount
	left // it was on the account
)

// standingOf says how the actor stands to a device.
func (a *actor) standingOf(base domain.DeviceID) standing {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.known[base]
}

func (a *actor) setStanding(base domain.DeviceID, to standing) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.known[base] = to
}

// state is what the actor's socket does, for metrics.
func (a *actor) state() domain.ConnectionState {
	state, _ := a.phase.Load().(domain.ConnectionState)
	return state
}

// channelsOf returns the rows of devices that are not held yet.
func (a *actor) channelsOf(ctx context.Context, all allStatus) (map[domain.DeviceID][]*domain.Device, error) {
	rows := map[domain.DeviceID][]*domain.Device{}
	for _, d := range all.devices {
		id := d.id.Resolve(a.isKnown)
		if at := a.standingOf(id); at == byRow || at == onAccount {
			continue
		}
		known, err := a.parts.Known.Channels(ctx, a.conn.System, id)
		if err != nil {
			return nil, fmt.Errorf("cloud: look up device: %w", err)
		}
		rows[id] = known
	}
	return rows, nil
}
