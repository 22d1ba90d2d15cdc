// Package pgserver runs a private Postgres, for `plugcast dev` and for tests.
package pgserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/plugcast/plugcast/streams/childproc"
)

const (
	// readyTimeout bounds creating the cluster, or recovering it after a crash, and starting
	// it, unless the caller's context ends sooner.
	readyTimeout = 5 * time.Minute
	// failedGrace is how long a Postgres that failed to start may take to end.
	failedGrace = 10 * time.Second
	// superuser is the role that owns the cluster, and database the database that is created in
	// it.
	superuser = "plugcast"
	database  = "plugcast"
)

// Config holds the settings of a [Server]. Only Dir is required.
type Config struct {
	// Dir is the data directory. A new cluster is created if there is none. The parent of Dir
	// must be writable: it also contains Dir.lock, which prevents a second server, and
	// Dir.password, which only its owner can read.
	//
	// Postgres refuses to run as root. Started by root it runs as the owner of the data or, for
	// a new cluster, as the user postgres or nobody. If that user cannot access Dir, the data
	// are under /var/lib/plugcast and Dir is a symbolic link.
	Dir string
	// Port is the port on 127.0.0.1; 0 means a free one.
	Port int
	// PIDFile, unless empty, holds the process id of Postgres while it runs.
	PIDFile string
	// Fast trades safety for speed, for tests: data survive the death of
	// Postgres but not that of the machine.
	Fast bool
	// Logger gets the output of Postgres at debug level, the actual directory of the data if it
	// is not Dir, and a warning if a Postgres of an earlier run had to be ended. Nil discards
	// them.
	Logger *slog.Logger
}

// Server is a running Postgres. It is safe for concurrent use.
type Server struct {
	config   Config
	data     string
	password string
	process  *childproc.Process
}

// Start runs a Postgres on the data in Dir and returns once it accepts connections. ctx bounds
// the start only. The Postgres runs until Stop or Kill, until it dies, or until this process
// ends in any way.
//
// A Postgres that an earlier run left on Dir is ended first. The error wraps
// [childproc.ErrLocked] if a live process runs a server on Dir, and [childproc.ErrPortInUse] if
// Port is taken.
func Start(ctx context.Context, cfg Config) (*Server, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	dir, err := absolute(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("pgserver: data directory: %w", err)
	}
	cfg.Dir = dir
	lock, err := childproc.Acquire(ctx, dir+".lock")
	if err != nil {
		return nil, fmt.Errorf("pgserver: %w", err)
	}
	server, err := start(ctx, cfg, lock)
	if err != nil {
		lock.Release()
		return nil, fmt.Errorf("pgserver: %w", err)
	}
	return server, nil
}

// absolute creates the parent of dir, and returns the path of dir without symbolic links in it.
func absolute(dir string) (string, error) {
	if dir == "" {
		return "", errors.New("none was given")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", err
	}
	parent, err := filepath.EvalSymlinks(filepath.Dir(dir))
	if err != nil {
		return "", err
	}
	return filepath.Join(parent, filepath.Base(dir)), nil
}

func start(ctx context.Context, cfg Config, lock *childproc.Lock) (*Server, error) {
	at, err := locate(cfg.Dir)
	if err != nil {
		return nil, err
	}
	if err := childproc.EndOrphans(ctx, serves(at.data), syscall.SIGINT, cfg.Logger); err != nil {
		return nil, err
	}
	c, err := prepare(ctx, cfg, at)
	if err != nil {
		return nil, err
	}
	process, err := childproc.Start(ctx, childproc.Program{
		Name:       "postgres",
		Path:       c.programs.postgres,
		Args:       func(port int) []string { return arguments(cfg, at.data, port) },
		Dir:        at.data,
		Env:        environment,
		Credential: at.credential,
		StopSignal: syscall.SIGINT, // "fast": does not wait for clients to leave
		Port:       cfg.Port,
		PIDFile:    cfg.PIDFile,
		Ready: func(_ context.Context, pid, _ int) bool {
			return ready(at.data, pid)
		},
		Lock:   lock,
		Logger: cfg.Logger,
	})
	if err != nil {
		return nil, err
	}
	cfg.Port = process.Port()
	s := &Server{config: cfg, data: at.data, password: c.password, process: process}
	if err := s.makeDatabase(ctx); err != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), failedGrace)
		defer cancel()
		return nil, errors.Join(err, process.Stop(ctx))
	}
	return s, nil
}

func arguments(cfg Config, data string, port int) []string {
	settings := []string{
		"listen_addresses=127.0.0.1",
		"unix_socket_directories=",
		"max_connections=200",
		"shared_buffers=64MB",
		"timezone=UTC",
		"log_timezone=UTC",
		"logging_collector=off",
		// Use files beside the data instead of /dev/shm, which is small in containers and keeps
		// the segments of a killed server.
		"dynamic_shared_memory_type=mmap",
		// The command lines of the server's children show this name, by which the next start
		// recognises them.
		"cluster_name=" + clusterName(data),
	}
	if cfg.Fast {
		// Commits stay synchronous: otherwise a killed Postgres loses the last of them, and
		// without fsync they are cheap anyway. Many tests share one server, and processes that
		// they kill leave their connections open for a while.
		settings = append(settings, "fsync=off", "full_page_writes=off", "max_connections=400") // the last setting of a name counts
	}
	args := []string{"-D", data, "-p", strconv.Itoa(port)}
	for _, setting := range settings {
		args = append(args, "-c", setting)
	}
	return args
}

// serves returns a function that recognises the command lines of a Postgres that works on data
// and of its children, which may outlive it for a moment.
func serves(data string) func(argv []string) bool {
	child := "postgres: " + clusterName(data) + ": "
	return func(argv []string) bool {
		if len(argv) == 0 {
			return false
		}
		if strings.HasPrefix(argv[0], child) {
			return true
		}
		return len(argv) > 2 && filepath.Base(argv[0]) == "postgres" && argv[1] == "-D" && argv[2] == data
	}
}

// ready reports whether the Postgres with that process id accepts connections, according to its
// pid file.
func ready(data string, pid int) bool {
	const pidLine, statusLine = 0, 7
	lines := pidFileLines(data)
	return len(lines) > statusLine &&
		strings.TrimSpace(lines[pidLine]) == strconv.Itoa(pid) &&
		strings.TrimSpace(lines[statusLine]) == "ready"
}

// makeDatabase creates the database of URL, unless it exists.
func (s *Server) makeDatabase(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, s.DatabaseURL("postgres"))
	if err != nil {
		return fmt.Errorf("first connection: %w", err)
	}
	defer conn.Close(ctx)
	var there bool
	err = conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", database).Scan(&there)
	if err == nil && !there {
		_, err = conn.Exec(ctx, "CREATE DATABASE "+database)
	}
	if err != nil {
		return fmt.Errorf("create database: %w", err)
	}
	return nil
}

// Config returns the configuration with which another Start serves the same data at the same
// address, once this server has ended.
func (s *Server) Config() Config { return s.config }

// Dir returns the absolute path of the data, without symbolic links in it.
func (s *Server) Dir() string { return s.data }

// Addr returns the server's address, host:port.
func (s *Server) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.config.Port)) }

// Port returns the server's port.
func (s *Server) Port() int { return s.config.Port }

// URL returns the connection URL of the server's database, for its superuser. It contains the
// password, so it must not be logged.
func (s *Server) URL() string { return s.DatabaseURL(database) }

// DatabaseURL returns the URL of another database of the server, whether or not it exists. It
// contains the password too.
func (s *Server) DatabaseURL(name string) string {
	u := url.URL{
		Scheme:   "postgres",
		User:     url.UserPassword(superuser, s.password),
		Host:     s.Addr(),
		Path:     "/" + name,
		RawQuery: "sslmode=disable",
	}
	return u.String()
}

// PID returns the process id of the Postgres.
func (s *Server) PID() int { return s.process.PID() }

// Done is closed once the Postgres has ended, for any reason. Start may then be called for the
// same Dir and Port.
func (s *Server) Done() <-chan struct{} { return s.process.Done() }

// Err returns how the Postgres ended. It is nil while it runs, and after an orderly end.
func (s *Server) Err() error { return s.process.Err() }

// Stop ends the Postgres in order, even with clients connected, and waits for its end. If ctx
// ends first, Stop kills it and returns an error. Stopping twice is no error.
func (s *Server) Stop(ctx context.Context) error { return s.process.Stop(ctx) }

// Kill ends the Postgres with SIGKILL, as a crash would, and waits for its end. Committed data
// exist after the next Start.
func (s *Server) Kill() error { return s.process.Kill() }
