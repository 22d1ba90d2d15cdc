// Package peer is the link to another plugcast. What comes in is read from the far
// end's native WebSocket, and what goes out is posted to its HTTP interface. Both
// are cursors: ours on its log is kept here, its on ours is kept there, and neither
// end appends anything twice. See package bridge for who runs it.
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

// Where a link begins with a log that nothing was taken from yet.
const (
	fromBeginning = "beginning"
	fromNow       = "now"
)

// config is a link in the configuration.
type config struct {
	bridge.Common
	Systems []systemConfig `json:"systems"`
}

type systemConfig struct {
	bridge.System
	// From is where to begin, each way, when nothing went over the link yet:
	// beginning, which is the default, or now.
	From string `json:"from"`
}

// Parts are what links work with. All are required.
type Parts struct {
	Deployment string // id of ours
	Intake     bridge.Intake
	Reader     bridge.Reader
	Logger     *slog.Logger
}

// Link is a link to another plugcast. It implements [bridge.Link].
type Link struct {
	parts   Parts
	common  bridge.Common
	systems []bridge.System
	from    map[domain.SystemID]string
	base    *url.URL // http or https, without a slash at the end
	client  *http.Client
	dialer  websocket.Dialer
}

// requestTimeout bounds one request of the pushing side.
const requestTimeout = 30 * time.Second

// New is the [bridge.Factory] of these links.
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
			return nil, raw.AtPath(errors.New("url: is none"))
		}
		l.client = &http.Client{
			Timeout: requestTimeout,
			// A redirect would carry the token elsewhere.
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

// Run implements bridge.Link: both ways of one system, until one of them fails.
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
		group.Go(s.guarded(func() error { return wrap("pull", s.pull(ctx, up)) }))
	}
	if system.Direction.Pushes() {
		group.Go(s.guarded(func() error { return wrap("push", s.push(ctx, up)) }))
	}
	return group.Wait()
}

func wrap(way string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", way, err)
}

// session is one connection of one system, both ways.
type session struct {
	link   *Link
	system bridge.System
	state  *bridge.State
	token  string
	log    *slog.Logger
}

// guarded is fn with its panics made errors.
func (s *session) guarded(fn func() error) func() error {
	return func() error { return isolate.Run(s.log, bridge.Component, fn) }
}

// countdown calls up when all ways of a session work.
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

// notOurselves refuses a far end that is this deployment.
func (s *session) notOurselves(remote string) error {
	switch {
	case remote == "":
		return fmt.Errorf("%w: it does not say which deployment it is; it is too old for bridges", bridge.ErrRefused)
	case remote == s.link.parts.Deployment:
		return fmt.Errorf("%w: the far end is this deployment itself, or a copy of its database", bridge.ErrRefused)
	}
	_, err := domain.ParseDeployment(remote)
	return err
}
