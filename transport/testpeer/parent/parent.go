// Package parent runs the test binary once more, as the parent of a server, so that a
// test can kill it: what starts servers has to work after that.
package parent

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"github.com/plugcast/plugcast/streams/childproc/scratch"
)

// directory, when set, makes the test binary a parent.
const directory = "PLUGCAST_TEST_PARENT_DIR"

// Server is a process that a parent started.
type Server interface {
	PID() int
	Done() <-chan struct{}
}

// Main runs the tests of a package and returns their exit code. In a process that
// [Start] made it starts a server on a directory instead, and returns when that ended.
// The address is what tests reach the server at, and may be "-".
func Main(m *testing.M, start func(ctx context.Context, dir string) (server Server, address string, err error)) int {
	dir := os.Getenv(directory)
	if dir == "" {
		return m.Run()
	}
	server, address, err := start(context.Background(), dir)
	if err != nil {
		fmt.Println("failed:", err)
		return 1
	}
	fmt.Println(server.PID(), address)
	<-server.Done()
	return 0
}

// Parent is a process of its own that runs a server.
type Parent struct {
	PID     int    // of the server
	Address string // of the server

	cmd    *exec.Cmd
	stdout io.Reader
}

// Start starts a parent, which starts its server on dir. program is a copy of this
// test binary, or "" for the binary itself; it runs as the user that the credential
// names, or as this process' user.
func Start(t testing.TB, program, dir string, credential *syscall.Credential) *Parent {
	t.Helper()
	if program == "" {
		program = self(t)
	}
	p := &Parent{cmd: exec.Command(program)}
	p.cmd.Env = append(os.Environ(), directory+"="+dir)
	p.cmd.Dir = "/"
	var err error
	if p.stdout, err = p.cmd.StdoutPipe(); err != nil {
		t.Fatal(err)
	}
	Background(t, p.cmd, credential)
	line, _ := bufio.NewReader(p.stdout).ReadString('\n')
	if n, _ := fmt.Sscan(line, &p.PID, &p.Address); n != 2 {
		t.Fatalf("the parent failed: %s", line)
	}
	return p
}

// Kill kills the parent and waits until it is gone. Its server may take longer.
func (p *Parent) Kill(t testing.TB) {
	t.Helper()
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, p.stdout)
	_ = p.cmd.Wait()
}

// Background starts a program that is no child of the server's package as far as that
// knows, and returns its pid. It is killed when the test is over.
func Background(t testing.TB, cmd *exec.Cmd, credential *syscall.Credential) (pid int) {
	t.Helper()
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: credential}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd.Process.Pid
}

// Running reports whether a process runs and shows its arguments, which it does a
// moment after it was started.
func Running(pid int) bool {
	argv, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
	return err == nil && len(argv) > 0
}

// RunsAs demands that a process runs as the user that the credential names.
func RunsAs(t testing.TB, pid int, credential *syscall.Credential) {
	t.Helper()
	info, err := os.Stat(filepath.Join("/proc", strconv.Itoa(pid)))
	if err != nil {
		t.Fatal(err)
	}
	if uid := info.Sys().(*syscall.Stat_t).Uid; uid != credential.Uid {
		t.Errorf("the server runs as user %d, want %d", uid, credential.Uid)
	}
}

// Ordinary returns a user who is not root, and a directory of that user with a copy of
// this test binary, which otherwise lies where only root gets to. The test is skipped
// when it does not run as root.
func Ordinary(t testing.TB) (credential *syscall.Credential, home, program string) {
	t.Helper()
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
	home = filepath.Join(scratch.For(t), "home")
	if err := errors.Join(os.Mkdir(home, 0o755), os.Chown(home, uid, gid)); err != nil {
		t.Fatal(err)
	}
	program = filepath.Join(home, "parent")
	if out, err := exec.Command("cp", self(t), program).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, home, program
}

// self is the path of this test binary.
func self(t testing.TB) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}
