// Package legacy is the kind of bridge that leads to a Socket.IO server such as the
// one that this platform replaces. It forwards events both ways, or only compares
// what both sides say. What the other side cannot remember is reported.
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

// Kind is what the configuration calls these links.
const Kind = "legacy"

// Mode is what is done with the events of a system.
type Mode string

// The modes.
const (
	Forward Mode = "forward" // events are passed on
	Shadow  Mode = "shadow"  // events are compared, and nothing is appended or emitted
)

// Delivery says when an event counts as passed on.
type Delivery string

// The ways of delivery.
const (
	// Written: when it was written to the connection. What was under way when the
	// connection breaks may be lost; it is reported, and never sent twice.
	Written Delivery = "written"
	// Acknowledged: when the server has acknowledged it. Nothing is lost; what was
	// under way when the connection breaks may come twice, and is reported.
	Acknowledged Delivery = "acknowledged"
)

// Seconds is a time in the configuration.
type Seconds float64

func (s Seconds) duration() time.Duration { return time.Duration(float64(s) * float64(time.Second)) }

// Config is a link in the configuration.
type Config struct {
	bridge.Common
	// Path is where the server answers on its host; /socket.io/ when empty. The path
	// of the URL is the namespace, as with socket.io-client.
	Path string `json:"path"`
	// Auth goes with the CONNECT packet, beside the token.
	Auth map[string]json.RawMessage `json:"auth"`
	Join Join                       `json:"join"`
	// Delivery is when an event counts as passed on; [Written] when empty.
	Delivery Delivery `json:"delivery"`
	// AckSeconds is how long the server has for an acknowledgement; 10 when 0.
	AckSeconds Seconds `json:"ackSeconds"`
	// EchoSeconds is for how long an event of ours that comes back without its name
	// is known by its content; 10 when absent, 0 is never.
	EchoSeconds *Seconds `json:"echoSeconds"`
	Compare     Compare  `json:"compare"`
	Systems     []System `json:"systems"`
}

// Join is how a room is joined.
type Join struct {
	Event string `json:"event"` // join-system when empty
	// As is "string" for the system's id alone, which is the default, or "object"
	// for {"systemId": …}.
	As string `json:"as"`
	// Acknowledged waits for the server's answer.
	Acknowledged bool `json:"acknowledged"`
}

// Compare is how the shadow mode compares.
type Compare struct {
	WindowSeconds Seconds  `json:"windowSeconds"` // 30 when 0
	LateSeconds   Seconds  `json:"lateSeconds"`   // 2 when 0
	Members       []string `json:"members"`       // all that the other side has, when empty
	Ignore        []string `json:"ignore"`        // timestamp when absent
}

// System is one system of a link.
type System struct {
	bridge.System
	Mode Mode   `json:"mode"` // forward when empty
	Room string `json:"room"` // how the other side calls it; the system's id when empty
}

// forwardable are the events that the old system knows.
var forwardable = []domain.EventType{domain.TypeDeviceUpdate, domain.TypeDeviceOfflineStatus, domain.TypeAssignmentUpdated}

// forwards tells whether the old system knows events of a type.
func forwards(t domain.EventType) bool { return slices.Contains(forwardable, t) }

// maxAuth bounds what goes with the CONNECT packet.
const maxAuth = 16 << 10

func (c *Config) check() error {
	common := c.Common
	if common.Token.File == "" && common.Token.Env == "" {
		common.Token.Env = "none" // a server of this kind may let in anybody
	}
	if err := common.Check("http", "https"); err != nil {
		return err
	}
	if _, has := c.Auth["token"]; has {
		return errors.New("auth: must have no token; it has a member of its own")
	}
	size := 0
	for name, value := range c.Auth {
		if name == "pid" || name == "offset" {
			return fmt.Errorf("auth: %s is the protocol's own", name)
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
				return fmt.Errorf("systems[%d].types[%d]: must be %s, %s or %s, which are what such a server knows",
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
		c.Compare.Ignore = []string{"timestamp"} // when it was emitted: no two systems do that at once
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

// joinArgument is what goes with the join event.
func (c *Config) joinArgument(s *System) any {
	if c.Join.As == "object" {
		return map[string]string{"systemId": s.Room}
	}
	return s.Room
}
