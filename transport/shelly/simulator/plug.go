package simulator

import (
	"cmp"
	"context"
	"errors"
	"hash/fnv"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"

	"github.com/plugcast/plugcast/domain"
)

// PlugConfig says what a plug is and does. The zero value of a field is its default.
type PlugConfig struct {
	ID               domain.DeviceID // of the device, without a channel
	Name             string          // as its owner calls it; none is null
	Model            string          // default S3PL-00112EU, a Plug S Gen3
	Channels         int             // relays; default 1
	Unmetered        bool            // it measures nothing, and has no beat
	Seed             uint64          // of everything that is random in it, mixed with ID
	Watts            float64         // what a channel draws when on; default random, 40 to 2000
	Beat             time.Duration   // how often meters are reported; default 1 minute
	ChangesPerMinute float64         // of itself: power wavers and relays flip; 0 is never
	StaleFor         time.Duration   // see [Plug.SetStaleOutput]; default 2 s
	RetryMin         time.Duration   // before the first new dial, doubled with each and jittered; default 1 s
	RetryMax         time.Duration   // default 30 s
	Logger           *slog.Logger    // default none
}

func (c *PlugConfig) setDefaults() {
	c.Model = cmp.Or(c.Model, "S3PL-00112EU")
	c.Channels = max(c.Channels, 1)
	c.Beat = cmp.Or(max(c.Beat, 0), time.Minute)
	c.StaleFor = cmp.Or(max(c.StaleFor, 0), 2*time.Second)
	c.RetryMin = cmp.Or(max(c.RetryMin, 0), time.Second)
	c.RetryMax = max(cmp.Or(max(c.RetryMax, 0), 30*time.Second), c.RetryMin)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
}

// Plug is a simulated plug of the second generation or later, which dials a
// server over the outbound WebSocket (Ws). Its relays are on at first. All
// methods are safe for concurrent use, before, during and after [Plug.Run], and
// none of them waits for the network.
type Plug struct {
	cfg PlugConfig
	mac string // twelve hex digits in upper case

	wake      chan struct{} // tells Run to look again
	running   atomic.Bool
	connected atomic.Bool
	dials     atomic.Uint64
	refusals  atomic.Uint64
	refused   atomic.Int64
	problem   atomic.Pointer[error]
	sent      atomic.Uint64

	// Of the goroutine of Run alone.
	timer *time.Timer
	ghost *websocket.Conn // left open by a power cut

	mu       sync.Mutex // never held across I/O
	rng      *rand.Rand
	channels []plugChannel
	plans    []plugPlan
	voltage  float64
	booted   time.Time
	rebooted bool // since it was made
	synced   bool // it knows what time it is
	skew     time.Duration
	powered  bool
	sleep    time.Duration // between two moments awake; 0 for a plug that does not sleep
	redial   bool          // at once, without waiting any longer
	mute     bool
	stale    bool
	thaw     chan struct{} // closed when it reads again; nil while it does

	inSession bool
	open      bool // the socket is open: frames may be queued
	ending    plugEnd
	queue     [][]byte
}

// plugEnd is how a plug ends its session.
type plugEnd int

const (
	plugStays   plugEnd = iota
	plugReboots         // a close frame, then nothing
	plugDrops           // the connection is reset
	plugDies            // nothing is sent at all, and the connection stays
)

// Bounds of a plug's socket. A plug whose server does not read drops what it
// would say, as a device does that has no memory.
const (
	maxPlugQueue     = 64
	plugWriteTimeout = 10 * time.Second
	plugFarewell     = time.Second // how long the peer's close frame is waited for
	plugNever        = 24 * time.Hour
)

// NewPlug makes a plug. It does nothing before [Plug.Run].
func NewPlug(cfg PlugConfig) *Plug {
	cfg.setDefaults()
	hash := fnv.New64a()
	_, _ = hash.Write([]byte(cfg.ID))
	p := &Plug{
		cfg:     cfg,
		mac:     plugMAC(cfg.ID, hash.Sum64()),
		wake:    make(chan struct{}, 1),
		rng:     rand.New(rand.NewPCG(cfg.Seed, hash.Sum64())),
		powered: true,
		synced:  true,
	}
	now := time.Now()
	p.voltage = 226 + 10*p.rng.Float64()
	p.booted = now.Add(-time.Duration(p.rng.Int64N(int64(24 * time.Hour))))
	p.channels = make([]plugChannel, cfg.Channels)
	for i := range p.channels {
		watts := cfg.Watts
		if watts == 0 {
			watts = 40 + 1960*p.rng.Float64()
		}
		p.channels[i] = plugChannel{
			on: true, source: "init", watts: watts, nominal: watts,
			energyWh: 1e6 * p.rng.Float64(), settled: now,
		}
	}
	p.planRoutine(now)
	return p
}

// ID is the plug's id.
func (p *Plug) ID() domain.DeviceID { return p.cfg.ID }

// Dials is how often the plug dialled.
func (p *Plug) Dials() int { return int(p.dials.Load()) }

// Refusals is how often a server answered a dial with another status than 101,
// or closed the socket with a code.
func (p *Plug) Refusals() int { return int(p.refusals.Load()) }

// Refused is the HTTP status or the close code of the last refusal; 0 when there
// was none.
func (p *Plug) Refused() int { return int(p.refused.Load()) }

// Problem is why the last dial got no answer at all; nil when it got one. It does
// not show the URL.
func (p *Plug) Problem() error {
	if problem := p.problem.Load(); problem != nil {
		return *problem
	}
	return nil
}

// Connected reports whether the plug is connected and has sent its first frame.
func (p *Plug) Connected() bool { return p.connected.Load() }

// Sent counts the frames sent.
func (p *Plug) Sent() uint64 { return p.sent.Load() }

func (p *Plug) refuse(code int) {
	p.refused.Store(int64(code))
	p.refusals.Add(1)
}

// ErrPlugRuns is returned by a [Plug.Run] while another one runs.
var ErrPlugRuns = errors.New("simulator: the plug runs already")

// Run dials url and lives there, dialling again when it is thrown out, until ctx
// ends; it returns ctx.Err(), or at once an error for a url that is none or for a
// plug that runs already. It may be called again after it returned. Errors do not
// show the URL, which has a key in it.
func (p *Plug) Run(ctx context.Context, rawURL string) error {
	if u, err := url.Parse(rawURL); err != nil || u.Scheme != "ws" && u.Scheme != "wss" || u.Host == "" {
		return errors.New("simulator: run: the URL is no ws:// or wss:// URL")
	}
	if !p.running.CompareAndSwap(false, true) {
		return ErrPlugRuns
	}
	defer p.running.Store(false)
	p.timer = time.NewTimer(plugNever)
	defer p.timer.Stop()
	defer p.bury()
	failures := 0
	wait := time.Duration(0)
	for p.pass(ctx, wait) {
		opened := time.Now()
		good := p.session(ctx, rawURL)
		// A server that takes a plug in only to throw it out is as good as none.
		if failures++; good && time.Since(opened) >= p.cfg.RetryMax {
			failures = 0
		}
		wait = p.pause(good, failures)
	}
	return ctx.Err()
}

// pause is the time until the next dial.
func (p *Plug) pause(good bool, failures int) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if good && p.sleep > 0 {
		return p.sleep
	}
	d := p.cfg.RetryMin
	for i := 1; i < failures && d < p.cfg.RetryMax; i++ {
		d = min(2*d, p.cfg.RetryMax)
	}
	return min(d/2+time.Duration(p.rng.Int64N(int64(d)+1)), p.cfg.RetryMax)
}

// pass lets the time until the next dial pass, and longer while there is no
// power. It answers false when ctx ended.
func (p *Plug) pass(ctx context.Context, wait time.Duration) bool {
	until := time.Now().Add(wait)
	for ctx.Err() == nil {
		now := time.Now()
		p.mu.Lock()
		next := p.runDue(now)
		dial := p.powered && (p.redial || !now.Before(until))
		if dial {
			p.redial = false
		}
		p.mu.Unlock()
		if dial {
			return true
		}
		if next.After(until) && now.Before(until) {
			next = until
		}
		p.timer.Reset(next.Sub(now))
		select {
		case <-ctx.Done():
		case <-p.timer.C:
		case <-p.wake:
		}
	}
	return false
}

// session dials once and stays until the socket ends. It answers whether the
// first status was sent.
func (p *Plug) session(ctx context.Context, rawURL string) (good bool) {
	p.mu.Lock()
	powered := p.powered // it may have been cut since
	p.inSession, p.ending = powered, plugStays
	p.mu.Unlock()
	if !powered {
		return false
	}
	// The link outlives ctx by a close frame.
	linked, cancel := context.WithCancel(context.WithoutCancel(ctx))
	l := &plugLink{plug: p, opened: make(chan *websocket.Conn, 1), done: make(chan struct{})}
	go l.run(linked, rawURL)
	defer func() {
		p.connected.Store(false)
		cancel()
		<-l.done
		p.mu.Lock()
		p.inSession, p.open, p.queue = false, false, nil
		p.mu.Unlock()
	}()
	conn := p.dialled(ctx, l)
	if conn == nil {
		return false
	}
	p.bury()
	p.begin()
	for {
		now := time.Now()
		p.mu.Lock()
		next := p.runDue(now)
		queue, ending, asleep := p.queue, p.ending, p.sleep > 0
		p.queue = nil
		p.mu.Unlock()
		if ending < plugDrops && !p.write(conn, queue) {
			return good
		}
		if ending == plugStays {
			good = true
			p.connected.Store(true)
		}
		switch {
		case ending == plugReboots:
			p.farewell(conn, l, websocket.CloseGoingAway, "")
			return good
		case ending == plugDrops:
			abortPlug(conn)
			return good
		case ending == plugDies:
			l.keep.Store(true)
			p.ghost = conn
			return good
		case asleep:
			p.farewell(conn, l, websocket.CloseNormalClosure, "Bye") // measured
			return good
		}
		p.timer.Reset(next.Sub(now))
		select {
		case <-ctx.Done():
			p.farewell(conn, l, websocket.CloseGoingAway, "")
			return good
		case <-l.done:
			return good
		case <-p.timer.C:
		case <-p.wake:
		}
	}
}

// dialled waits for the link to open; nil when it does not, or may not any more.
func (p *Plug) dialled(ctx context.Context, l *plugLink) *websocket.Conn {
	for {
		now := time.Now()
		p.mu.Lock()
		next, ending := p.runDue(now), p.ending
		p.mu.Unlock()
		if ending != plugStays {
			return nil
		}
		p.timer.Reset(next.Sub(now))
		select {
		case conn := <-l.opened:
			return conn
		case <-l.done:
			select {
			case conn := <-l.opened: // open for a moment: it is found out when it is used
				return conn
			default:
				return nil
			}
		case <-ctx.Done():
			return nil
		case <-p.timer.C:
		case <-p.wake:
		}
	}
}

// begin queues the first status, before anything else.
func (p *Plug) begin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	p.open = true
	p.queue = [][]byte{p.fullStatus(now)}
	if !p.synced {
		p.plan(now.Add(plugClockSync), plugDueClock, 0)
	}
}

// plugClockSync is how long after it is connected a plug learns the time.
const plugClockSync = 2 * time.Second

func (p *Plug) write(conn *websocket.Conn, queue [][]byte) bool {
	for _, frame := range queue {
		_ = conn.SetWriteDeadline(time.Now().Add(plugWriteTimeout)) // WriteMessage tells
		if err := conn.WriteMessage(websocket.TextMessage, frame); err != nil {
			p.cfg.Logger.Debug("plug cannot write", "device", p.cfg.ID, "error", err)
			return false
		}
		p.sent.Add(1)
	}
	return true
}

// farewell sends a close frame and waits a little for the peer's. To close at
// once would reset the connection if there is something unread, and what was
// written last would be lost.
func (p *Plug) farewell(conn *websocket.Conn, l *plugLink, code int, reason string) {
	l.leaving.Store(true)
	p.connected.Store(false)
	message := websocket.FormatCloseMessage(code, reason)
	if conn.WriteControl(websocket.CloseMessage, message, time.Now().Add(plugFarewell)) != nil {
		return
	}
	p.timer.Reset(plugFarewell)
	select {
	case <-l.done:
	case <-p.timer.C:
	}
}

// bury ends the connection that a power cut left.
func (p *Plug) bury() {
	if p.ghost != nil {
		abortPlug(p.ghost)
		p.ghost = nil
	}
}

// kick makes Run look again.
func (p *Plug) kick() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// plugMAC is the end of the id if that is an address, as it is for real devices.
func plugMAC(id domain.DeviceID, hash uint64) string {
	_, mac, _ := strings.Cut(string(id), "-")
	if len(mac) == 12 && strings.Trim(mac, "0123456789abcdef") == "" {
		return strings.ToUpper(mac)
	}
	return strings.ToUpper(plugHex(hash))
}
