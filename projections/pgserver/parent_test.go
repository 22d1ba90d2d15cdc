package pgserver

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
	"github.com/plugcast/plugcast/transport/testpeer"
)

// helperDir, when set, makes the test binary a parent that runs a Postgres on
// that directory until it is killed.
const helperDir = "PGSERVER_TEST_PARENT_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(helperDir); dir != "" {
		beParent(dir)
		return
	}
	os.Exit(m.Run())
}

func beParent(dir string) {
	server, err := Start(context.Background(), Config{Dir: dir})
	if err != nil {
		fmt.Println("failed:", err)
		return
	}
	fmt.Println(server.PID(), server.URL())
	<-server.Done()
}

// parent is a process of its own that runs a Postgres.
type parent struct {
	cmd    *exec.Cmd
	stdout io.Reader
	pid    int // of the Postgres
	url    string
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
	if n, _ := fmt.Sscan(line, &p.pid, &p.url); n != 2 {
		t.Fatalf("the parent failed: %s", line)
	}
	return p
}

// kill kills the parent and waits until it is gone. Its Postgres may take
// longer.
func (p *parent) kill(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, p.stdout)
	_ = p.cmd.Wait()
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

func TestPostgresDoesNotOutliveAKilledParent(t *testing.T) {
	t.Parallel()
	p := startParent(t, self(t), filepath.Join(scratch.For(t), "data"), nil)
	p.kill(t)
	testpeer.Eventually(t, "the end of Postgres", func() bool { return !running(p.pid) })
}

func TestDataSurviveAKilledParent(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(scratch.For(t), "data")
	const rounds = 3
	for range rounds {
		p := startParent(t, self(t), dir, nil)
		execute(t, p.url, keep)
		p.kill(t)
	}
	server := startServer(t, Config{Dir: dir})
	if got := query(t, server.URL(), kept); got != strconv.Itoa(rounds) {
		t.Errorf("%s rows, want %d", got, rounds)
	}
}

// ordinary returns a user who is not root, and a directory of that user with
// a copy of this test binary, which otherwise lies where only root gets to.
func ordinary(t *testing.T) (credential *syscall.Credential, home, program string) {
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

// An ordinary user's data stay that user's when root serves them in between.
func TestStartAsAnOrdinaryUserAndAsRoot(t *testing.T) {
	t.Parallel()
	credential, home, program := ordinary(t)
	dir := filepath.Join(home, "data")
	users := []*syscall.Credential{credential, nil, credential}
	for _, user := range users {
		p := startParent(t, program, dir, user)
		info, err := os.Stat(filepath.Join("/proc", strconv.Itoa(p.pid)))
		if err != nil {
			t.Fatal(err)
		}
		if uid := info.Sys().(*syscall.Stat_t).Uid; uid != credential.Uid {
			t.Errorf("the server runs as user %d, want %d", uid, credential.Uid)
		}
		execute(t, p.url, keep)
		p.kill(t)
		testpeer.Eventually(t, "the end of Postgres", func() bool { return !running(p.pid) })
	}
	server := startServer(t, Config{Dir: dir})
	if got := query(t, server.URL(), kept); got != strconv.Itoa(len(users)) {
		t.Errorf("%s rows, want %d", got, len(users))
	}
}
