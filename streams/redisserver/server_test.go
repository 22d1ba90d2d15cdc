package redisserver

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/plugcast/plugcast/streams/childproc"
	"github.com/plugcast/plugcast/streams/childproc/scratch"
	"github.com/plugcast/plugcast/transport/testpeer/parent"
)

func TestMain(m *testing.M) {
	os.Exit(parent.Main(m, func(ctx context.Context, dir string) (parent.Server, string, error) {
		server, err := Start(ctx, Config{Dir: dir, PIDFile: dir + ".pid"})
		if err != nil {
			return nil, "", err
		}
		return server, server.Addr(), nil
	}))
}

func startServer(t *testing.T, cfg Config) *Server {
	t.Helper()
	server, err := Start(t.Context(), cfg)
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

func client(t *testing.T, addr string) *redis.Client {
	t.Helper()
	c := redis.NewClient(&redis.Options{Addr: addr})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func set(t *testing.T, addr, key string) {
	t.Helper()
	if err := client(t, addr).Set(t.Context(), key, "kept", 0).Err(); err != nil {
		t.Fatal(err)
	}
}

func wantKept(t *testing.T, addr, key string) {
	t.Helper()
	if got, err := client(t, addr).Get(t.Context(), key).Result(); err != nil || got != "kept" {
		t.Errorf("%s = %q, error %v; want what was set before", key, got, err)
	}
}

func TestDataSurviveStopAndKill(t *testing.T) {
	t.Parallel()
	server := startServer(t, Config{Dir: filepath.Join(t.TempDir(), "made", "for", "it")})
	set(t, server.Addr(), "first")
	for range 2 {
		if err := server.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	<-server.Done()
	if err := server.Err(); err != nil {
		t.Errorf("an orderly end is told as %v", err)
	}

	server = startServer(t, server.Config())
	wantKept(t, server.Addr(), "first")
	set(t, server.Addr(), "second")
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	if server.Err() == nil {
		t.Error("an end by SIGKILL is not told")
	}

	again := startServer(t, server.Config())
	if again.URL() != server.URL() {
		t.Errorf("came back at %s, was at %s", again.URL(), server.URL())
	}
	wantKept(t, again.Addr(), "first")
	wantKept(t, again.Addr(), "second")
}

func TestEveryWriteIsOnDiskBeforeItIsAcknowledged(t *testing.T) {
	t.Parallel()
	server := startServer(t, Config{Dir: t.TempDir()})
	config, err := client(t, server.Addr()).ConfigGet(t.Context(), "append*").Result()
	if err != nil {
		t.Fatal(err)
	}
	if config["appendonly"] != "yes" || config["appendfsync"] != "always" {
		t.Errorf("appendonly %s, appendfsync %s; want yes and always", config["appendonly"], config["appendfsync"])
	}
}

func TestNothingOfTheEnvironmentIsPassedOn(t *testing.T) {
	t.Setenv("PLUGCAST_JWT_SECRET", "hush")
	server := startServer(t, Config{Dir: t.TempDir()})
	environ, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(server.PID()), "environ"))
	if err != nil {
		t.Fatal(err)
	}
	if len(environ) == 0 || bytes.Contains(environ, []byte("hush")) {
		t.Errorf("environment %q, want one without our secrets", environ)
	}
}

func TestASecondServerOnTheSameDataIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	server := startServer(t, Config{Dir: dir})
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{dir, link} {
		if _, err := Start(t.Context(), Config{Dir: dir}); !errors.Is(err, childproc.ErrLocked) {
			t.Errorf("error %v, want ErrLocked", err)
		}
	}
	set(t, server.Addr(), "undisturbed")
}

func TestPortInUse(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{Dir: t.TempDir(), Port: listener.Addr().(*net.TCPAddr).Port}
	_, err = Start(t.Context(), cfg)
	if !errors.Is(err, childproc.ErrPortInUse) || !strings.Contains(err.Error(), listener.Addr().String()) {
		t.Errorf("error %v, want ErrPortInUse with the address", err)
	}
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	startServer(t, cfg) // the failure left nothing in the way
}

func TestRedisIsNotInstalled(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := Start(t.Context(), Config{Dir: t.TempDir()})
	if err == nil || !strings.Contains(err.Error(), "apt-get install redis-server") {
		t.Errorf("error %v, want to hear how to install it", err)
	}
}

func TestNoDirectoryIsGiven(t *testing.T) {
	t.Parallel()
	if _, err := Start(t.Context(), Config{}); err == nil {
		t.Error("no error")
	}
}

// While many look for a free port, a stranger's Redis may answer on ours.
func TestAnotherRedisIsNotTakenForOurs(t *testing.T) {
	t.Parallel()
	server := startServer(t, Config{Dir: t.TempDir()})
	if !ready(t.Context(), "", server.PID(), server.Port()) {
		t.Error("our own does not count as ready")
	}
	if ready(t.Context(), "", os.Getpid(), server.Port()) {
		t.Error("another process' Redis counts as ours")
	}
}

func TestAStalePIDFileThatNamesAStranger(t *testing.T) {
	t.Parallel()
	pid := parent.Background(t, exec.Command("sleep", "1000"), nil)
	cfg := Config{Dir: t.TempDir(), PIDFile: filepath.Join(t.TempDir(), "redis.pid")}
	if err := os.WriteFile(cfg.PIDFile, []byte(strconv.Itoa(pid)), 0o600); err != nil {
		t.Fatal(err)
	}
	server := startServer(t, cfg)
	if !parent.Running(pid) {
		t.Error("the stranger was ended")
	}
	text, err := os.ReadFile(cfg.PIDFile)
	if err != nil || strings.TrimSpace(string(text)) != strconv.Itoa(server.PID()) {
		t.Errorf("the pid file has %q, error %v; want %d", text, err, server.PID())
	}
}

func TestDataSurviveAKilledParent(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(scratch.For(t), "redis")
	for round := range 3 {
		p := parent.Start(t, "", dir, nil)
		for earlier := range round {
			wantKept(t, p.Address, strconv.Itoa(earlier))
		}
		set(t, p.Address, strconv.Itoa(round))
		p.Kill(t)
	}
	server := startServer(t, Config{Dir: dir})
	for round := range 3 {
		wantKept(t, server.Addr(), strconv.Itoa(round))
	}
}

// A Redis that the kernel did not end with its parent, as happens where there
// is no death signal, is ended by the next start.
func TestAnOrphanOnTheSameDataIsEnded(t *testing.T) {
	t.Parallel()
	server := startServer(t, Config{Dir: t.TempDir()})
	set(t, server.Addr(), "key")
	if err := server.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	orphan := exec.Command("redis-server", arguments(server.Config(), server.Port())...)
	pid := parent.Background(t, orphan, nil)
	var log bytes.Buffer
	cfg := server.Config()
	cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
	again := startServer(t, cfg)
	if parent.Running(pid) {
		t.Error("the orphan still runs")
	}
	if !strings.Contains(log.String(), "pid="+strconv.Itoa(pid)) {
		t.Errorf("the log does not tell of it: %s", log.String())
	}
	wantKept(t, again.Addr(), "key")
}

// What a machine's crash leaves: the last write is on disk in part.
func TestATruncatedLogIsLoaded(t *testing.T) {
	t.Parallel()
	server := startServer(t, Config{Dir: t.TempDir()})
	set(t, server.Addr(), "whole")
	set(t, server.Addr(), "torn")
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	logs, err := filepath.Glob(filepath.Join(server.Dir(), "appendonlydir", "*.incr.aof"))
	if err != nil || len(logs) != 1 {
		t.Fatalf("logs %v, error %v; want one", logs, err)
	}
	info, err := os.Stat(logs[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(logs[0], info.Size()-3); err != nil {
		t.Fatal(err)
	}
	server = startServer(t, server.Config())
	wantKept(t, server.Addr(), "whole")
	if n, err := client(t, server.Addr()).Exists(t.Context(), "torn").Result(); err != nil || n != 0 {
		t.Errorf("the torn write counts %d, error %v; want 0", n, err)
	}
}

// An ordinary user's data stay that user's when root serves them in between.
func TestStartAsAnOrdinaryUserAndAsRoot(t *testing.T) {
	t.Parallel()
	credential, home, program := parent.Ordinary(t)
	for round, user := range []*syscall.Credential{credential, nil, credential} {
		p := parent.Start(t, program, filepath.Join(home, "redis"), user)
		parent.RunsAs(t, p.PID, credential)
		if round > 0 {
			wantKept(t, p.Address, "key")
		}
		set(t, p.Address, "key")
		p.Kill(t)
	}
}

// With a password nobody gets in without it, and no other user of the machine can
// see it: neither among the arguments nor in a file.
func TestPassword(t *testing.T) {
	t.Parallel()
	const password = "s3cret_of-the-test"
	server := startServer(t, Config{Dir: t.TempDir(), Password: password})
	for range 2 {
		if err := client(t, server.Addr()).Set(t.Context(), "key", "forged", 0).Err(); err == nil || !strings.Contains(err.Error(), "NOAUTH") {
			t.Errorf("without the password: %v", err)
		}
		options, err := redis.ParseURL(server.URL())
		if err != nil {
			t.Fatal(err)
		}
		knows := redis.NewClient(options)
		defer knows.Close()
		if err := knows.Set(t.Context(), "key", "kept", 0).Err(); err != nil {
			t.Errorf("with the password: %v", err)
		}
		for _, file := range []string{"cmdline", "environ"} {
			text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(server.PID()), file))
			if err != nil || len(text) == 0 || bytes.Contains(text, []byte(password)) {
				t.Errorf("%s: %q (%v)", file, text, err)
			}
		}
		err = filepath.WalkDir(server.Dir(), func(path string, entry fs.DirEntry, err error) error {
			if err != nil || !entry.Type().IsRegular() {
				return err
			}
			text, err := os.ReadFile(path)
			if bytes.Contains(text, []byte(password)) {
				t.Errorf("the password is in %s", path)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
		if err := server.Kill(); err != nil {
			t.Fatal(err)
		}
		server = startServer(t, server.Config())
	}
	for _, bad := range []string{"two words", "quo\"te", "line\nend"} {
		if _, err := Start(t.Context(), Config{Dir: t.TempDir(), Password: bad}); err == nil || strings.Contains(err.Error(), bad) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
