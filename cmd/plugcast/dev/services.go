// Package dev keeps a private Redis and Postgres for a development platform, and the
// secrets of it.
package dev

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/plugcast/plugcast/domain/backoff"
	"github.com/plugcast/plugcast/projections/pgserver"
	"github.com/plugcast/plugcast/streams/childproc"
	"github.com/plugcast/plugcast/streams/redisserver"
)

// Services are the private Redis and Postgres of a development platform. Each
// is started again, on its data and its address, when it dies.
type Services struct {
	env    Env
	cancel context.CancelFunc
	done   sync.WaitGroup
}

// Start starts both below dir and writes dir/env, dir/redis.pid and
// dir/postgres.pid. Ports and secrets are those of the last run where they can
// be, so that what was configured with dir/env goes on working.
func Start(ctx context.Context, dir string, logger *slog.Logger) (*Services, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	file := filepath.Join(dir, "env")
	env, err := readEnvFile(file)
	if err != nil {
		return nil, err
	}
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s := &Services{env: env, cancel: cancel}
	if err := s.startRedis(ctx, running, dir, logger); err != nil {
		s.Stop()
		return nil, err
	}
	if err := s.startPostgres(ctx, running, dir, logger); err != nil {
		s.Stop()
		return nil, err
	}
	env.makeSecrets(logger)
	if err := env.write(file); err != nil {
		s.Stop()
		return nil, err
	}
	return s, nil
}

// Stop ends both, in the order opposite to their start, and waits.
func (s *Services) Stop() {
	s.cancel()
	s.done.Wait()
}

// Env is where both are, and the secrets.
func (s *Services) Env() Env { return s.env }

func (s *Services) startRedis(ctx, running context.Context, dir string, logger *slog.Logger) error {
	config := redisserver.Config{
		Dir: filepath.Join(dir, "redis"), PIDFile: filepath.Join(dir, "redis.pid"), Logger: logger, Port: portOf(s.env[RedisURL]),
		Password: redisPassword(s.env[RedisURL]),
	}
	start := func(ctx context.Context) (server, error) {
		redis, err := redisserver.Start(ctx, config)
		if err != nil {
			return nil, err
		}
		config = redis.Config()
		return redis, nil
	}
	return s.keep(ctx, running, "redis", RedisURL, logger, start, func() { config.Port = 0 })
}

func (s *Services) startPostgres(ctx, running context.Context, dir string, logger *slog.Logger) error {
	config := pgserver.Config{
		Dir: filepath.Join(dir, "postgres"), PIDFile: filepath.Join(dir, "postgres.pid"), Logger: logger, Port: portOf(s.env[PostgresURL]),
	}
	start := func(ctx context.Context) (server, error) {
		postgres, err := pgserver.Start(ctx, config)
		if err != nil {
			return nil, err
		}
		config = postgres.Config()
		return postgres, nil
	}
	return s.keep(ctx, running, "postgres", PostgresURL, logger, start, func() { config.Port = 0 })
}

// server is what redisserver and pgserver have in common.
type server interface {
	Done() <-chan struct{}
	Err() error
	Stop(ctx context.Context) error
	URL() string
}

// Waits of the supervisor.
const (
	restartPause  = 200 * time.Millisecond // between a death and the first try to start again
	restartLimit  = 5 * time.Second        // the longest pause between tries
	stopAllowance = 20 * time.Second       // for an orderly end
)

// keep starts a server, notes its URL under the variable's name, and hands it to
// a supervisor. A port of the last run that somebody else has by now is given up
// once, with anyPort.
func (s *Services) keep(ctx, running context.Context, name, variable string, logger *slog.Logger,
	start func(context.Context) (server, error), anyPort func(),
) error {
	current, err := start(ctx)
	if errors.Is(err, childproc.ErrPortInUse) {
		anyPort()
		current, err = start(ctx)
	}
	switch {
	case errors.Is(err, childproc.ErrLocked):
		return fmt.Errorf("another plugcast dev runs on this data directory: stop it, or choose another directory with --data (%w)", err)
	case err != nil:
		return fmt.Errorf("start %s: %w", name, err)
	}
	s.env[variable] = current.URL()
	s.done.Go(func() { supervise(running, name, logger, current, start) })
	return nil
}

// supervise starts the server again whenever it dies, until ctx ends, and then
// stops it.
func supervise(ctx context.Context, name string, logger *slog.Logger, current server,
	start func(context.Context) (server, error),
) {
	for {
		select {
		case <-ctx.Done():
			stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopAllowance)
			defer cancel()
			if err := current.Stop(stopping); err != nil {
				logger.Error("stopping a private server", "server", name, "error", err)
			}
			return
		case <-current.Done():
			logger.Warn("a private server died; starting it again", "server", name, "error", current.Err())
		}
		retry := backoff.Backoff{First: restartPause, Max: restartLimit}
		for {
			if retry.Wait(ctx) != nil {
				return
			}
			again, err := start(ctx)
			if err == nil {
				current = again
				logger.Info("a private server runs again", "server", name)
				break
			}
			if ctx.Err() == nil {
				logger.Error("starting a private server again", "server", name, "error", err)
			}
		}
	}
}

// redisPassword is the password of a URL of the last run, or a new one. Redis has the
// log and the tickets, and every user of the machine can reach its port.
func redisPassword(raw string) string {
	if u, err := url.Parse(raw); err == nil {
		if password, _ := u.User.Password(); redisserver.ValidPassword(password) {
			return password
		}
	}
	return rand.Text()
}

// portOf is the port of a URL of the last run, or 0.
func portOf(raw string) int {
	u, err := url.Parse(raw)
	if err != nil {
		return 0
	}
	port, err := strconv.ParseUint(u.Port(), 10, 16)
	if err != nil {
		return 0
	}
	return int(port)
}
