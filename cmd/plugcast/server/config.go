package server

import (
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/plugcast/plugcast/cmd/plugcast/backend"
	"github.com/plugcast/plugcast/streams/ratelimit"
	"github.com/plugcast/plugcast/transport/auth"
	"github.com/plugcast/plugcast/transport/edge"
	"github.com/plugcast/plugcast/transport/limit"
	"github.com/plugcast/plugcast/transport/shelly/credential"
	"github.com/plugcast/plugcast/transport/shelly/outbound"
)

// Roles that a process may have.
const (
	RoleGateway = "gateway" // serves clients
	RoleWorker  = "worker"  // projects, and owns partitions
)

// Config says what a [Server] does. [Open] checks it.
type Config struct {
	Backend backend.Config
	Roles   []string // [RoleGateway], [RoleWorker] or both
	Logger  *slog.Logger
	Version string                   // of the program, for the OpenAPI document
	Getenv  func(name string) string // finds the secrets that the file of bridges names

	Auth            auth.Config
	Origins         auth.Origins // whose pages may call, besides the server's own
	Limits          ratelimit.Config
	Unauthenticated limit.Rate // of requests without a valid token, per address
	Edge            edge.Config
	DrainTimeout    time.Duration // how long a stop waits for requests under way; a second at least

	NodeName string // unique in the deployment; default: the host's name and a random part
	Listen   string // HOST:PORT for clients
	// Advertise is HOST:PORT at which other processes reach a gateway; default: Listen, or an address of
	// this machine where Listen is all of them.
	Advertise   string
	AdminListen string   // HOST:PORT for operators; default: 127.0.0.1:9090, or a free port when that is taken
	AdminHosts  []string // names of this server for operators, besides IP addresses, localhost and its own

	SilentAfter      time.Duration   // how long a device counts as alive after its last message; more than 0
	Outbound         outbound.Config // its SilentAfter is the one above
	MaxSystemDevices int             // of a system, whichever way they come; 1 or more
	PublicURL        *url.URL        // at which devices reach this server; nil: the one that the API caller used
	Keyring          credential.Keyring
	CloudHosts       credential.Hosts
	Bridges          string // path of the file of bridges, or ""
}

// ConfigError says which field of a [Config] cannot be used.
type ConfigError struct {
	Field string // its name, such as "AdminListen"
	Err   error
	// Unavailable is true if the value is valid but cannot be used at present, such as an
	// address that another process listens on.
	Unavailable bool
}

// Error implements error.
func (e *ConfigError) Error() string { return e.Field + ": " + e.Err.Error() }

// Unwrap returns the reason.
func (e *ConfigError) Unwrap() error { return e.Err }

func (c *Config) validate() error {
	for _, role := range c.Roles {
		if role != RoleGateway && role != RoleWorker {
			return invalid("Roles", fmt.Errorf("must be gateway and worker, not %q", role))
		}
	}
	if len(c.Roles) == 0 {
		return invalid("Roles", errors.New("must name gateway, worker or both"))
	}
	if err := c.Auth.Validate(); err != nil {
		return invalid("Auth", err)
	}
	if err := c.Limits.Validate(); err != nil {
		return invalid("Limits", err)
	}
	if err := c.Edge.Validate(); err != nil {
		return invalid("Edge", err)
	}
	if c.has(RoleGateway) && c.Advertise != "" {
		if _, _, err := net.SplitHostPort(c.Advertise); err != nil {
			return invalid("Advertise", fmt.Errorf("must be HOST:PORT, not %q", c.Advertise))
		}
	}
	if c.SilentAfter <= 0 {
		return invalid("SilentAfter", fmt.Errorf("must be more than 0, not %s", c.SilentAfter))
	}
	if c.MaxSystemDevices < 1 {
		return invalid("MaxSystemDevices", fmt.Errorf("must be 1 or more, not %d", c.MaxSystemDevices))
	}
	return nil
}

func invalid(field string, err error) error { return &ConfigError{Field: field, Err: err} }

func unavailable(field string, err error) error {
	return &ConfigError{Field: field, Err: err, Unavailable: true}
}

func (c Config) withDefaults() Config {
	if c.NodeName == "" {
		host, _ := os.Hostname() // without a name the random part must do
		c.NodeName = strings.ToLower(host + "-" + rand.Text()[:6])
	}
	c.Outbound.SilentAfter = c.SilentAfter
	c.DrainTimeout = max(c.DrainTimeout, time.Second)
	return c
}

func (c *Config) has(role string) bool { return slices.Contains(c.Roles, role) }
