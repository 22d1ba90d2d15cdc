package socketio

import (
	"cmp"
	"net/http"
	"time"

	"github.com/plugcast/plugcast/transport/limit"
)

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
	c.Tick = cmp.Or(c.Tick, 250*time.Millisecond)
	c.KeepEvery = cmp.Or(c.KeepEvery, time.Hour)
	c.Rates = c.Rates.WithDefaults()
	return c
}
