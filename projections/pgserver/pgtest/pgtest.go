// Package pgtest gives tests a real, private Postgres.
//
// A package that uses it has, in one test file,
//
//	func TestMain(m *testing.M) { pgtest.Main(m) }
//
// or, together with Redis,
//
//	func TestMain(m *testing.M) {
//		os.Exit(redistest.Run(func() int { return pgtest.Run(m.Run) }))
//	}
package pgtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/plugcast/plugcast/projections/pgserver"
	"github.com/plugcast/plugcast/streams/childproc/scratch"
)

// patience bounds every start and stop of a server, and every migration.
const patience = 2 * time.Minute

// harness is what Run sets up, once per test binary.
type harness struct {
	dir *scratch.Dir

	start  sync.Once
	shared *pgserver.Server
	err    error

	mu        sync.Mutex
	numbers   map[string]int // the last number used for each kind of name
	templates map[uintptr]func() (string, error)
	data      []string                    // data directories that are not below dir
	latest    map[string]*pgserver.Server // private servers, by directory
}

var running *harness

// Main runs a package's tests and exits.
func Main(m *testing.M) { os.Exit(Run(m.Run)) }

// Run calls tests, with a Postgres at hand for [Database] and [New], and
// returns what it returned. Afterwards no server and no file is left, also
// when the test binary dies of a panic. The shared server is started on first
// use.
func Run(tests func() int) int {
	dir, err := scratch.Make("plugcast-pgtest-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "pgtest:", err)
		return 1
	}
	running = &harness{
		dir:       dir,
		numbers:   make(map[string]int),
		templates: make(map[uintptr]func() (string, error)),
		latest:    make(map[string]*pgserver.Server),
	}
	code := tests()
	if err := running.close(); err != nil {
		fmt.Fprintln(os.Stderr, "pgtest:", err)
		code = max(code, 1)
	}
	running = nil
	return code
}

func (h *harness) close() error {
	h.start.Do(func() {})
	var errs []error
	if h.shared != nil {
		errs = append(errs, stop(h.shared))
	}
	for _, data := range h.data {
		errs = append(errs, os.RemoveAll(data))
	}
	return errors.Join(append(errs, h.dir.Remove())...)
}

func current(t testing.TB) *harness {
	t.Helper()
	if running == nil {
		t.Fatal("pgtest: this package's TestMain has to call pgtest.Main or pgtest.Run")
	}
	return running
}

// name makes up a name that nothing of that kind had before.
func (h *harness) name(kind string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.numbers[kind]++
	return kind + "_" + strconv.Itoa(h.numbers[kind])
}

// Database returns the URL of a database of the test's own, on the shared
// Postgres, as its superuser. It is dropped when the test ends, whoever is
// still connected. Roles are shared with other tests. The shared server does
// not fsync.
//
// The database is a copy of one that migrate was run on, once per test binary.
// migrate is a function and not a closure: it is told by its code. With nil
// the database is empty.
func Database(t testing.TB, migrate func(ctx context.Context, url string) error) string {
	t.Helper()
	h := current(t)
	h.start.Do(h.startShared)
	if h.err != nil {
		t.Fatal(h.err)
	}
	template, err := h.template(migrate)
	if err != nil {
		t.Fatal(err)
	}
	name := h.name("test")
	if err := h.exec("CREATE DATABASE " + name + " TEMPLATE " + template); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.exec("DROP DATABASE " + name + " WITH (FORCE)"); err != nil {
			t.Error(err)
		}
	})
	return h.shared.DatabaseURL(name)
}

func (h *harness) startShared() {
	h.shared, h.err = h.startServer(pgserver.Config{Dir: filepath.Join(h.dir.Path(), "shared"), Fast: true})
}

// template returns the name of the database that migrate was run on.
func (h *harness) template(migrate func(context.Context, string) error) (string, error) {
	if migrate == nil {
		return "template0", nil
	}
	code := reflect.ValueOf(migrate).Pointer()
	h.mu.Lock()
	build, ok := h.templates[code]
	if !ok {
		build = sync.OnceValues(func() (string, error) { return h.buildTemplate(migrate) })
		h.templates[code] = build
	}
	h.mu.Unlock()
	return build()
}

func (h *harness) buildTemplate(migrate func(context.Context, string) error) (string, error) {
	name := h.name("template")
	if err := h.exec("CREATE DATABASE " + name + " TEMPLATE template0"); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := migrate(ctx, h.shared.DatabaseURL(name)); err != nil {
		return "", fmt.Errorf("pgtest: migrate: %w", err)
	}
	return name, nil
}

// exec runs a statement on a connection of its own to the shared server.
func (h *harness) exec(statement string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, h.shared.URL())
	if err != nil {
		return fmt.Errorf("pgtest: %w", err)
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, statement); err != nil {
		return fmt.Errorf("pgtest: %s: %w", statement, err)
	}
	return nil
}

// New starts a Postgres of the test's own, to be killed or stopped at will,
// with an fsync for every commit as in production. It is gone when the test
// ends.
func New(t testing.TB) *pgserver.Server {
	t.Helper()
	h := current(t)
	return h.startPrivate(t, pgserver.Config{Dir: filepath.Join(h.dir.Path(), h.name("private"))})
}

// Restart kills a server made by [New], if it still runs, and starts another
// on its data and its address.
func Restart(t testing.TB, old *pgserver.Server) *pgserver.Server {
	t.Helper()
	h := current(t)
	if err := old.Kill(); err != nil {
		t.Fatal(err)
	}
	return h.startPrivate(t, old.Config())
}

func (h *harness) startPrivate(t testing.TB, cfg pgserver.Config) *pgserver.Server {
	t.Helper()
	server, err := h.startServer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	h.mu.Lock()
	h.latest[cfg.Dir] = server
	h.mu.Unlock()
	t.Cleanup(func() {
		if err := h.endPrivate(server); err != nil {
			t.Error(err)
		}
	})
	return server
}

// endPrivate stops a server. One that was killed has left some shared memory
// of the machine behind, which only another start on its data gives back.
func (h *harness) endPrivate(server *pgserver.Server) error {
	if err := stop(server); err != nil || server.Err() == nil {
		return err
	}
	h.mu.Lock()
	last := h.latest[server.Config().Dir] == server
	h.mu.Unlock()
	if !last {
		return nil
	}
	cfg := server.Config()
	cfg.Port = 0 // the old one may be somebody's by now
	again, err := h.startServer(cfg)
	if err != nil {
		return err
	}
	return stop(again)
}

func stop(server *pgserver.Server) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return server.Stop(ctx)
}

// startServer starts a server and sees to it that its data will be removed.
func (h *harness) startServer(cfg pgserver.Config) (*pgserver.Server, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	server, err := pgserver.Start(ctx, cfg)
	if err == nil && server.Dir() != cfg.Dir {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.data = append(h.data, server.Dir())
	}
	return server, err
}
