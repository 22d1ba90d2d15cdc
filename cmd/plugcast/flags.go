package main

import (
	"context"
	"log/slog"

	"golang.org/x/time/rate"

	"github.com/plugcast/plugcast/cmd/plugcast/backend"
	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/projections"
	"github.com/plugcast/plugcast/streams"
	"github.com/plugcast/plugcast/streams/ratelimit"
	"github.com/plugcast/plugcast/transport/auth"
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

// open connects to both.
func (f *backendFlags) open(ctx context.Context, logger *slog.Logger) (*backend.Backend, error) {
	if err := f.require(); err != nil {
		return nil, err
	}
	return backend.Open(ctx, backend.Config(*f), logger)
}

// openStore connects to Postgres alone.
func (f *backendFlags) openStore(ctx context.Context, logger *slog.Logger) (*projections.Store, error) {
	if err := f.requirePostgres(); err != nil {
		return nil, err
	}
	return backend.OpenStore(ctx, f.PostgresURL, logger)
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
	LimitRequests           int `group:"Rate limits, per system" help:"HTTP requests per second; a list page counts as two." default:"500"`
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
