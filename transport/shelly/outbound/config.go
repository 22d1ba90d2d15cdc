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

// Credential is a connection and the hash of the key with which its devices dial in.
type Credential struct {
	domain.ConnectionRef
	KeyHash  []byte          // SHA-256 of the key
	Stopped  bool            // by command
	Position domain.Position // of the log, up to which this credential is current
}

// Credentials finds credentials.
type Credentials interface {
	// Credential returns the connection with that id and key. Several systems may have
	// a connection with that id. It fails with [domain.CodeUnknownConnection] when none
	// has the key.
	Credential(ctx context.Context, id domain.ConnectionID, key credential.Secret) (Credential, error)
}

// Parts are the dependencies of a [Server]. All are required.
type Parts struct {
	Credentials Credentials
	Known       shelly.Known
	Events      domain.Appender
	Heartbeats  shelly.Heartbeats
	Devices     Devices
	Quota       domain.DeviceQuota
	Refusals    *shelly.Refusals
	Logger      *slog.Logger
}

// Config holds bounds and times. Zero fields take their defaults.
type Config struct {
	Policy shelly.Policy // decides which changes are worth an event

	MaxFrame    int64 // bytes; default 256 KiB (measured). Larger: close 1009
	MaxMessages int   // per socket and minute; default 600 (measured). More: close 1008
	MaxEvents   int   // that one socket may cause per minute; default 1200. More: close 1008
	MaxDevices  int   // per connection: sockets on this process, and devices that are known; default 10000. More: close 1013
	MaxRefusals int   // wrong keys per remote address and minute; default 60. More: HTTP 429 instead of 401
	MaxPending  int   // requests to one device without a response; default 10 (measured)
	ReadAhead   int   // frames that wait for the session; default 32

	PingEvery      time.Duration // default 30 s (measured); a device is dead after two without a pong
	InitTimeout    time.Duration // a device must send its first whole status in this time; default 20 s (measured)
	SilentAfter    time.Duration // how long a device counts as alive after a frame; default 120 s
	CloseGrace     time.Duration // how long a device counts as alive after its socket closed; default 10 s
	RequestTimeout time.Duration // a device must answer a request in this time; default 10 s
	VerifyFor      time.Duration // how long after a command a contrary report is verified; default 30 s (measured: FW 2.0.1-beta1)
	ExpectFor      time.Duration // how long after a command a matching change counts as caused by it; default 30 s
	// Cooldowns are how long a device is refused after it failed in its first seconds:
	// after the first failure, the second, and so on; default 30, 60, 120, 300 s
	// (measured). A session of StableAfter, default 300 s, clears all failures.
	Cooldowns   []time.Duration
	StableAfter time.Duration
}

func (c Config) withDefaults() Config {
	c.MaxFrame = cmp.Or(c.MaxFrame, 256<<10)
	c.MaxMessages = cmp.Or(c.MaxMessages, 600)
	c.MaxEvents = cmp.Or(c.MaxEvents, 1200)
	c.MaxDevices = cmp.Or(c.MaxDevices, 10_000)
	c.MaxRefusals = cmp.Or(c.MaxRefusals, 60)
	c.MaxPending = cmp.Or(c.MaxPending, 10)
	c.ReadAhead = cmp.Or(c.ReadAhead, 32)
	c.PingEvery = cmp.Or(c.PingEvery, 30*time.Second)
	c.InitTimeout = cmp.Or(c.InitTimeout, 20*time.Second)
	c.SilentAfter = cmp.Or(c.SilentAfter, 2*time.Minute)
	c.CloseGrace = cmp.Or(c.CloseGrace, 10*time.Second)
	c.RequestTimeout = cmp.Or(c.RequestTimeout, 10*time.Second)
	c.VerifyFor = cmp.Or(c.VerifyFor, 30*time.Second)
	c.ExpectFor = cmp.Or(c.ExpectFor, 30*time.Second)
	c.StableAfter = cmp.Or(c.StableAfter, 5*time.Minute)
	if c.Cooldowns == nil {
		c.Cooldowns = []time.Duration{30 * time.Second, time.Minute, 2 * time.Minute, 5 * time.Minute}
	}
	return c
}

func (p *Parts) validate() error {
	if p.Credentials == nil || p.Known == nil || p.Events == nil || p.Heartbeats == nil || p.Devices == nil ||
		p.Quota == nil || p.Refusals == nil || p.Logger == nil {
		return errors.New("outbound: a part is missing")
	}
	return nil
}
