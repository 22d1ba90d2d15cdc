package redisserver

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/plugcast/plugcast/streams/childproc"
	"github.com/plugcast/plugcast/streams/childproc/scratch"
)

// helperDir, when set, makes the test binary a parent that runs a Redis on
// that directory until it is killed.
const helperDir = "REDISSERVER_TEST_PARENT_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(helperDir); dir != "" {
		beParent(dir)
		return
	}
	os.Exit(m.Run())
}

func beParent(dir string) {
	server, err := Start(context.Background(), Config{Dir: dir, PIDFile: dir + ".pid"})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(server.PID(), server.Addr())
	<-server.Done()
}

// parent is a process of its own that runs a Redis.
type parent struct {
	cmd    *exec.Cmd
	stdout io.Reader
	pid    int // of the Redis
	addr   string
}

// startParent runs program, which is this test binary, as the user that
// credential names.
func startParent(t *testing.T, program, dir string, credential *syscall.Credential) *parent {
	t.Helper()
	p := &parent{cmd: exec.Command(program)}
	p.cmd.Env = append(os.Environ(), helperDir+"="+dir)
	p.cmd.Dir = "/"
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: credential}
	var err error
	if p.stdout, err = p.cmd.StdoutPipe(); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
	})
	line, _ := bufio.NewReader(p.stdout).ReadString('\n')
	if n, _ := fmt.Sscan(line, &p.pid, &p.addr); n != 2 {
		t.Fatalf("the parent failed: %s", line)
	}
	return p
}

// kill kills the parent and waits until it is gone. Its Redis may take longer.
func (p *parent) kill(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, p.stdout)
	_ = p.cmd.Wait()
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

func running(pid int) bool {
	argv, err := childproc.CommandLine(pid)
	return err == nil && len(argv) > 0
}

// stranger starts an innocent process.
func stranger(t *testing.T) int {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd.Process.Pid
}

// self is the path of this test binary.
func self(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
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
	pid := stranger(t)
	cfg := Config{Dir: t.TempDir(), PIDFile: filepath.Join(t.TempDir(), "redis.pid")}
	if err := os.WriteFile(cfg.PIDFile, []byte(strconv.Itoa(pid)), 0o600); err != nil {
		t.Fatal(err)
	}
	server := startServer(t, cfg)
	if !running(pid) {
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
		p := startParent(t, self(t), dir, nil)
		for earlier := range round {
			wantKept(t, p.addr, strconv.Itoa(earlier))
		}
		set(t, p.addr, strconv.Itoa(round))
		p.kill(t)
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
	if err := orphan.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = orphan.Process.Kill()
		_ = orphan.Wait()
	})
	var log bytes.Buffer
	cfg := server.Config()
	cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
	again := startServer(t, cfg)
	if running(orphan.Process.Pid) {
		t.Error("the orphan still runs")
	}
	if !strings.Contains(log.String(), "pid="+strconv.Itoa(orphan.Process.Pid)) {
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
	if os.Geteuid() != 0 {
		t.Skip("every test runs as an ordinary user already")
	}
	nobody, err := user.Lookup("nobody")
	if err != nil {
		t.Fatal(err)
	}
	uid, err := strconv.Atoi(nobody.Uid)
	gid, err2 := strconv.Atoi(nobody.Gid)
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	dir := scratch.For(t)
	program := filepath.Join(dir, "parent")
	if out, err := exec.Command("cp", self(t), program).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	home := filepath.Join(dir, "home")
	if err := errors.Join(os.Mkdir(home, 0o700), os.Chown(home, uid, gid)); err != nil {
		t.Fatal(err)
	}
	credential := &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	for round, user := range []*syscall.Credential{credential, nil, credential} {
		p := startParent(t, program, filepath.Join(home, "redis"), user)
		info, err := os.Stat(filepath.Join("/proc", strconv.Itoa(p.pid)))
		if err != nil {
			t.Fatal(err)
		}
		if uid := info.Sys().(*syscall.Stat_t).Uid; uid != credential.Uid {
			t.Errorf("the server runs as user %d, want %d", uid, credential.Uid)
		}
		if round > 0 {
			wantKept(t, p.addr, "key")
		}
		set(t, p.addr, "key")
		p.kill(t)
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
