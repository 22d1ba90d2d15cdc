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

// Config holds the names and limits of a [Server]. Zero fields take their defaults.
type Config struct {
	Node        string                   // the name of this process, which clients see
	Deployment  string                   // the id of the deployment, which clients see; may be empty
	CheckOrigin func(*http.Request) bool // whether a page may connect; default: pages of the same host

	MaxFrame      int64 // bytes of a frame from a client; default 64 KiB
	MaxRooms      int   // how many systems a socket may join; default 16
	MaxRoomsStaff int   // the same for staff; default 64

	JoinWithin     time.Duration // default 30 s
	JoinTimeout    time.Duration // for locating a place and loading a snapshot; default 15 s
	HeartbeatEvery time.Duration // default 15 s
	IdleAfter      time.Duration // how long after the last event a heartbeat is sent; default 1 s
	Tick           time.Duration // the precision of the times above; default 250 ms

	// PongWait is how long a client is kept that answers no pings. A client that stops reading
	// stops answering pings as well, so the server cannot tell it from one that is gone; it
	// resumes later and loses nothing. A ping is sent every PongWait/4, so a reader may stop
	// for at least three quarters of PongWait. Default 2 min.
	PongWait time.Duration
	// CloseWait is how long a socket that is being closed may take for its last frames;
	// default 5 s.
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
