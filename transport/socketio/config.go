package socketio

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"golang.org/x/time/rate"

	"github.com/plugcast/plugcast/domain"
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

// Limiter guards against floods across the deployment.
type Limiter interface {
	// Allow takes n of what the system may do of a flow, or says when to try
	// again. The flows are [FlowJoins] and [FlowFrames].
	Allow(ctx context.Context, flow string, system domain.SystemID, n int) (ok bool, retryAfter time.Duration)
}

// The flows that a [Limiter] is asked about.
const (
	FlowJoins  = "joins"
	FlowFrames = "frames"
)

// Metrics feeds the admin dashboard.
type Metrics interface {
	// Subscribe calls fn with a whole frame now and again, an envelope, until
	// cancel is called. fn does not block. It may run once more while cancel is
	// called.
	Subscribe(fn func(frame []byte)) (cancel func())
}

// Parts are what a [Server] works with. Limiter, Registry, Metrics and Fence may
// be nil: then there is no limit across sockets, no list of sockets, no admin
// dashboard, and nobody who is kept out.
type Parts struct {
	Rooms         *rooms.Hub
	Authenticator Authenticator
	Sessions      Sessions
	Limiter       Limiter
	Registry      rooms.Registry
	Metrics       Metrics
	Fence         rooms.Fence
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
	MaxUnsettled int           // connections that have not shown who they are; beyond that the oldest goes; default 4,096
	MaxRooms     int           // systems that a socket may have joined; default 16
	JoinTimeout  time.Duration // for looking up a place and loading a snapshot; default 15 s
	KeepEvery    time.Duration // how often the sessions of those who are connected are kept; default 1 h

	PingInterval time.Duration // default 25 s
	PingTimeout  time.Duration // default 20 s
	Tick         time.Duration // how exact times are kept; default 250 ms

	Frames  Rate // events from one socket; default 50/s, 200 at once
	Joins   Rate // joins from one socket; default 10/s, 128 at once
	Refused Rate // refusals that one socket may cause before it is closed; default 5/s, 100 at once
}

// Rate allows PerSecond in the long run and Burst at once.
type Rate struct {
	PerSecond rate.Limit
	Burst     int
}

func (r Rate) limiter() *rate.Limiter { return rate.NewLimiter(r.PerSecond, r.Burst) }

func (c Config) withDefaults() Config {
	c.MaxFrame = cmp.Or(c.MaxFrame, 64<<10)
	c.MaxRooms = cmp.Or(c.MaxRooms, 16)
	c.JoinTimeout = cmp.Or(c.JoinTimeout, 15*time.Second)
	c.KeepEvery = cmp.Or(c.KeepEvery, time.Hour)
	c.Frames = cmp.Or(c.Frames, Rate{50, 200})
	c.Joins = cmp.Or(c.Joins, Rate{10, 128})
	c.Refused = cmp.Or(c.Refused, Rate{5, 100})
	return c
}

func (p Parts) validate() error {
	if p.Rooms == nil || p.Authenticator == nil || p.Sessions == nil || p.Logger == nil {
		return errors.New("socketio: rooms, an authenticator, sessions and a logger are needed")
	}
	return nil
}
