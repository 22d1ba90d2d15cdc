package ws

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/plugcast/plugcast/transport/client"
	"github.com/plugcast/plugcast/transport/limit"
)

// Config holds names and bounds. Zero fields take their defaults.
type Config struct {
	Node        string                   // this process, as clients are told
	Deployment  string                   // id of the deployment, as clients are told; may be empty
	CheckOrigin func(*http.Request) bool // whether a page may connect; default: pages of the same host

	MaxFrame      int64 // bytes of a frame from a client; default 64 KiB
	MaxRooms      int   // systems that a socket may have joined; default 16
	MaxRoomsStaff int   // the same for staff; default 64

	JoinWithin     time.Duration // default 30 s
	JoinTimeout    time.Duration // for looking up a place and loading a snapshot; default 15 s
	HeartbeatEvery time.Duration // default 15 s
	IdleAfter      time.Duration // a heartbeat follows traffic after this long without; default 1 s
	Tick           time.Duration // how exact the times above are kept; default 250 ms

	// A client that stops reading stops answering pings as well: to a server it
	// looks like one that is gone. PongWait is how long it is kept; it resumes
	// afterwards and loses nothing. A ping is sent every PongWait/4, so a reader
	// may stop for three quarters of PongWait at least. Default 2 min.
	PongWait time.Duration
	// CloseWait is how long a socket may take for its last frames when it is
	// being closed; default 5 s.
	CloseWait time.Duration

	limit.Rates // of one socket
}

func (c Config) withDefaults() Config {
	c.MaxFrame = cmp.Or(c.MaxFrame, 64<<10)
	c.MaxRooms = cmp.Or(c.MaxRooms, 16)
	c.MaxRoomsStaff = cmp.Or(c.MaxRoomsStaff, 64)
	c.JoinWithin = cmp.Or(c.JoinWithin, 30*time.Second)
	c.JoinTimeout = cmp.Or(c.JoinTimeout, 15*time.Second)
	c.HeartbeatEvery = cmp.Or(c.HeartbeatEvery, 15*time.Second)
	c.IdleAfter = cmp.Or(c.IdleAfter, time.Second)
	c.Tick = cmp.Or(c.Tick, 250*time.Millisecond)
	c.PongWait = cmp.Or(c.PongWait, 2*time.Minute)
	c.CloseWait = cmp.Or(c.CloseWait, 5*time.Second)
	c.Rates = c.Rates.WithDefaults()
	if c.CheckOrigin == nil {
		c.CheckOrigin = sameHost
	}
	return c
}

func (c Config) validate(p client.Parts) error {
	if p.Authenticator == nil {
		return errors.New("ws: an authenticator is needed")
	}
	for _, field := range []struct {
		name  string
		value int64
	}{
		{"MaxFrame", c.MaxFrame}, {"MaxRooms", int64(c.MaxRooms)}, {"MaxRoomsStaff", int64(c.MaxRoomsStaff)},
		{"JoinWithin", int64(c.JoinWithin)}, {"JoinTimeout", int64(c.JoinTimeout)}, {"HeartbeatEvery", int64(c.HeartbeatEvery)},
		{"IdleAfter", int64(c.IdleAfter)}, {"Tick", int64(c.Tick)}, {"PongWait", int64(c.PongWait)}, {"CloseWait", int64(c.CloseWait)},
	} {
		if field.value < 0 {
			return fmt.Errorf("ws: config: %s is negative", field.name)
		}
	}
	return nil
}
