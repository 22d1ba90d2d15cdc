package main

import (
	"log/slog"
	"time"

	"golang.org/x/time/rate"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/streams"
	"github.com/plugcast/plugcast/streams/ratelimit"
	"github.com/plugcast/plugcast/transport/auth"
	"github.com/plugcast/plugcast/transport/edge"
	"github.com/plugcast/plugcast/transport/limit"
)

// backendFlags say where Redis and Postgres are.
type backendFlags struct {
	RedisURL    string `name:"redis-url" group:"Backends" help:"redis://, rediss://, redis://h1,h2,h3?cluster=true or redis://h1,h2?sentinel=MASTER." placeholder:"URL"`
	PostgresURL string `name:"postgres-url" group:"Backends" help:"postgres://USER:PASSWORD@HOST/DATABASE, with ?sslmode= for TLS." placeholder:"URL"`
	Partitions  int    `group:"Backends" help:"Number of Redis streams. Fixed on first start; 0 takes what is there, or 16." default:"0"`
}

func (f *backendFlags) require() error {
	if f.RedisURL == "" {
		return usage("no Redis: set PLUGCAST_REDIS_URL or --redis-url (plugcast dev starts one of its own)")
	}
	if _, err := streams.ParseURL(f.RedisURL); err != nil {
		return usage("%v", err)
	}
	return f.requirePostgres()
}

func (f *backendFlags) requirePostgres() error {
	if f.PostgresURL == "" {
		return usage("no Postgres: set PLUGCAST_POSTGRES_URL or --postgres-url (plugcast dev starts one of its own)")
	}
	return nil
}

// filterFlags say which events a command is about.
type filterFlags struct {
	Type   []string `aliases:"types" sep:"none" help:"Only events of these types, separated by commas." placeholder:"TYPE,…"`
	Device []string `aliases:"devices" sep:"none" help:"Only events about these devices, separated by commas." placeholder:"DEVICE,…"`
}

func (f *filterFlags) parse() (domain.EventFilter, error) {
	filter, err := domain.ParseEventFilter(f.Type, f.Device)
	if err != nil {
		return filter, usage("--type and --device: %v", err)
	}
	return filter, nil
}

// parseAfter reads --after, which is nil when it is not given: an empty one is
// somebody's variable that has no value, and must not pass for none.
func parseAfter(given *string) (*domain.Position, error) {
	if given == nil {
		return nil, nil
	}
	at, err := domain.ParsePosition(*given)
	if err != nil {
		return nil, usage("--after: %v", err)
	}
	return &at, nil
}

// authFlags say which tokens are accepted and how they are made.
type authFlags struct {
	JWTSecret   string `name:"jwt-secret" group:"Tokens" help:"Secret of HS256 tokens, at least 32 bytes." placeholder:"SECRET"`
	JWKSURL     string `name:"jwks-url" group:"Tokens" help:"Accept the tokens of this JWKS instead." placeholder:"URL"`
	JWTIssuer   string `name:"jwt-issuer" group:"Tokens" help:"Demand this iss." placeholder:"ISS"`
	JWTAudience string `name:"jwt-audience" group:"Tokens" help:"Demand this aud." placeholder:"AUD"`
}

func (f *authFlags) config() auth.Config {
	return auth.Config{Secret: []byte(f.JWTSecret), JWKSURL: f.JWKSURL, Issuer: f.JWTIssuer, Audience: f.JWTAudience}
}

// limitFlags are the rate limits: per system, per second and at once. 0 per
// second switches one off.
type limitFlags struct {
	LimitRequests           int `group:"Rate limits, per system" help:"HTTP requests per second." default:"500"`
	LimitRequestsBurst      int `group:"Rate limits, per system" help:"HTTP requests at once." default:"1000"`
	LimitJoins              int `group:"Rate limits, per system" help:"Joins per second." default:"200"`
	LimitJoinsBurst         int `group:"Rate limits, per system" help:"Joins at once." default:"2000"`
	LimitFrames             int `group:"Rate limits, per system" help:"Frames from clients per second." default:"500"`
	LimitFramesBurst        int `group:"Rate limits, per system" help:"Frames from clients at once." default:"2000"`
	LimitDeviceUpdates      int `group:"Rate limits, per system" help:"Published device updates per second." default:"20000"`
	LimitDeviceUpdatesBurst int `group:"Rate limits, per system" help:"Published device updates at once." default:"100000"`
	LimitActions            int `group:"Rate limits, per system" help:"Bridged events that processes react to, such as relay commands, per second." default:"100"`
	LimitActionsBurst       int `group:"Rate limits, per system" help:"Bridged events that processes react to at once." default:"1000"`

	LimitUnauthenticated      int `group:"Rate limits, per client address" help:"Requests without a valid token per second." default:"100"`
	LimitUnauthenticatedBurst int `group:"Rate limits, per client address" help:"Requests without a valid token at once." default:"1000"`
}

func (f *limitFlags) config() ratelimit.Config {
	return ratelimit.Config{
		domain.FlowRequests:      {PerSecond: f.LimitRequests, Burst: f.LimitRequestsBurst},
		domain.FlowJoins:         {PerSecond: f.LimitJoins, Burst: f.LimitJoinsBurst},
		domain.FlowFrames:        {PerSecond: f.LimitFrames, Burst: f.LimitFramesBurst},
		domain.FlowDeviceUpdates: {PerSecond: f.LimitDeviceUpdates, Burst: f.LimitDeviceUpdatesBurst},
		domain.FlowActions:       {PerSecond: f.LimitActions, Burst: f.LimitActionsBurst},
	}
}

// unauthenticated is the limit of each client address. It is of this process: there
// is no system to count for.
func (f *limitFlags) unauthenticated() limit.Rate {
	return limit.Rate{PerSecond: rate.Limit(f.LimitUnauthenticated), Burst: max(f.LimitUnauthenticatedBurst, 1)}
}

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
	c := edge.Config{
		MaxConnections: f.MaxConnections, MaxPerAddress: f.MaxConnectionsPerAddress, TrustedProxies: proxies, Logger: logger,
	}
	if err := c.Validate(); err != nil {
		return edge.Config{}, usage("--max-connections and --max-connections-per-address: %v", err)
	}
	return c, nil
}
