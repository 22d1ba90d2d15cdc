package outbound

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/shelly"
	"github.com/plugcast/plugcast/transport/shelly/credential"
)

// Credential is what lets devices in through one connection.
type Credential struct {
	shelly.Connection
	KeyHash  []byte          // SHA-256 of the key
	Stopped  bool            // by command
	Position domain.Position // of what is known of the connection
}

// Credentials finds credentials.
type Credentials interface {
	// Credential returns the connection of that id whose key it is: several systems
	// may have one of that id. It fails with [domain.CodeUnknownConnection] when
	// there is none.
	Credential(ctx context.Context, id domain.ConnectionID, key credential.Secret) (Credential, error)
}

// Parts are what a [Server] works with. All are required.
type Parts struct {
	Credentials Credentials
	Known       shelly.Known
	Events      domain.Appender
	Heartbeats  shelly.Heartbeats
	Devices     Devices
	Logger      *slog.Logger
}

// Config holds bounds and times. Zero fields take their defaults.
type Config struct {
	Policy shelly.Policy // which changes are worth an event

	MaxFrame    int64 // bytes; default 256 KiB (measured). Larger: close 1009
	MaxMessages int   // per socket and minute; default 600 (measured). More: close 1008
	MaxEvents   int   // that one socket may cause per minute; default 1200. More: close 1008
	MaxDevices  int   // per connection: sockets on this process, and devices that are known; default 10000. More: close 1013
	// MaxSystemDevices is how many devices may be known of a system, through all of its
	// connections; default 50000. More: close 1013.
	MaxSystemDevices int
	MaxRefusals      int // of wrong keys, per remote address and minute; default 60. More: HTTP 429 instead of 401
	MaxPending       int // commands under way on one device; default 10 (measured)
	ReadAhead        int // frames that wait for the log; default 32

	PingEvery   time.Duration // default 30 s (measured); a device is dead after two without a pong
	InitWithin  time.Duration // for the first status; default 20 s (measured)
	SilentAfter time.Duration // how long a device counts as alive after it was heard; default 120 s
	CloseGrace  time.Duration // for a device to come back after its socket closed; default 10 s
	AskWithin   time.Duration // for the device's answer to a command; default 10 s
	DoubtFor    time.Duration // after a command: how long a contrary relay is checked; default 30 s (measured: FW 2.0.1-beta1)
	ExpectFor   time.Duration // how long a relay that turns as commanded is put down to the command; default 30 s
	// Cooldowns are how long a device is told to stay away that does not get
	// through its first seconds: after the first failure, the second, and so on; default
	// 30, 60, 120, 300 s (measured). A session of StableAfter forgives all; default
	// 300 s.
	Cooldowns   []time.Duration
	StableAfter time.Duration
}

func (c Config) withDefaults() Config {
	c.MaxFrame = cmp.Or(c.MaxFrame, 256<<10)
	c.MaxMessages = cmp.Or(c.MaxMessages, 600)
	c.MaxEvents = cmp.Or(c.MaxEvents, 1200)
	c.MaxDevices = cmp.Or(c.MaxDevices, 10_000)
	c.MaxSystemDevices = cmp.Or(c.MaxSystemDevices, 50_000)
	c.MaxRefusals = cmp.Or(c.MaxRefusals, 60)
	c.MaxPending = cmp.Or(c.MaxPending, 10)
	c.ReadAhead = cmp.Or(c.ReadAhead, 32)
	c.PingEvery = cmp.Or(c.PingEvery, 30*time.Second)
	c.InitWithin = cmp.Or(c.InitWithin, 20*time.Second)
	c.SilentAfter = cmp.Or(c.SilentAfter, 2*time.Minute)
	c.CloseGrace = cmp.Or(c.CloseGrace, 10*time.Second)
	c.AskWithin = cmp.Or(c.AskWithin, 10*time.Second)
	c.DoubtFor = cmp.Or(c.DoubtFor, 30*time.Second)
	c.ExpectFor = cmp.Or(c.ExpectFor, 30*time.Second)
	c.StableAfter = cmp.Or(c.StableAfter, 5*time.Minute)
	if c.Cooldowns == nil {
		c.Cooldowns = []time.Duration{30 * time.Second, time.Minute, 2 * time.Minute, 5 * time.Minute}
	}
	return c
}

func (p *Parts) validate() error {
	if p.Credentials == nil || p.Known == nil || p.Events == nil || p.Heartbeats == nil || p.Devices == nil || p.Logger == nil {
		return errors.New("outbound: a part is missing")
	}
	return nil
}
