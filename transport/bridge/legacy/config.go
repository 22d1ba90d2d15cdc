// Package legacy links a system to a Socket.IO server of the kind that plugcast replaces. A
// link forwards events both ways, or in shadow mode only compares the events of both sides.
// Such a server keeps no log; the link reports the events that may be missing or doubled
// because of that.
package legacy

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/bridge"
	"github.com/plugcast/plugcast/transport/bridge/legacy/sioclient"
	"github.com/plugcast/plugcast/transport/bridge/shadow"
)

// Kind is the kind of these links in the configuration: users look for the name of the server they link to.
const Kind = "socketio"

// Mode is what a link does with the events of a system.
type Mode string

// The modes.
const (
	Forward Mode = "forward" // it forwards them
	Shadow  Mode = "shadow"  // it compares them, and neither appends nor emits anything
)

// Delivery says when an event counts as forwarded.
type Delivery string

// The ways of delivery.
const (
	// Written: when it is written to the connection. If the connection breaks, the last
	// events may be lost; the link reports them, and never sends an event twice.
	Written Delivery = "written"
	// Acknowledged: when the server acknowledges it. No event is lost; if the connection
	// breaks, the server may get the last events twice, and the link reports them.
	Acknowledged Delivery = "acknowledged"
)

// Seconds is a duration in the configuration.
type Seconds float64

func (s Seconds) duration() time.Duration { return time.Duration(float64(s) * float64(time.Second)) }

// Config is the configuration of a link.
type Config struct {
	bridge.Common
	// Path is the path of the Engine.IO endpoint; /socket.io/ when empty. The path of
	// the URL is the namespace, as with socket.io-client.
	Path string `json:"path"`
	// Auth is sent in the CONNECT packet, beside the token.
	Auth map[string]json.RawMessage `json:"auth"`
	Join Join                       `json:"join"`
	// Delivery is [Written] when empty.
	Delivery Delivery `json:"delivery"`
	// AckSeconds bounds the wait for an acknowledgement; 10 when 0.
	AckSeconds Seconds `json:"ackSeconds"`
	// EchoSeconds is how long the link recognizes an event that it emitted by its content,
	// if the server sends it back without our mark; 10 when absent, never when 0.
	EchoSeconds *Seconds `json:"echoSeconds"`
	Compare     Compare  `json:"compare"`
	Systems     []System `json:"systems"`
}

// Join is how the link joins a room.
type Join struct {
	Event string `json:"event"` // join-system when empty
	// As is the form of the argument: "string" for the room alone, the default, or
	// "object" for {"systemId": …}.
	As string `json:"as"`
	// Acknowledged waits for the server's answer.
	Acknowledged bool `json:"acknowledged"`
}

// Compare configures the shadow mode; see [shadow.Config].
type Compare struct {
	WindowSeconds Seconds  `json:"windowSeconds"` // 30 when 0
	LateSeconds   Seconds  `json:"lateSeconds"`   // 2 when 0
	Members       []string `json:"members"`       // all members that the server sends, when empty
	Ignore        []string `json:"ignore"`        // timestamp when absent
}

// System is the configuration of one system of a link.
type System struct {
	bridge.System
	Mode Mode   `json:"mode"` // forward when empty
	Room string `json:"room"` // the server's name for the system; the system's id when empty
}

// forwardable lists the events that such a server knows.
var forwardable = []domain.EventType{domain.TypeDeviceUpdate, domain.TypeDeviceOfflineStatus, domain.TypeAssignmentUpdated}

// forwards reports whether such a server knows events of a type.
func forwards(t domain.EventType) bool { return slices.Contains(forwardable, t) }

// maxAuth bounds the payload of the CONNECT packet, in bytes.
const maxAuth = 16 << 10

func (c *Config) check() error {
	common := c.Common
	if common.Token.File == "" && common.Token.Env == "" {
		common.Token.Env = "none" // a server of this kind need not ask for a token
	}
	if err := common.Check("http", "https"); err != nil {
		return err
	}
	if _, has := c.Auth["token"]; has {
		return errors.New("auth: must not contain the token; the link has a member for it")
	}
	size := 0
	for name, value := range c.Auth {
		if name == "pid" || name == "offset" {
			return fmt.Errorf("auth: %s is reserved by the protocol", name)
		}
		size += len(name) + len(value)
	}
	switch {
	case size > maxAuth:
		return errors.New("auth: is too large")
	case c.Delivery != "" && c.Delivery != Written && c.Delivery != Acknowledged:
		return errors.New("delivery: must be written or acknowledged")
	case c.Join.As != "" && c.Join.As != "string" && c.Join.As != "object":
		return errors.New("join.as: must be string or object")
	}
	for _, s := range []struct {
		member string
		value  Seconds
	}{
		{"ackSeconds", c.AckSeconds}, {"echoSeconds", *cmp.Or(c.EchoSeconds, new(Seconds))},
		{"compare.windowSeconds", c.Compare.WindowSeconds}, {"compare.lateSeconds", c.Compare.LateSeconds},
	} {
		if s.value < 0 || s.value > 3600 {
			return fmt.Errorf("%s: must be 0 to 3600", s.member)
		}
	}
	if err := (sioclient.Config{URL: c.URL, Path: c.Path}).Validate(); err != nil {
		return fmt.Errorf("url: %s", strings.TrimPrefix(err.Error(), "sioclient: "))
	}
	for i, s := range c.Systems {
		if s.Mode != "" && s.Mode != Forward && s.Mode != Shadow {
			return fmt.Errorf("systems[%d].mode: must be forward or shadow", i)
		}
		for j, t := range s.Types {
			if !forwards(t) {
				return fmt.Errorf("systems[%d].types[%d]: must be %s, %s or %s, the events that such a server knows",
					i, j, forwardable[0], forwardable[1], forwardable[2])
			}
		}
		if len(s.Room) > 256 {
			return fmt.Errorf("systems[%d].room: is too long", i)
		}
	}
	return nil
}

func (c *Config) setDefaults() {
	c.Join.Event = cmp.Or(c.Join.Event, "join-system")
	c.Delivery = cmp.Or(c.Delivery, Written)
	c.AckSeconds = cmp.Or(c.AckSeconds, 10)
	if c.EchoSeconds == nil {
		c.EchoSeconds = new(Seconds)
		*c.EchoSeconds = 10
	}
	if c.Compare.Ignore == nil {
		c.Compare.Ignore = []string{"timestamp"} // the time of the emission differs between any two servers
	}
	for i := range c.Systems {
		s := &c.Systems[i]
		s.Mode = cmp.Or(s.Mode, Forward)
		s.Room = cmp.Or(s.Room, string(s.System.System))
		if len(s.Types) == 0 {
			s.Types = forwardable
		}
	}
}

func (c *Config) shadowConfig() shadow.Config {
	return shadow.Config{
		Window: c.Compare.WindowSeconds.duration(), Late: c.Compare.LateSeconds.duration(),
		Compare: c.Compare.Members, Ignore: c.Compare.Ignore,
	}
}

// joinArgument returns the argument of the join event.
func (c *Config) joinArgument(s *System) any {
	if c.Join.As == "object" {
		return map[string]string{"systemId": s.Room}
	}
	return s.Room
}
