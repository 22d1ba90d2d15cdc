package pgserver

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/plugcast/plugcast/streams/childproc"
	"github.com/plugcast/plugcast/streams/childproc/scratch"
	"github.com/plugcast/plugcast/transport/testpeer"
	"github.com/plugcast/plugcast/transport/testpeer/parent"
)

// fast returns the configuration of a new cluster for the test.
func fast(t *testing.T) Config {
	t.Helper()
	return Config{Dir: filepath.Join(scratch.For(t), "data"), Fast: true}
}

func startServer(t *testing.T, cfg Config) *Server {
	t.Helper()
	server, err := Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, server) })
	return server
}

func stop(t *testing.T, server *Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := server.Stop(ctx); err != nil {
		t.Error(err)
	}
}

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func execute(t *testing.T, url, statement string) {
	t.Helper()
	if _, err := connect(t, url).Exec(t.Context(), statement); err != nil {
		t.Fatal(err)
	}
}

func query(t *testing.T, url, statement string) (text string) {
	t.Helper()
	if err := connect(t, url).QueryRow(t.Context(), statement).Scan(&text); err != nil {
		t.Fatal(err)
	}
	return text
}

const (
	keep = "CREATE TABLE IF NOT EXISTS kept (id text); INSERT INTO kept VALUES ('kept')"
	kept = "SELECT count(*)::text FROM kept"
)

// owner returns the owner of the server's data, nil if that is the user of this process.
func owner(t *testing.T, server *Server) *syscall.Credential {
	t.Helper()
	info, err := os.Stat(server.Dir())
	if err != nil {
		t.Fatal(err)
	}
	stat := info.Sys().(*syscall.Stat_t)
	if int(stat.Uid) == os.Geteuid() {
		return nil
	}
	return &syscall.Credential{Uid: stat.Uid, Gid: stat.Gid}
}

func TestDataSurviveStopAndKill(t *testing.T) {
	t.Parallel()
	cfg := fast(t)
	cfg.Fast = false
	server := startServer(t, cfg)
	execute(t, server.URL(), keep)
	for range 2 {
		stop(t, server)
	}
	if err := server.Err(); err != nil {
		t.Errorf("an orderly end is told as %v", err)
	}

	server = startServer(t, server.Config())
	execute(t, server.URL(), keep)
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	if server.Err() == nil {
		t.Error("an end by SIGKILL is not told")
	}

	again := startServer(t, server.Config())
	if again.URL() != server.URL() {
		t.Error("came back with another address or password")
	}
	if got := query(t, again.URL(), kept); got != "2" {
		t.Errorf("%s rows, want 2", got)
	}
}

// A connected client does not delay Stop.
func TestStopDoesNotWaitForClients(t *testing.T) {
	t.Parallel()
	server := startServer(t, fast(t))
	conn := connect(t, server.URL())
	stop(t, server)
	if err := conn.Ping(t.Context()); err == nil {
		t.Error("the client is still served")
	}
}

func TestSettings(t *testing.T) {
	t.Parallel()
	for _, mode := range []struct {
		fast  bool
		fsync string
	}{{false, "on"}, {true, "off"}} {
		cfg := fast(t)
		cfg.Fast = mode.fast
		server := startServer(t, cfg)
		for setting, want := range map[string]string{
			"fsync":                   mode.fsync,
			"synchronous_commit":      "on",
			"full_page_writes":        mode.fsync,
			"listen_addresses":        "127.0.0.1",
			"unix_socket_directories": "",
			"server_encoding":         "UTF8",
			"timezone":                "UTC",
		} {
			if got := query(t, server.URL(), "SHOW "+setting); got != want {
				t.Errorf("fast %v: %s is %q, want %q", mode.fast, setting, got, want)
			}
		}
	}
}

func TestOnlyThePasswordOpens(t *testing.T) {
	t.Parallel()
	var log testpeer.Buffer
	cfg := fast(t)
	cfg.Logger = log.Logger()
	server := startServer(t, cfg)
	address, err := url.Parse(server.URL())
	if err != nil {
		t.Fatal(err)
	}
	for _, user := range []*url.Userinfo{
		url.User(superuser), url.UserPassword(superuser, "guess"), url.User("postgres"),
	} {
		address.User = user
		_, err := pgx.Connect(t.Context(), address.String())
		var refused *pgconn.PgError
		if !errors.As(err, &refused) || !strings.HasPrefix(refused.Code, "28") {
			t.Errorf("user %s: error %v, want to be refused", user.Username(), err)
		}
	}
	info, err := os.Stat(cfg.Dir + ".password")
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode of the password file %v, error %v; want 0600", info.Mode(), err)
	}
	stop(t, server)
	if text := log.String(); !strings.Contains(text, "database system is ready") || strings.Contains(text, server.password) {
		t.Errorf("want a log with the server's lines and without the password: %s", text)
	}
}

func TestASecondServerOnTheSameDataIsRefused(t *testing.T) {
	t.Parallel()
	server := startServer(t, fast(t))
	if _, err := Start(t.Context(), server.Config()); !errors.Is(err, childproc.ErrLocked) {
		t.Errorf("error %v, want ErrLocked", err)
	}
	query(t, server.URL(), "SELECT 'undisturbed'")
}

func TestPortInUse(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg := fast(t)
	cfg.Port = listener.Addr().(*net.TCPAddr).Port
	_, err = Start(t.Context(), cfg)
	if !errors.Is(err, childproc.ErrPortInUse) || !strings.Contains(err.Error(), listener.Addr().String()) {
		t.Errorf("error %v, want ErrPortInUse with the address", err)
	}
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	startServer(t, cfg) // the failure left nothing that blocks the next start
}

func TestPIDFile(t *testing.T) {
	t.Parallel()
	cfg := fast(t)
	cfg.PIDFile = cfg.Dir + ".pid"
	stranger := parent.Background(t, exec.Command("sleep", "1000"), nil)
	if err := os.WriteFile(cfg.PIDFile, []byte(strconv.Itoa(stranger)), 0o600); err != nil {
		t.Fatal(err)
	}
	server := startServer(t, cfg)
	if !parent.Running(stranger) {
		t.Error("the stranger that a stale file named was ended")
	}
	text, err := os.ReadFile(cfg.PIDFile)
	if err != nil || strings.TrimSpace(string(text)) != strconv.Itoa(server.PID()) {
		t.Errorf("the pid file has %q, error %v; want %d", text, err, server.PID())
	}
	stop(t, server)
	if exists(cfg.PIDFile) {
		t.Error("after the end the pid file is still there")
	}
}

// By now another process, even of the same user, may have the id in the pid file that Postgres
// itself left.
func TestPostgresOwnPIDFileNamesAStranger(t *testing.T) {
	t.Parallel()
	server := startServer(t, fast(t))
	execute(t, server.URL(), keep)
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	stranger := parent.Background(t, exec.Command("sleep", "1000"), owner(t, server))
	path := filepath.Join(server.Dir(), "postmaster.pid")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text = bytes.Replace(text, []byte(strconv.Itoa(server.PID())), []byte(strconv.Itoa(stranger)), 1)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	again := startServer(t, server.Config())
	if !parent.Running(stranger) {
		t.Error("the stranger was ended")
	}
	if got := query(t, again.URL(), kept); got != "1" {
		t.Errorf("%s rows, want 1", got)
	}
}

// A Postgres that was started on the data by hand is not ended.
func TestAnotherPostgresOnTheSameDataIsRespected(t *testing.T) {
	t.Parallel()
	server := startServer(t, fast(t))
	stop(t, server)
	found, err := findPrograms(t.Context(), debianRoot, 0)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(found.postgres, "-D", ".", "-p", strconv.Itoa(server.Port()), "-c", "unix_socket_directories=")
	cmd.Dir = server.Dir()
	pid := parent.Background(t, cmd, owner(t, server))
	testpeer.Eventually(t, "a start by hand", func() bool { return ready(server.Dir(), pid) })
	_, err = Start(t.Context(), server.Config())
	if err == nil || !strings.Contains(err.Error(), strconv.Itoa(pid)) {
		t.Errorf("error %v, want one that names process %d", err, pid)
	}
	if !parent.Running(pid) {
		t.Error("it was ended")
	}
	query(t, server.URL(), "SELECT 'undisturbed'")
	// An orderly end leaves no shared memory behind.
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	testpeer.Eventually(t, "its end", func() bool { return !exists(filepath.Join(server.Dir(), "postmaster.pid")) })
}

// If the kernel did not end a Postgres with its parent, as happens without a death signal, the
// next start ends it.
func TestAnOrphanOnTheSameDataIsEnded(t *testing.T) {
	t.Parallel()
	server := startServer(t, fast(t))
	execute(t, server.URL(), keep)
	stop(t, server)
	found, err := findPrograms(t.Context(), debianRoot, 0)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(found.postgres, arguments(server.Config(), server.Dir(), server.Port())...)
	cmd.Dir = server.Dir()
	orphan := parent.Background(t, cmd, owner(t, server))
	testpeer.Eventually(t, "the orphan's start", func() bool { return ready(server.Dir(), orphan) })
	var log testpeer.Buffer
	cfg := server.Config()
	cfg.Logger = log.Logger()
	again := startServer(t, cfg)
	if parent.Running(orphan) {
		t.Error("the orphan still runs")
	}
	if !strings.Contains(log.String(), "pid="+strconv.Itoa(orphan)) {
		t.Errorf("the log does not tell of it: %s", log.String())
	}
	if got := query(t, again.URL(), kept); got != "1" {
		t.Errorf("%s rows, want 1", got)
	}
}
