package socketio

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/limit"
	"github.com/plugcast/plugcast/transport/rooms"
)

// Authenticator tells who somebody is. Errors are a [domain.Error], which the
// client is shown.
type Authenticator interface {
	// Authenticate looks at the request: its headers, its ticket.
	Authenticate(ctx context.Context, r *http.Request) (domain.Actor, error)
	// Verify looks at a token.
	Verify(ctx context.Context, token string) (domain.Actor, error)
}

// Metrics feeds the admin dashboard.
type Metrics interface {
	// Subscribe calls fn with a whole frame now and again, an envelope, until
	// cancel is called. fn does not block. It may run once more while cancel is
	// called.
	Subscribe(fn func(frame []byte)) (cancel func())
}

// Parts are what a [Server] works with. Limiter, Registry, Metrics and Ban may
// be nil: then there is no limit across sockets, no list of sockets, no admin
// dashboard, and nobody who is kept out.
type Parts struct {
	Rooms         *rooms.Hub
	Authenticator Authenticator
	Sessions      Sessions
	Limiter       limit.Limiter
	Registry      rooms.Registry
	Metrics       Metrics
	Ban           rooms.Ban
	Logger        *slog.Logger
}

// Config holds names and bounds. Zero fields take their defaults.
type Config struct {
	Node        string                   // this process, as clients are told
	CheckOrigin func(*http.Request) bool // whether a page may connect; default: any
	// NewID and Elsewhere are those of [engineio.Config]: with them any process
	// can serve the requests of a session.
	NewID     func() string
	Elsewhere func(r *http.Request, id string) http.Handler

	MaxFrame     int64         // bytes of a packet from a client; default 64 KiB
	MaxUnsettled int           // connections that have not shown who they are; beyond that a silent one goes; default 16,384
	MaxRooms     int           // systems that a socket may have joined; default 16
	JoinTimeout  time.Duration // for looking up a place and loading a snapshot; default 15 s
	KeepEvery    time.Duration // how often the sessions of those who are connected are kept; default 1 h

	PingInterval time.Duration // default 25 s
	PingTimeout  time.Duration // default 20 s
	Tick         time.Duration // how exact times are kept; default 250 ms

	limit.Rates // of one socket
}

func (c Config) withDefaults() Config {
	c.MaxFrame = cmp.Or(c.MaxFrame, 64<<10)
	c.MaxRooms = cmp.Or(c.MaxRooms, 16)
	c.JoinTimeout = cmp.Or(c.JoinTimeout, 15*time.Second)
	c.KeepEvery = cmp.Or(c.KeepEvery, time.Hour)
	c.Rates = c.Rates.WithDefaults()
	return c
}

func (p Parts) validate() error {
	if p.Rooms == nil || p.Authenticator == nil || p.Sessions == nil || p.Logger == nil {
		return errors.New("socketio: rooms, an authenticator, sessions and a logger are needed")
	}
	return nil
}
