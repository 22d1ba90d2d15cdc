package engineio

import (
	"cmp"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"log/slog"
	"net/http"
	"time"
)

// Config holds the times and limits of a [Server]. Zero fields take their defaults, which
// are the Node server's where it has the same setting.
type Config struct {
	// Open makes the handler of a new session. r is the request that began it; its header must
	// not be used after Open has returned. Messages that are sent before then wait.
	Open func(s *Session, r *http.Request) Handler

	PingInterval   time.Duration // between a pong and the next ping; default 25 s
	PingTimeout    time.Duration // for the pong; default 20 s
	UpgradeTimeout time.Duration // for a WebSocket that wants to take a session over; default 10 s
	SettleTimeout  time.Duration // for a session to be settled, see [Session.Settle]; default 45 s
	WriteTimeout   time.Duration // for one write to a client; default 30 s
	CloseTimeout   time.Duration // for what is queued when a session is closed; default 5 s
	Tick           time.Duration // the precision of the times above; default 250 ms

	MaxPayload   int64 // bytes of a packet or a payload from a client; default 1,000,000
	MaxQueue     int   // bytes that may wait for a client, unless it is a single packet; default 8 MiB
	MaxQueued    int   // calls of Send that may wait for a client; default 256
	MaxSessions  int   // sessions at once; default 65,536
	MaxUnsettled int   // sessions that are not settled; beyond that a silent one goes; default 16,384

	// The same limits for the clients of one IPv4 address or IPv6 /64. Default: three quarters
	// of MaxSessions, and half of MaxUnsettled.
	MaxSessionsPerAddress, MaxUnsettledPerAddress int

	// CheckOrigin reports whether a page may connect; default: any may. Allowed pages of other
	// origins get the headers that browsers require.
	CheckOrigin func(*http.Request) bool
	// Known is called for each request of a session, including the one that begins it. All
	// other requests are refused.
	Known func(r *http.Request)
	// NewID makes the id of a session: unguessable, with the characters of base64url, a dot
	// and a tilde. Default: 120 random bits.
	NewID func() string
	// Elsewhere returns a handler for a request of a session that this server does not know,
	// or nil.
	Elsewhere func(r *http.Request, id string) http.Handler

	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	c.PingInterval = cmp.Or(c.PingInterval, 25*time.Second)
	c.PingTimeout = cmp.Or(c.PingTimeout, 20*time.Second)
	c.UpgradeTimeout = cmp.Or(c.UpgradeTimeout, 10*time.Second)
	c.SettleTimeout = cmp.Or(c.SettleTimeout, 45*time.Second)
	c.WriteTimeout = cmp.Or(c.WriteTimeout, 30*time.Second)
	c.CloseTimeout = cmp.Or(c.CloseTimeout, 5*time.Second)
	c.Tick = cmp.Or(c.Tick, 250*time.Millisecond)
	c.MaxPayload = cmp.Or(c.MaxPayload, 1_000_000)
	c.MaxQueue = cmp.Or(c.MaxQueue, 8<<20)
	c.MaxQueued = cmp.Or(c.MaxQueued, 256)
	c.MaxUnsettled = cmp.Or(c.MaxUnsettled, 16_384)
	c.MaxSessions = cmp.Or(c.MaxSessions, 1<<16)
	c.MaxSessionsPerAddress = cmp.Or(c.MaxSessionsPerAddress, max(c.MaxSessions*3/4, 1))
	c.MaxUnsettledPerAddress = cmp.Or(c.MaxUnsettledPerAddress, max(c.MaxUnsettled/2, 1))
	if c.CheckOrigin == nil {
		c.CheckOrigin = func(*http.Request) bool { return true }
	}
	if c.Known == nil {
		c.Known = func(*http.Request) {}
	}
	if c.NewID == nil {
		c.NewID = NewID
	}
	if c.Elsewhere == nil {
		c.Elsewhere = func(*http.Request, string) http.Handler { return nil }
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func (c Config) validate() error {
	if c.Open == nil {
		return errors.New("engineio: config: Open is needed")
	}
	for _, d := range []time.Duration{
		c.PingInterval, c.PingTimeout, c.UpgradeTimeout, c.SettleTimeout, c.WriteTimeout, c.CloseTimeout, c.Tick,
		time.Duration(c.MaxPayload), time.Duration(c.MaxQueue), time.Duration(c.MaxQueued), time.Duration(c.MaxUnsettled),
		time.Duration(c.MaxUnsettledPerAddress), time.Duration(c.MaxSessions), time.Duration(c.MaxSessionsPerAddress),
	} {
		if d < 0 {
			return errors.New("engineio: config: a time or a limit is negative")
		}
	}
	return nil
}

// NewID returns 120 random bits in base64url.
func NewID() string {
	var b [15]byte
	_, _ = rand.Read(b[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(b[:])
}
