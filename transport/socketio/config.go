package socketio

import (
	"cmp"
	"net/http"
	"time"

	"github.com/plugcast/plugcast/transport/limit"
)

// Config holds the names and limits of a [Server]. Zero fields take their defaults.
type Config struct {
	Node        string                   // the name of this process, which clients see
	CheckOrigin func(*http.Request) bool // whether a page may connect; default: any
	// NewID and Elsewhere are those of [engineio.Config]. With them, any process can serve the
	// requests of a session.
	NewID     func() string
	Elsewhere func(r *http.Request, id string) http.Handler

	MaxFrame     int64         // bytes of a packet from a client; default 64 KiB
	MaxUnsettled int           // unauthenticated connections, beyond which a silent one is closed; default 16,384
	MaxRooms     int           // how many systems a socket may join; default 16
	JoinTimeout  time.Duration // for locating a place and loading a snapshot; default 15 s
	KeepEvery    time.Duration // how often the expiry of connected clients' sessions is extended; default 1 h

	PingInterval time.Duration // default 25 s
	PingTimeout  time.Duration // default 20 s
	Tick         time.Duration // the precision of deadlines; default 250 ms

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
