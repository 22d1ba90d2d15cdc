package server

import (
	"crypto/rand"
	"log/slog"
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

// Config says what a [Server] does. Its parts have been validated.
type Config struct {
	Backend backend.Config
	Roles   []string // one at least
	Logger  *slog.Logger
	Version string                   // of the program, for the OpenAPI document
	Getenv  func(name string) string // finds the secrets that the file of bridges names

	Auth            auth.Config
	Origins         auth.Origins // whose pages may call, besides the server's own
	Limits          ratelimit.Config
	Unauthenticated limit.Rate // of requests without a valid token, per address
	Edge            edge.Config
	DrainTimeout    time.Duration // how long a stop waits for requests under way; a second at least

	NodeName    string   // unique in the deployment; default: the host's name and a random part
	Listen      string   // HOST:PORT for clients
	Advertise   string   // HOST:PORT at which other processes reach Listen; default: see [Server.Addr]
	AdminListen string   // HOST:PORT for operators; default: 127.0.0.1:9090, or a free port when that is taken
	AdminHosts  []string // names of this server for operators, besides IP addresses, localhost and its own

	Outbound   outbound.Config
	MaxDevices int      // of a system, whichever way they come
	PublicURL  *url.URL // at which devices reach this server; nil: the one that the API caller used
	Keyring    credential.Keyring
	CloudHosts credential.Hosts
	Bridges    string // path of the file of bridges, or ""
}

// ConfigError says that something that the configuration names cannot be used.
type ConfigError struct{ Err error }

// Error implements error.
func (e *ConfigError) Error() string { return e.Err.Error() }

// Unwrap returns the reason.
func (e *ConfigError) Unwrap() error { return e.Err }

func (c Config) withDefaults() Config {
	if c.NodeName == "" {
		host, _ := os.Hostname() // without a name the random part must do
		c.NodeName = strings.ToLower(host + "-" + rand.Text()[:6])
	}
	c.DrainTimeout = max(c.DrainTimeout, time.Second)
	return c
}

func (c *Config) has(role string) bool { return slices.Contains(c.Roles, role) }
