// Package peer links a system to another plugcast deployment. A link reads events from the
// far end's native WebSocket, and posts events to its HTTP API. The receiving end of each
// direction stores the cursor on the sender's log, so that no event is appended twice. Package
// bridge runs the links.
package peer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"
	"golang.org/x/sync/errgroup"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/domain/isolate"
	"github.com/plugcast/plugcast/transport/bridge"
)

// Kind is the kind of these links in the configuration.
const Kind = "plugcast"

// Values of systemConfig.From.
const (
	fromBeginning = "beginning"
	fromNow       = "now"
)

// config is the configuration of a link.
type config struct {
	bridge.Common
	Systems []systemConfig `json:"systems"`
}

type systemConfig struct {
	bridge.System
	// From says where a direction without a cursor starts: at the beginning of the log,
	// which is the default, or now.
	From string `json:"from"`
}

// Parts are the dependencies of links. All are required.
type Parts struct {
	Deployment string // id of this deployment
	Intake     bridge.Intake
	Reader     bridge.Reader
	Logger     *slog.Logger
}

// Link is a link to another deployment. It implements [bridge.Link].
type Link struct {
	parts   Parts
	common  bridge.Common
	systems []bridge.System
	from    map[domain.SystemID]string
	base    *url.URL // http or https, without a slash at the end
	client  *http.Client
	dialer  websocket.Dialer
}

// requestTimeout bounds one HTTP request.
const requestTimeout = 30 * time.Second

// New returns the factory of links of this kind.
func New(parts Parts) bridge.Factory {
	return func(raw bridge.Raw) (bridge.Link, error) {
		var c config
		if err := raw.Decode(&c); err != nil {
			return nil, err
		}
		if err := c.Check("https", "http"); err != nil {
			return nil, raw.AtPath(err)
		}
		raw.BindToken(&c.Token)
		l := &Link{parts: parts, common: c.Common, from: map[domain.SystemID]string{}}
		for i, s := range c.Systems {
			if s.From != "" && s.From != fromBeginning && s.From != fromNow {
				return nil, raw.AtPath(fmt.Errorf("systems[%d].from: must be beginning or now, not %.40q", i, s.From))
			}
			l.systems = append(l.systems, s.System)
			l.from[s.System.System] = s.From
		}
		var err error
		if l.base, err = url.Parse(strings.TrimSuffix(c.URL, "/")); err != nil {
			return nil, raw.AtPath(errors.New("url: cannot be parsed"))
		}
		l.client = &http.Client{
			Timeout: requestTimeout,
			// A redirect would send the token to another server.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
		l.dialer = websocket.Dialer{
			Proxy: http.ProxyFromEnvironment, Subprotocols: []string{subprotocol}, HandshakeTimeout: dialTimeout,
		}
		return l, nil
	}
}

// Name implements bridge.Link.
func (l *Link) Name() string { return l.common.Name }

// Kind implements bridge.Link.
func (l *Link) Kind() string { return Kind }

// Systems implements bridge.Link.
func (l *Link) Systems() []bridge.System { return l.systems }

// Run implements bridge.Link. It runs both directions of the system until one of them fails.
func (l *Link) Run(ctx context.Context, system bridge.System, state *bridge.State) error {
	token, err := l.common.Token.Read()
	if err != nil {
		return err
	}
	s := &session{link: l, system: system, state: state, token: token,
		log: l.parts.Logger.With("bridge", l.Name(), "system", system.System)}
	group, ctx := errgroup.WithContext(ctx)
	up := newCountdown(system.Direction, func(remote string) {
		s.log.Info("a bridge is up", "direction", system.Direction, "remote", remote)
		state.Connected(remote)
	})
	if system.Direction.Pulls() {
		group.Go(s.isolated(func() error { return wrap("pull", s.pull(ctx, up)) }))
	}
	if system.Direction.Pushes() {
		group.Go(s.isolated(func() error { return wrap("push", s.push(ctx, up)) }))
	}
	return group.Wait()
}

func wrap(direction string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", direction, err)
}

// session is one connection of one system, in both directions.
type session struct {
	link   *Link
	system bridge.System
	state  *bridge.State
	token  string
	log    *slog.Logger
}

// isolated returns fn with its panics turned into errors.
func (s *session) isolated(fn func() error) func() error {
	return func() error { return isolate.Run(s.log, bridge.Component, fn) }
}

// countdown calls up once all directions of a session work.
type countdown struct {
	mu   sync.Mutex
	left int
	up   func(remote string)
}

func newCountdown(d bridge.Direction, up func(string)) *countdown {
	c := &countdown{left: 1, up: up}
	if d == bridge.Both {
		c.left = 2
	}
	return c
}

func (c *countdown) ready(remote string) {
	c.mu.Lock()
	c.left--
	last := c.left == 0
	c.mu.Unlock()
	if last {
		c.up(remote)
	}
}

// checkRemote checks the deployment id of the far end. It must not be our own.
func (s *session) checkRemote(remote string) error {
	switch {
	case remote == "":
		return fmt.Errorf("%w: it did not send its deployment id; its version does not support bridges", bridge.ErrRefused)
	case remote == s.link.parts.Deployment:
		return fmt.Errorf("%w: the far end is this deployment itself, or a copy of its database", bridge.ErrRefused)
	}
	_, err := domain.ParseDeployment(remote)
	return err
}
