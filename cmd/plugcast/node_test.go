package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/plugcast/plugcast/domain/backoff"
	"github.com/plugcast/plugcast/migrations"
	"github.com/plugcast/plugcast/projections/pgserver/pgtest"
	"github.com/plugcast/plugcast/streams/redisserver"
	"github.com/plugcast/plugcast/streams/redisserver/redistest"
	"github.com/plugcast/plugcast/transport/testpeer"
)

func TestMain(m *testing.M) {
	if attack := os.Getenv(attackVariable); attack != "" {
		attackUntilEnd(attack)
		return
	}
	os.Exit(redistest.Run(func() int { return pgtest.Run(func() int { return withBinary(m.Run) }) }))
}

// binary is plugcast, built once for all tests that need processes of their own.
// It is built without the race detector: those tests are about what survives a
// kill; races are looked for where the code runs inside the test.
var binary func() (string, error)

func withBinary(tests func() int) int {
	dir, err := os.MkdirTemp("", "plugcast-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "plugcast")
	binary = sync.OnceValues(func() (string, error) {
		out, err := exec.Command("go", "build", "-buildvcs=false", "-o", path, ".").CombinedOutput()
		if err != nil {
			return "", fmt.Errorf("go build: %w\n%s", err, out)
		}
		return path, nil
	})
	return tests()
}

func migrate(ctx context.Context, url string) error { return migrations.Apply(ctx, url, nil) }

// deployment is one Redis and one Postgres, private to a test, and the processes
// that serve on them.
type deployment struct {
	redis    *redisserver.Server
	postgres string
	env      []string
}

func newDeployment(t testing.TB) *deployment {
	t.Helper()
	d := &deployment{redis: redistest.New(t), postgres: pgtest.Database(t, migrate)}
	d.env = append(os.Environ(),
		"PLUGCAST_REDIS_URL="+d.redis.URL(), "PLUGCAST_POSTGRES_URL="+d.postgres, "PLUGCAST_JWT_SECRET="+testSecret,
		"PLUGCAST_LOG_LEVEL=warn")
	return d
}

// readModels is all rows of all read models, as text.
func (d *deployment) readModels(t testing.TB) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), d.postgres)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	var rows strings.Builder
	for _, table := range []string{"devices", "equipment", "assignments", "connections"} {
		var text string
		query := "SELECT coalesce(string_agg(r::text, E'\n' ORDER BY r::text), '') FROM projection." + table + " r"
		if err := conn.QueryRow(t.Context(), query).Scan(&text); err != nil {
			t.Fatal(err)
		}
		rows.WriteString(table + "\n" + text + "\n")
	}
	return rows.String()
}

// node is one serve process.
type node struct {
	base    string // http://host:port
	admin   string // the same, for operators
	process *exec.Cmd
	output  *testpeer.Buffer
	ended   chan struct{}
}

// start runs a serve process on a free port, or on the given address, and waits
// until it is ready.
func (d *deployment) start(t testing.TB, listen string, args ...string) *node {
	t.Helper()
	if listen == "" {
		listen = freeAddress(t)
	}
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	admin := freeAddress(t)
	n := &node{base: "http://" + listen, admin: "http://" + admin, output: &testpeer.Buffer{}, ended: make(chan struct{})}
	n.process = exec.Command(path, append([]string{"serve", "--listen", listen, "--admin-listen", admin}, args...)...)
	n.process.Env = d.env
	n.process.Stdout, n.process.Stderr = n.output, n.output
	n.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := n.process.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = n.process.Wait()
		close(n.ended)
	}()
	t.Cleanup(func() {
		n.kill()
		if t.Failed() {
			t.Logf("output of the node at %s:\n%s", n.base, n.output.Tail())
		}
	})
	testpeer.Eventually(t, "the node to be ready", func() bool {
		select {
		case <-n.ended:
			t.Fatalf("the node ended: %s", n.output.Tail())
		default:
		}
		status, _, _, err := call(t.Context(), "GET", n.base+"/readyz", "", nil)
		return err == nil && status == 200
	})
	return n
}

// kill ends the process as a crash would, and waits until it is gone.
func (n *node) kill() {
	_ = n.process.Process.Kill()
	<-n.ended
}

// residentKiB is the memory that the process has in RAM.
func (n *node) residentKiB(t testing.TB) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.process.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	var kib int
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		t.Fatal(err)
	}
	return kib
}

// The ports that nodes of tests get are below those that the kernel gives to
// clients, of which some tests have thousands, and each is given out once.
const firstPort, lastPort = 15_000, 32_000

var (
	givenMu sync.Mutex
	given   = map[int]bool{}
)

// freeAddress finds a loopback port that nobody uses now, nor any other test.
func freeAddress(t testing.TB) string {
	t.Helper()
	givenMu.Lock()
	defer givenMu.Unlock()
	for range 1000 {
		port := firstPort + rand.IntN(lastPort-firstPort)
		if given[port] {
			continue
		}
		given[port] = true
		address := fmt.Sprintf("127.0.0.1:%d", port)
		if listener, err := net.Listen("tcp", address); err == nil {
			_ = listener.Close()
			return address
		}
	}
	t.Fatal("no port is free")
	return ""
}

// pause waits, or less when ctx ends.
func pause(ctx context.Context, d time.Duration) { _ = backoff.Sleep(ctx, d) }
