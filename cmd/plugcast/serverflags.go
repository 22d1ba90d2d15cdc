package main

import (
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"time"

	"github.com/plugcast/plugcast/cmd/plugcast/backend"
	"github.com/plugcast/plugcast/cmd/plugcast/server"
	"github.com/plugcast/plugcast/transport/auth"
	"github.com/plugcast/plugcast/transport/edge"
	"github.com/plugcast/plugcast/transport/shelly/credential"
	"github.com/plugcast/plugcast/transport/shelly/outbound"
)

// serverFlags are what dev and serve share.
type serverFlags struct {
	Listen         string          `group:"Server" help:"HOST:PORT to serve on." default:"127.0.0.1:8080"`
	AdminListen    string          `group:"Server" help:"Address for metrics, health and profiles; keep it private. Default: 127.0.0.1:9090, or a free port when that is taken." placeholder:"HOST:PORT"`
	AdminHosts     []string        `group:"Server" help:"Host names under which --admin-listen answers, besides IP addresses, localhost and its own." placeholder:"HOST"`
	AllowedOrigins []string        `group:"Server" help:"Web origins, besides the server's own, whose pages may call it; https://*.example.com allows all subdomains, * allows any." placeholder:"https://app.example.com"`
	NodeName       string          `group:"Server" help:"Name of this process, unique in the deployment. Default: host name and a random part." placeholder:"NAME"`
	Advertise      string          `group:"Server" help:"Address at which the other processes of the deployment reach this one. Default: that of --listen, or this machine's." placeholder:"HOST:PORT"`
	Bridges        string          `group:"Server" help:"JSON file with the bridges to other deployments and servers." placeholder:"FILE"`
	DrainTimeout   time.Duration   `group:"Server" help:"How long a stop waits for requests under way." default:"10s"`
	Edge           edgeFlags       `embed:""`
	Connections    connectionFlags `embed:""`
	Limits         limitFlags      `embed:""`
}

func (f *serverFlags) origins() (auth.Origins, error) {
	origins, err := auth.ParseOrigins(f.AllowedOrigins)
	if err != nil {
		return origins, usage("--allowed-origins (PLUGCAST_ALLOWED_ORIGINS): %v", err)
	}
	return origins, nil
}

// edgeFlags bound the connections of clients.
type edgeFlags struct {
	MaxConnections           int      `group:"Server" help:"How many client connections may be open at once. Default: the limit on open files, less an eighth of it (at least 256); at most 65,536." placeholder:"N"`
	MaxConnectionsPerAddress int      `group:"Server" help:"How many of them may come from one IPv4 address or IPv6 /64. Default: three quarters of --max-connections." placeholder:"N"`
	TrustedProxies           []string `group:"Server" help:"Reverse proxies that name the client in X-Forwarded-For; their own connections count only in --max-connections." placeholder:"10.0.0.0/8"`
}

func (f *edgeFlags) config(logger *slog.Logger) (edge.Config, error) {
	proxies, err := edge.ParseProxies(f.TrustedProxies)
	if err != nil {
		return edge.Config{}, usage("--trusted-proxies: %v", err)
	}
	return edge.Config{
		MaxConnections: f.MaxConnections, MaxPerAddress: f.MaxConnectionsPerAddress, TrustedProxies: proxies, Logger: logger,
	}, nil
}

// connectionFlags are about Shelly connections, as far as dev and serve share
// them.
type connectionFlags struct {
	PublicURL        string        `name:"public-url" group:"Shelly" help:"URL at which devices reach this server from outside. Default: the URL that the API caller used." placeholder:"https://plugcast.example.com"`
	SilentAfter      time.Duration `name:"silent-after" group:"Shelly" help:"How long a device counts as alive after its last message; longer if the device reports less often." default:"120s"`
	MaxDevices       int           `name:"max-devices" group:"Shelly" help:"How many devices may dial in over one connection; further devices are refused." default:"10000"`
	MaxSystemDevices int           `name:"max-system-devices" group:"Shelly" help:"How many devices a system may have in all." default:"50000"`
	CloudHosts       []string      `name:"cloud-hosts" group:"Shelly" help:"HOST:PORT of further servers, besides *.shelly.cloud, that cloud accounts may use, for simulators; plain HTTP is allowed there." placeholder:"HOST:PORT"`
}

// outbound is the configuration of the server that devices dial into.
func (f *connectionFlags) outbound() (outbound.Config, error) {
	if f.MaxDevices < 1 {
		return outbound.Config{}, usage("--max-devices: must be 1 or more, not %d", f.MaxDevices)
	}
	return outbound.Config{MaxDevices: f.MaxDevices}, nil
}

// publicURL is nil when there is none.
func (f *connectionFlags) publicURL() (*url.URL, error) {
	if f.PublicURL == "" {
		return nil, nil
	}
	at, err := url.Parse(f.PublicURL)
	if err != nil || at.Scheme != "http" && at.Scheme != "https" || at.Host == "" || at.User != nil || at.RawQuery != "" || at.Fragment != "" {
		return nil, usage("--public-url must be such as https://plugcast.example.com, not %q", f.PublicURL)
	}
	return at, nil
}

// secretFlags hold the key that credentials are encrypted with.
type secretFlags struct {
	SecretKey string `name:"secret-key" group:"Shelly" help:"Encrypts credentials of Shelly Cloud accounts: 32 bytes in base64. Several, separated by commas: the first encrypts, all decrypt." placeholder:"KEY"`
}

func (f *secretFlags) keyring() (credential.Keyring, error) {
	ring, err := credential.ParseKeyring(f.SecretKey)
	if err != nil {
		return ring, usage("PLUGCAST_SECRET_KEY: %v", err)
	}
	return ring, nil
}

// processFlags are all that make a process of the platform.
type processFlags struct {
	Roles []string `help:"What this process does: gateway serves clients, worker projects." default:"gateway,worker"`

	Server   serverFlags  `embed:""`
	Backends backendFlags `embed:""`
	Auth     authFlags    `embed:""`
	Secret   secretFlags  `embed:""`
}

// config reads all flags. It fails with a usageError; [server.Open] checks the rest.
func (f *processFlags) config(logger *slog.Logger) (c server.Config, err error) {
	s := &f.Server
	c = server.Config{
		Backend: backend.Config(f.Backends), Roles: f.Roles, Logger: logger, Version: version(), Getenv: os.Getenv,
		Auth: f.Auth.config(), Limits: s.Limits.config(), Unauthenticated: s.Limits.unauthenticated(), DrainTimeout: s.DrainTimeout,
		NodeName: s.NodeName, Listen: s.Listen, Advertise: s.Advertise, AdminListen: s.AdminListen, AdminHosts: s.AdminHosts,
		SilentAfter: s.Connections.SilentAfter, MaxSystemDevices: s.Connections.MaxSystemDevices,
		CloudHosts: s.Connections.CloudHosts, Bridges: s.Bridges,
	}
	if c.Edge, err = s.Edge.config(logger); err != nil {
		return c, err
	}
	if c.Origins, err = s.origins(); err != nil {
		return c, err
	}
	if c.Keyring, err = f.Secret.keyring(); err != nil {
		return c, err
	}
	if c.PublicURL, err = s.Connections.publicURL(); err != nil {
		return c, err
	}
	if c.Outbound, err = s.Connections.outbound(); err != nil {
		return c, err
	}
	return c, f.Backends.require()
}

// flagsOf are the flags that a field of [server.Config] comes from.
var flagsOf = map[string]string{
	"Roles": "--roles", "Listen": "--listen", "AdminListen": "--admin-listen", "Advertise": "--advertise", "Bridges": "--bridges",
	"SilentAfter": "--silent-after", "MaxSystemDevices": "--max-system-devices",
	"Edge": "--max-connections and --max-connections-per-address",
}

// inFlags says what is wrong with the configuration in the words of the command line.
func inFlags(wrong *server.ConfigError) error {
	flags := flagsOf[wrong.Field]
	switch wrong.Field {
	case "Listen", "AdminListen":
		return fmt.Errorf("%w: choose another address with %s", wrong.Err, flags)
	case "Auth", "Limits":
		return wrong.Err // it says by itself what it is about
	}
	return fmt.Errorf("%s: %w", flags, wrong.Err)
}
