// Package redistest gives tests a real, private Redis.
//
// A package that uses it has, in one test file,
//
//	func TestMain(m *testing.M) { redistest.Main(m) }
//
// or, together with Postgres,
//
//	func TestMain(m *testing.M) {
//		os.Exit(redistest.Run(func() int { return pgtest.Run(m.Run) }))
//	}
package redistest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/plugcast/plugcast/streams/childproc/scratch"
	"github.com/plugcast/plugcast/streams/redisserver"
)

// patience bounds every start and stop of a server.
const patience = time.Minute

// sharedDatabases is how many tests can use the shared server at a time.
const sharedDatabases = 200

// harness is what Run sets up, once per test binary.
type harness struct {
	dir *scratch.Dir

	start  sync.Once
	shared *redisserver.Server
	err    error
	free   chan int // numbers of databases that nobody uses

	mu   sync.Mutex
	next int // numbers the directories of private servers
}

var running *harness

var errNotRunning = errors.New("redistest: this package's TestMain has to call redistest.Main or redistest.Run")

// Main runs a package's tests and exits.
func Main(m *testing.M) { os.Exit(Run(m.Run)) }

// Run calls tests, with a Redis at hand for [URL] and [New], and returns what
// it returned. Afterwards no server and no file is left, also when the test
// binary dies of a panic. The shared server is started on first use.
func Run(tests func() int) int {
	dir, err := scratch.Make("plugcast-redistest-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "redistest:", err)
		return 1
	}
	running = &harness{dir: dir}
	code := tests()
	if err := running.close(); err != nil {
		fmt.Fprintln(os.Stderr, "redistest:", err)
		code = max(code, 1)
	}
	running = nil
	return code
}

func (h *harness) close() error {
	h.start.Do(func() {})
	if h.shared != nil {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := h.shared.Stop(ctx); err != nil {
			return err
		}
	}
	return h.dir.Remove()
}

func current(t testing.TB) *harness {
	t.Helper()
	if running == nil {
		t.Fatal(errNotRunning)
	}
	return running
}

// URL returns the URL of an empty database of the shared Redis that is the
// caller's alone until the test ends: call it once per test and hand the URL
// to all of the test's parts. Only Pub/Sub channels, scripts and CONFIG are
// shared with other tests, so FLUSHALL is forbidden. The shared server does
// not fsync.
func URL(t testing.TB) string {
	t.Helper()
	h := current(t)
	h.start.Do(h.startShared)
	if h.err != nil {
		t.Fatal(h.err)
	}
	url, giveBack, err := h.borrow()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := giveBack(); err != nil {
			t.Error(err)
		}
	})
	return url
}

// Use is [URL] for an example, which has no test to end: the database is the caller's until f returns. It returns f's
// error, or that of the Redis.
func Use(f func(url string) error) error {
	h := running
	if h == nil {
		return errNotRunning
	}
	h.start.Do(h.startShared)
	if h.err != nil {
		return h.err
	}
	url, giveBack, err := h.borrow()
	if err != nil {
		return err
	}
	return errors.Join(f(url), giveBack())
}

// borrow takes a database of the shared server until giveBack, which empties it.
func (h *harness) borrow() (url string, giveBack func() error, err error) {
	var number int
	select {
	case number = <-h.free:
	default:
		return "", nil, fmt.Errorf("redistest: all %d databases are in use", sharedDatabases)
	}
	return "redis://" + h.shared.Addr() + "/" + strconv.Itoa(number), func() error {
		client := redis.NewClient(&redis.Options{Addr: h.shared.Addr(), DB: number})
		defer client.Close()
		if err := client.FlushDB(context.Background()).Err(); err != nil {
			return fmt.Errorf("redistest: empty database %d: %w", number, err)
		}
		h.free <- number
		return nil
	}, nil
}

// Connect returns a client of the Redis at a URL, such as that of [URL]. It is closed
// when the test ends.
func Connect(t testing.TB, url string) *redis.Client {
	t.Helper()
	options, err := redis.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	client := redis.NewClient(options)
	t.Cleanup(func() { _ = client.Close() })
	return client
}

func (h *harness) startShared() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	h.shared, h.err = redisserver.Start(ctx, redisserver.Config{Dir: filepath.Join(h.dir.Path(), "shared"), Fast: true})
	h.free = make(chan int, sharedDatabases)
	for number := range sharedDatabases {
		h.free <- number
	}
}

// New starts a Redis of the test's own, to be killed or stopped at will, with
// an fsync for every write as in production. It is gone when the test ends.
func New(t testing.TB) *redisserver.Server {
	t.Helper()
	return startPrivate(t, redisserver.Config{Dir: current(t).folder("private")})
}

// folder returns a path for the data of another server. Nothing is there yet.
func (h *harness) folder(kind string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.next++
	return filepath.Join(h.dir.Path(), kind+"-"+strconv.Itoa(h.next))
}

// Restart kills a server made by [New], if it still runs, and starts another
// on its data and its address.
func Restart(t testing.TB, old *redisserver.Server) *redisserver.Server {
	t.Helper()
	if err := old.Kill(); err != nil {
		t.Fatal(err)
	}
	return startPrivate(t, old.Config())
}

func startPrivate(t testing.TB, cfg redisserver.Config) *redisserver.Server {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	server, err := redisserver.Start(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Kill(); err != nil {
			t.Error(err)
		}
	})
	return server
}
