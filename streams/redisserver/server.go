// Package redisserver runs a private redis-server that keeps the log safe on
// disk: for `plugcast dev`, and for tests.
package redisserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/plugcast/plugcast/streams/childproc"
)

// readyTimeout bounds the start of Redis, which reads its whole log first. It
// holds when the caller's context has no nearer end.
const readyTimeout = 5 * time.Minute

// databases is how many numbered databases the server has. Redis' default of
// 16 is too few for tests, which take one each; an unused one costs nothing.
const databases = 256

// Config says where and how to run a Redis. Only Dir is required.
type Config struct {
	// Dir keeps the data. It is made if it is missing; its parent must be
	// writable, since the file Dir.lock beside it guards against a second
	// server on the same data.
	Dir string
	// Port is the port on 127.0.0.1; 0 takes a free one.
	Port int
	// PIDFile, unless empty, holds Redis' process id while it runs.
	PIDFile string
	// Password is the password of clients: letters, digits, - and _. If it is empty,
	// every user of the machine can read and write all data.
	Password string
	// Fast leaves out the fsync of every write, for tests: data survive the
	// death of Redis but not that of the machine.
	Fast bool
	// Logger gets what Redis prints at debug level, and a warning when a Redis
	// of an earlier run had to be ended. Nil drops both.
	Logger *slog.Logger
}

// Server is a running Redis. Its methods may be called from any goroutine.
type Server struct {
	config  Config
	process *childproc.Process
}

// Start runs a Redis on the data in Dir and returns once it has loaded them
// and answers. ctx bounds the start only. The Redis runs until Stop or Kill,
// until it dies, or until this process dies, in whatever way.
//
// A Redis of the same Dir left by an earlier run is ended first. The error
// wraps [childproc.ErrLocked] when a live process runs a server on Dir, and
// [childproc.ErrPortInUse] when Port is taken.
func Start(ctx context.Context, cfg Config) (*Server, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Password != "" && !ValidPassword(cfg.Password) {
		return nil, errors.New("redisserver: a password has at most 128 letters, digits, - and _")
	}
	dir, err := makeDir(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("redisserver: data directory: %w", err)
	}
	cfg.Dir = dir
	path, err := exec.LookPath("redis-server")
	if err != nil {
		return nil, errors.New("redisserver: redis-server is not installed; on Debian or Ubuntu run: apt-get install redis-server")
	}
	lock, err := childproc.Acquire(ctx, dir+".lock")
	if err != nil {
		return nil, fmt.Errorf("redisserver: %w", err)
	}
	process, err := start(ctx, cfg, path, lock)
	if err != nil {
		lock.Release()
		return nil, fmt.Errorf("redisserver: %w", err)
	}
	cfg.Port = process.Port()
	return &Server{config: cfg, process: process}, nil
}

// passwordAlphabet needs no quotes in a URL, in Redis' configuration, nor in its
// inline commands.
const passwordAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

// ValidPassword reports whether a text may be a password.
func ValidPassword(text string) bool {
	const most = 128 // characters
	return text != "" && len(text) <= most && strings.Trim(text, passwordAlphabet) == ""
}

// makeDir makes the directory and returns its one true name: the name tells
// later which process works on it.
func makeDir(dir string) (string, error) {
	if dir == "" {
		return "", errors.New("none given")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(dir)
}

// owner is whom Redis runs as: nil for the user of this process, except that
// root serves another user's data as that user, who may want to start without
// root again and could not with files of root among the data.
func owner(dir string) (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	info, err := os.Stat(dir)
	if err != nil {
		return nil, err
	}
	stat := info.Sys().(*syscall.Stat_t)
	if stat.Uid == 0 {
		return nil, nil
	}
	return &syscall.Credential{Uid: stat.Uid, Gid: stat.Gid}, nil
}

func start(ctx context.Context, cfg Config, path string, lock *childproc.Lock) (*childproc.Process, error) {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	if err := childproc.EndOrphans(ctx, serves(cfg.Dir), syscall.SIGTERM, cfg.Logger); err != nil {
		return nil, err
	}
	credential, err := owner(cfg.Dir)
	if err != nil {
		return nil, err
	}
	return childproc.Start(ctx, childproc.Program{
		Name:       "redis-server",
		Path:       path,
		Args:       func(port int) []string { return arguments(cfg, port) },
		Dir:        cfg.Dir,
		Env:        []string{"PATH=/usr/bin:/bin", "LC_ALL=C", "TZ=UTC"},
		Credential: credential,
		StopSignal: syscall.SIGTERM,
		Port:       cfg.Port,
		PIDFile:    cfg.PIDFile,
		Input:      input(cfg),
		Ready: func(ctx context.Context, pid, port int) bool {
			return ready(ctx, cfg.Password, pid, port)
		},
		Lock:   lock,
		Logger: cfg.Logger,
	})
}

func arguments(cfg Config, port int) []string {
	fsync := "always"
	if cfg.Fast {
		fsync = "no"
	}
	args := []string{
		"--port", strconv.Itoa(port),
		"--bind", "127.0.0.1",
		"--protected-mode", "yes",
		"--daemonize", "no",
		"--dir", cfg.Dir,
		"--appendonly", "yes",
		"--appendfsync", fsync,
		"--save", "",
		"--databases", strconv.Itoa(databases),
		// Keeps the command line as it is: the next start knows us by it.
		"--set-proc-title", "no",
	}
	if cfg.Password != "" {
		args = append(args, "-") // more of the configuration is on the standard input
	}
	return args
}

// input is the part of the configuration that nobody else may see: arguments are
// shown to all users of the machine.
func input(cfg Config) string {
	if cfg.Password == "" {
		return ""
	}
	return "requirepass " + cfg.Password + "\n"
}

// serves recognises the command line of a Redis that works on dir.
func serves(dir string) func(argv []string) bool {
	return func(argv []string) bool {
		if len(argv) == 0 || filepath.Base(argv[0]) != "redis-server" {
			return false
		}
		for i, arg := range argv[1:] {
			if arg == dir && argv[i] == "--dir" {
				return true
			}
		}
		return false
	}
}

// Config is what another Start needs to serve the same data at the same
// address, once this server has ended.
func (s *Server) Config() Config { return s.config }

// Dir is the absolute path of the data.
func (s *Server) Dir() string { return s.config.Dir }

// Addr is the address it listens on, host:port.
func (s *Server) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.config.Port)) }

// Port is the port it listens on.
func (s *Server) Port() int { return s.config.Port }

// URL is the address as Redis clients take it: redis://127.0.0.1:port/0. It
// contains the password, if there is one: it must not be logged.
func (s *Server) URL() string {
	u := url.URL{Scheme: "redis", Host: s.Addr(), Path: "/0"}
	if s.config.Password != "" {
		u.User = url.UserPassword("", s.config.Password)
	}
	return u.String()
}

// PID is the process id of the Redis.
func (s *Server) PID() int { return s.process.PID() }

// Done is closed when the Redis has ended, asked or not. Start may then be
// called for the same Dir and Port.
func (s *Server) Done() <-chan struct{} { return s.process.Done() }

// Err says how the Redis ended. It is nil while it runs and after an orderly
// end.
func (s *Server) Err() error { return s.process.Err() }

// Stop ends the Redis in an orderly way and waits for it. When ctx ends first
// it is killed, and the error says so. Stopping twice is no error.
func (s *Server) Stop(ctx context.Context) error { return s.process.Stop(ctx) }

// Kill ends the Redis with SIGKILL, as a crash would, and waits until it is
// gone. What it acknowledged is still there after the next Start.
func (s *Server) Kill() error { return s.process.Kill() }
