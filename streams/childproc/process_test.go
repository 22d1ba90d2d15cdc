package childproc

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/plugcast/plugcast/transport/testpeer"
	"github.com/plugcast/plugcast/transport/testpeer/parent"
)

func TestMain(m *testing.M) {
	os.Exit(parent.Main(m, func(ctx context.Context, dir string) (parent.Server, string, error) {
		lock, err := Acquire(ctx, filepath.Join(dir, "lock"))
		if err != nil {
			return nil, "", err
		}
		process, err := Start(ctx, sleeper(dir, lock))
		return process, "-", err
	}))
}

// script is a program that runs a shell script and counts as ready at once.
// The script runs in dir and may name the port as $1.
func script(dir string, lock *Lock, text string) Program {
	return Program{
		Name:       "script",
		Path:       "/bin/sh",
		Args:       func(port int) []string { return []string{"-c", text, "sh", strconv.Itoa(port)} },
		Dir:        dir,
		Env:        []string{"PATH=/usr/bin:/bin"},
		StopSignal: syscall.SIGTERM,
		Ready:      func(context.Context, int, int) bool { return true },
		Lock:       lock,
		Logger:     slog.New(slog.DiscardHandler),
	}
}

// sleeper is a program that does nothing for a long time.
func sleeper(dir string, lock *Lock) Program { return script(dir, lock, "exec sleep 1000") }

// whenFile makes a program ready when its script has made the file "ready".
func whenFile(p Program) Program {
	p.Ready = func(context.Context, int, int) bool {
		_, err := os.Stat(filepath.Join(p.Dir, "ready"))
		return err == nil
	}
	return p
}

func acquire(t *testing.T, dir string) *Lock {
	t.Helper()
	lock, err := Acquire(t.Context(), filepath.Join(dir, "lock"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(lock.Release)
	return lock
}

func start(t *testing.T, p Program) *Process {
	t.Helper()
	process, err := Start(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := process.Kill(); err != nil {
			t.Error(err)
		}
	})
	return process
}

func TestStopTwice(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	process := start(t, sleeper(dir, acquire(t, dir)))
	if err := process.Err(); err != nil {
		t.Errorf("while it runs it has ended with %v", err)
	}
	for range 2 {
		if err := process.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := process.Kill(); err != nil {
		t.Errorf("kill after stop: %v", err)
	}
	if parent.Running(process.PID()) {
		t.Error("it still runs")
	}
}

// A child that ignores the request to stop is killed when the context ends.
func TestStopKillsWhatDoesNotStop(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	process := start(t, whenFile(script(dir, acquire(t, dir), `trap "" TERM; touch ready; exec sleep 1000`)))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := process.Stop(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("stop: %v, want to hear that it was killed", err)
	}
	if parent.Running(process.PID()) {
		t.Error("it still runs")
	}
	if process.Err() == nil {
		t.Error("its end by SIGKILL is not told")
	}
}

func TestStartTellsWhyAChildEnded(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	_, err := Start(t.Context(), whenFile(script(dir, acquire(t, dir), `echo no disk >&2; exit 3`)))
	if err == nil || !strings.Contains(err.Error(), "no disk") || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("error %v, want the exit status and what was printed", err)
	}
}

func TestStartEndsWhatDoesNotGetReady(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	var pid int
	program := sleeper(dir, acquire(t, dir))
	program.Ready = func(_ context.Context, child, _ int) bool {
		pid = child
		cancel()
		return false
	}
	if _, err := Start(ctx, program); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want the context's", err)
	}
	if parent.Running(pid) {
		t.Error("the child still runs")
	}
}

func TestStartWithAPortInUse(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	program := sleeper(dir, acquire(t, dir))
	program.Port = listener.Addr().(*net.TCPAddr).Port
	if _, err := Start(t.Context(), program); !errors.Is(err, ErrPortInUse) {
		t.Errorf("error %v, want ErrPortInUse", err)
	}
}

// Another program may take a free port before the child binds it.
func TestStartTriesAnotherPort(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	program := whenFile(sleeper(dir, acquire(t, dir)))
	var ports []int
	program.Args = func(port int) []string {
		ports = append(ports, port)
		if len(ports) > 1 {
			return []string{"-c", "touch ready; exec sleep 1000"}
		}
		listener, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			t.Error(err)
			return nil
		}
		t.Cleanup(func() { _ = listener.Close() })
		return []string{"-c", "exit 1"}
	}
	process := start(t, program)
	if len(ports) != 2 || process.Port() != ports[1] {
		t.Errorf("runs on port %d after trying %v, want the second of two", process.Port(), ports)
	}
}

func TestPIDFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	program := sleeper(dir, acquire(t, dir))
	program.PIDFile = filepath.Join(dir, "pid")
	process := start(t, program)
	text, err := os.ReadFile(program.PIDFile)
	if err != nil || string(text) != strconv.Itoa(process.PID())+"\n" {
		t.Errorf("the pid file has %q, error %v; want %d", text, err, process.PID())
	}
	if err := process.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(program.PIDFile); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after the end the pid file is still there: %v", err)
	}
}

// The lock is held as long as the child lives and free when Done is closed.
func TestLockLivesAsLongAsTheChild(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	process := start(t, sleeper(dir, acquire(t, dir)))
	if _, err := Acquire(t.Context(), filepath.Join(dir, "lock")); !errors.Is(err, ErrLocked) {
		t.Errorf("while the child runs: %v, want ErrLocked", err)
	}
	if err := syscall.Kill(process.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-process.Done()
	acquire(t, dir)
}

func TestChildDoesNotOutliveAKilledParent(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := parent.Start(t, "", dir, nil)
	// The kernel says that a program was started a moment before it shows its arguments.
	testpeer.Eventually(t, "the child's arguments", func() bool { return parent.Running(p.PID) })
	p.Kill(t)
	testpeer.Eventually(t, "the child's end", func() bool { return !parent.Running(p.PID) })
	acquire(t, dir) // the dead parent's lock is free
}
