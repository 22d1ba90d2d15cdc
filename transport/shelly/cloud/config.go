package cloud

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/domain/backoff"
	"github.com/plugcast/plugcast/transport/shelly"
)

// Config holds times and bounds. Zero fields take their defaults.
type Config struct {
	// AllowHost allows an account's server outside shelly.cloud, for a simulator. nil
	// allows none. An allowed address has one port for HTTP and the socket.
	AllowHost func(*url.URL) bool
	// Jrpc switches devices of the second generation and later with Switch.Set, as the
	// vendor's own client does without documentation. Otherwise only commands that
	// switch back after a time use it, because there is no other way.
	Jrpc bool
	// Policy decides which changes are worth an event.
	Policy shelly.Policy

	// TakeoverDelay is how long a new owner of a partition waits before it opens
	// sockets, so that the former owner has closed its own; default 3 s.
	TakeoverDelay time.Duration

	PingEvery   time.Duration // a socket is dead after two pings without a pong; default 30 s
	BackoffMin  time.Duration // the first window of waits between attempts; default 1 s
	BackoffMax  time.Duration // the widest; default 1 min
	StableAfter time.Duration // a socket that lasts this long resets the waits; default 60 s

	ResyncEvery    time.Duration // how often all states are fetched again; default 30 min
	SilentAfter    time.Duration // an online device that is quiet this long causes a fetch of all states; default 120 s
	RenewAhead     time.Duration // how long before its expiry a token is renewed, but at most a quarter of its life; default 10 min
	RequestEvery   time.Duration // at most one HTTP request per account in this time; default 1 s
	RequestTimeout time.Duration // of an HTTP request or a handshake; default 15 s

	CommandTimeout time.Duration // without a response for this long, a command's outcome is unknown; default 10 s
	ExpectFor      time.Duration // how long after a command a matching change of the relay counts as caused by it; default 30 s

	Inbox        int           // messages that wait for the log; default 256
	Buffer       int           // events held back while the states are fetched; default 4096
	StallAfter   time.Duration // a socket whose inbox is full this long is closed; default 30 s
	MaxFrame     int64         // bytes; default 256 KiB
	MaxAllStatus int64         // bytes of the answer with all states; default 8 MiB
}

func (c Config) withDefaults() Config {
	c.TakeoverDelay = cmp.Or(c.TakeoverDelay, 3*time.Second)
	c.PingEvery = cmp.Or(c.PingEvery, 30*time.Second)
	c.BackoffMin = cmp.Or(c.BackoffMin, time.Second)
	c.BackoffMax = cmp.Or(c.BackoffMax, time.Minute)
	c.StableAfter = cmp.Or(c.StableAfter, time.Minute)
	c.ResyncEvery = cmp.Or(c.ResyncEvery, 30*time.Minute)
	c.SilentAfter = cmp.Or(c.SilentAfter, 2*time.Minute)
	c.RenewAhead = cmp.Or(c.RenewAhead, 10*time.Minute)
	c.RequestEvery = cmp.Or(c.RequestEvery, time.Second)
	c.RequestTimeout = cmp.Or(c.RequestTimeout, 15*time.Second)
	c.CommandTimeout = cmp.Or(c.CommandTimeout, 10*time.Second)
	c.ExpectFor = cmp.Or(c.ExpectFor, 30*time.Second)
	c.Inbox = cmp.Or(c.Inbox, 256)
	c.Buffer = cmp.Or(c.Buffer, 4096)
	c.StallAfter = cmp.Or(c.StallAfter, 30*time.Second)
	c.MaxFrame = cmp.Or(c.MaxFrame, 256<<10)
	c.MaxAllStatus = cmp.Or(c.MaxAllStatus, 8<<20)
	return c
}

func (c Config) validate() error {
	for name, value := range map[string]int64{
		"TakeoverDelay": int64(c.TakeoverDelay), "PingEvery": int64(c.PingEvery), "BackoffMin": int64(c.BackoffMin),
		"BackoffMax": int64(c.BackoffMax), "StableAfter": int64(c.StableAfter), "ResyncEvery": int64(c.ResyncEvery),
		"SilentAfter": int64(c.SilentAfter), "RenewAhead": int64(c.RenewAhead), "RequestEvery": int64(c.RequestEvery),
		"RequestTimeout": int64(c.RequestTimeout), "CommandTimeout": int64(c.CommandTimeout), "ExpectFor": int64(c.ExpectFor),
		"Inbox": int64(c.Inbox), "Buffer": int64(c.Buffer), "StallAfter": int64(c.StallAfter), "MaxFrame": c.MaxFrame,
		"MaxAllStatus": c.MaxAllStatus,
	} {
		if value < 0 {
			return fmt.Errorf("cloud: config: %s is negative", name)
		}
	}
	if c.BackoffMax < c.BackoffMin {
		return errors.New("cloud: config: BackoffMax is less than BackoffMin")
	}
	return nil
}

// newBackoff spaces the attempts of one credential. It draws the waits from the whole
// window: after an outage at the vendor all credentials come back at once, and a fixed
// part of the window would keep them together. An expired token may open a socket that
// closes again at once (measured), so only a stable socket resets the waits.
func newBackoff(c Config) backoff.Backoff {
	return backoff.Backoff{First: c.BackoffMin, Max: c.BackoffMax, StableAfter: c.StableAfter, FullJitter: true}
}

// Connection is a connection as the platform has stored it.
type Connection struct {
	domain.ConnectionRef
	Kind    domain.ConnectionKind
	Name    string
	Stopped bool                   // by command
	State   domain.ConnectionState // as last appended, or ""
}

// Store has the connections; their secrets are in [Secrets]. Its reads include everything that was
// appended before the call: otherwise a new owner would repeat its predecessor's
// reports, and open the socket of a connection that was stopped.
type Store interface {
	// Connections lists the connections of the partition's systems.
	Connections(ctx context.Context, partition int) ([]Connection, error)
	// Connection returns one connection. It fails with [domain.CodeUnknownConnection].
	Connection(ctx context.Context, system domain.SystemID, id domain.ConnectionID) (Connection, error)
	// Devices returns the rows of the devices that last came through the connection.
	Devices(ctx context.Context, system domain.SystemID, id domain.ConnectionID) ([]*domain.Device, error)
}

// Secrets stores the secrets of connections.
type Secrets interface {
	// Secret returns a connection's secret.
	Secret(ctx context.Context, c domain.ConnectionRef) (Secret, error)
	// SaveSecret saves renewed tokens. If the stored secret has another AuthCode or
	// ClientID, it was replaced during the renewal: then SaveSecret changes nothing
	// and returns nil.
	SaveSecret(ctx context.Context, c domain.ConnectionRef, s Secret) error
}

// Parts are the dependencies of a [Supervisor].
type Parts struct {
	Store      Store
	Secrets    Secrets
	Known      shelly.Known // for devices that another connection had before
	Events     domain.Appender
	Heartbeats shelly.Heartbeats
	Quota      domain.DeviceQuota
	Refusals   *shelly.Refusals // of devices beyond the quota
	Logger     *slog.Logger     // nil discards the log
}
