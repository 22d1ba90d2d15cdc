package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/plugcast/plugcast/cmd/plugcast/demo"
	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/streams/childproc"
	"github.com/plugcast/plugcast/streams/childproc/scratch"
	"github.com/plugcast/plugcast/transport/testpeer"
)

// The tests of this file run plugcast dev as a person does: the real binary on
// an empty directory.

// devRun is a plugcast dev that runs, and what it was seen to start.
type devRun struct {
	data      string // directory
	process   *exec.Cmd
	out, errs *testpeer.Buffer
	ended     chan struct{}
	pids      []int // of it and all that it started
}

// startDev starts plugcast dev on free ports and waits until it says that it is
// ready. The directory above data must let the user postgres through.
func startDev(t *testing.T, data string, args ...string) *devRun {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	args = append([]string{"dev", "--data", data, "--admin-listen", "127.0.0.1:0", "--listen", "127.0.0.1:0"}, args...)
	d := launchDev(t, data, exec.Command(path, args...))
	d.ready(t)
	return d
}

// launchDev starts a command that is a plugcast dev. Its standard input is empty
// and it has no terminal.
func launchDev(t *testing.T, data string, command *exec.Cmd) *devRun {
	t.Helper()
	d := &devRun{data: data, process: command, out: &testpeer.Buffer{}, errs: &testpeer.Buffer{}, ended: make(chan struct{})}
	if command.Env == nil {
		command.Env = []string{"PATH=" + os.Getenv("PATH"), "PLUGCAST_LOG_LEVEL=warn"}
	}
	command.Stdout, command.Stderr = d.out, d.errs
	if command.SysProcAttr == nil {
		command.SysProcAttr = &syscall.SysProcAttr{}
	}
	command.SysProcAttr.Setsid = true
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = command.Wait()
		close(d.ended)
	}()
	t.Cleanup(func() {
		_ = command.Process.Signal(syscall.SIGTERM)
		<-d.ended
		if t.Failed() {
			t.Logf("plugcast dev printed:\n%s", d.errs.Tail())
		}
	})
	return d
}

func (d *devRun) ready(t *testing.T) {
	t.Helper()
	testpeer.Eventually(t, "plugcast dev to be ready", func() bool {
		select {
		case <-d.ended:
			t.Fatalf("plugcast dev ended: %s%s", d.out.Tail(), d.errs.Tail())
		default:
		}
		return regexp.MustCompile(`(?m)^(Ctrl-C stops|Redis and Postgres run)`).MatchString(d.out.Tail())
	})
	d.pids = append(descendants(t, d.process.Process.Pid), d.process.Process.Pid)
	if len(d.pids) < 3 {
		t.Fatalf("these processes are too few to be dev, Redis and Postgres: %v", d.pids)
	}
}

// base is the URL that it printed.
func (d *devRun) base(t *testing.T) string {
	t.Helper()
	found := regexp.MustCompile(`serves at (http://\S+)`).FindStringSubmatch(d.out.Tail())
	if found == nil {
		t.Fatalf("no address in %q", d.out.Tail())
	}
	return found[1]
}

// env is DATA/env as a shell reads it.
func (d *devRun) env(t *testing.T) map[string]string {
	t.Helper()
	shell := exec.Command("sh", "-c", `. "$0" && env`, filepath.Join(d.data, "env"))
	shell.Env = []string{"PATH=" + os.Getenv("PATH")}
	out, err := shell.Output()
	if err != nil {
		t.Fatalf("source env: %v", err)
	}
	env := map[string]string{}
	for line := range strings.Lines(string(out)) {
		if name, value, _ := strings.Cut(strings.TrimSpace(line), "="); strings.HasPrefix(name, "PLUGCAST_") {
			env[name] = value
		}
	}
	return env
}

// pid reads DATA/name.pid; 0 while there is none.
func (d *devRun) pid(name string) int {
	raw, _ := os.ReadFile(filepath.Join(d.data, name+".pid"))
	pid, _ := strconv.Atoi(strings.TrimSpace(string(raw)))
	return pid
}

// stop sends a signal and waits for the end, which must leave nothing behind.
func (d *devRun) stop(t *testing.T, signal syscall.Signal) {
	t.Helper()
	if err := d.process.Process.Signal(signal); err != nil {
		t.Fatal(err)
	}
	testpeer.Eventually(t, "plugcast dev to end", func() bool {
		select {
		case <-d.ended:
			return true
		default:
			return false
		}
	})
	if code := d.process.ProcessState.ExitCode(); code != exitDone && signal != syscall.SIGKILL {
		t.Errorf("exit code %d after %v: %s", code, signal, d.errs.Tail())
	}
	d.gone(t)
}

// gone waits until no process is left of those that were seen. After an orderly
// stop there is nothing to wait for; the kernel needs a moment after a kill.
func (d *devRun) gone(t *testing.T) {
	t.Helper()
	testpeer.Eventually(t, fmt.Sprintf("the processes %v to be gone", d.pids), func() bool {
		for _, pid := range d.pids {
			if alive(pid) {
				return false
			}
		}
		return true
	})
}

// alive tells whether a process runs. One that ended and was not waited for does
// not.
func alive(pid int) bool {
	argv, err := childproc.CommandLine(pid)
	return err == nil && len(argv) > 0
}

// descendants lists the children of a process, and theirs.
func descendants(t *testing.T, pid int) (pids []int) {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		raw, _ := os.ReadFile(task) // a thread may end meanwhile
		for _, word := range strings.Fields(string(raw)) {
			child, err := strconv.Atoi(word)
			if err != nil {
				t.Fatal(err)
			}
			pids = append(append(pids, child), descendants(t, child)...)
		}
	}
	return pids
}

// append publishes an update and waits until history has it.
func (d *devRun) append(t *testing.T, secret string, system domain.SystemID, power int) {
	t.Helper()
	body := fmt.Sprintf(`[{"systemId":%q,"deviceId":"plug-1","powerW":%d}]`, system, power)
	testpeer.Eventually(t, "an append to work", func() bool {
		status, _, _, err := call(t.Context(), "POST", d.base(t)+"/api/v1/device-updates", signed(t, secret, domain.RoleService, system), body)
		return err == nil && status == 200
	})
	testpeer.Eventually(t, "a read to see it", func() bool {
		return strings.Contains(d.history(t, secret, system), fmt.Sprintf(`"powerW":%d`, power))
	})
}

// history is the newest events of a system, as the server answers them.
func (d *devRun) history(t *testing.T, secret string, system domain.SystemID) string {
	t.Helper()
	path := fmt.Sprintf("/api/v1/systems/%s/events?order=desc&limit=1000", system)
	_, _, answer, _ := call(t.Context(), "GET", d.base(t)+path, signed(t, secret, domain.RoleAuditor, system), nil)
	return string(answer)
}

func TestDev(t *testing.T) {
	t.Parallel()
	d := startDev(t, filepath.Join(scratch.For(t), "data"))

	if info, err := os.Stat(filepath.Join(d.data, "env")); err != nil || info.Mode() != 0o600 {
		t.Errorf("env has mode %v (%v)", info.Mode(), err)
	}
	env := d.env(t)
	for _, name := range []string{"PLUGCAST_REDIS_URL", "PLUGCAST_POSTGRES_URL", "PLUGCAST_JWT_SECRET", "PLUGCAST_SECRET_KEY"} {
		if env[name] == "" {
			t.Errorf("env lacks %s", name)
		}
	}
	d.keepsOthersOut(t, env)
	var vars []string
	for name, value := range env {
		vars = append(vars, name+"="+value)
	}
	if r := plugcast(t, vars, "verify", "--system", "clinica-sol"); r.code != exitDone {
		t.Errorf("a second process with env: %+v", r)
	}

	for _, system := range demo.Systems() {
		link := regexp.MustCompile(string(system) + ` +(http://\S+)`).FindStringSubmatch(d.out.Tail())
		if link == nil {
			t.Fatalf("no link for %s in %q", system, d.out.Tail())
		}
		at, err := url.Parse(link[1])
		if err != nil {
			t.Fatal(err)
		}
		login, err := url.ParseQuery(at.Fragment)
		if err != nil || login.Get("system") != string(system) {
			t.Errorf("the link of %s is of %v (%v)", system, login["system"], err)
		}
		testpeer.Eventually(t, "the demo's plugs to be installed", func() bool {
			_, _, answer, err := call(t.Context(), "GET", d.base(t)+"/api/v1/systems/"+string(system)+"/devices", login.Get("token"), nil)
			return err == nil && strings.Count(string(answer), `"assignment":{`) == len(demo.Plugs(system))
		})
		if status, _, _, err := call(t.Context(), "GET", "http://"+at.Host+"/", "", nil); err != nil || status != 200 {
			t.Errorf("the link answers %d %v", status, err)
		}
	}

	for i, name := range []string{"redis", "postgres", "redis", "postgres"} {
		before := d.pid(name)
		if !alive(before) {
			t.Fatalf("%s.pid has %d, which does not run", name, before)
		}
		if err := syscall.Kill(before, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		testpeer.Eventually(t, name+" to run again", func() bool { now := d.pid(name); return now != before && alive(now) })
		d.append(t, env["PLUGCAST_JWT_SECRET"], "mine", 1000+i)
	}
	d.pids = append(descendants(t, d.process.Process.Pid), d.process.Process.Pid)
	d.stop(t, syscall.SIGTERM)
	for _, name := range []string{"redis", "postgres"} {
		if _, err := os.Stat(filepath.Join(d.data, name+".pid")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s.pid is still there: %v", name, err)
		}
	}
}

// keepsOthersOut finds out that other users of the machine, who reach the ports and
// see command lines, get at no data.
func (d *devRun) keepsOthersOut(t *testing.T, env map[string]string) {
	t.Helper()
	for _, name := range []string{"PLUGCAST_REDIS_URL", "PLUGCAST_POSTGRES_URL"} {
		at, err := url.Parse(env[name])
		if err != nil {
			t.Fatal(err)
		}
		password, _ := at.User.Password()
		if len(password) < 20 {
			t.Errorf("%s has the password %q", name, password)
		}
		for _, pid := range d.pids {
			for _, file := range []string{"cmdline", "environ"} {
				text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file)) // a process that is gone shows nothing
				if bytes.Contains(text, []byte(password)) {
					t.Errorf("process %d shows the password of %s in its %s", pid, name, file)
				}
			}
		}
		if name == "PLUGCAST_REDIS_URL" {
			forged := raw(t, "http://"+at.Host, "SET plugcast:ticket:forged staff\r\n")
			answer := make([]byte, 7)
			if _, err := io.ReadFull(forged, answer); err != nil || string(answer) != "-NOAUTH" {
				t.Errorf("Redis answers a stranger %q (%v)", answer, err)
			}
			continue
		}
		for _, user := range []*url.Userinfo{url.User("plugcast"), url.UserPassword("plugcast", "guess"), url.User("postgres")} {
			at.User = user
			if conn, err := pgx.Connect(t.Context(), at.String()); err == nil {
				_ = conn.Close(t.Context())
				t.Errorf("Postgres lets %s in", user)
			}
		}
	}
}

// A dev that is killed, or stopped, blocks nothing: the next has its data, its
// addresses and its secrets. While one runs there is no second on its data.
func TestDevAgainOnTheSameData(t *testing.T) {
	t.Parallel()
	data := filepath.Join(scratch.For(t), "data")
	first := startDev(t, data, "--demo=false")
	env := first.env(t)
	secret := env["PLUGCAST_JWT_SECRET"]
	first.append(t, secret, "mine", 1)

	plugcast(t, nil, "dev", "--data", data, "--listen", "127.0.0.1:0").wants(t, exitFailed, "another plugcast dev runs on this data directory")
	plugcast(t, nil, "dev", "--data", data, "--listen", "127.0.0.1:0", "--services-only").wants(t, exitFailed, "another plugcast dev")
	first.append(t, secret, "mine", 2) // unharmed

	first.stop(t, syscall.SIGKILL)
	second := startDev(t, data, "--no-demo")
	second.append(t, secret, "mine", 3)
	second.stop(t, syscall.SIGINT)

	third := startDev(t, data, "--no-demo")
	testpeer.Eventually(t, "the history of all runs", func() bool { return strings.Count(third.history(t, secret, "mine"), `"powerW":`) == 3 })
	if now := third.env(t); fmt.Sprint(now) != fmt.Sprint(env) {
		t.Error("addresses or secrets have changed")
	}
	for _, d := range []*devRun{first, second, third} {
		if strings.Contains(d.out.Tail(), "clinica-sol") {
			t.Errorf("without the demo there is no link to it: %s", d.out.Tail())
		}
	}
	if answer := third.history(t, secret, "clinica-sol"); strings.Contains(answer, "powerW") {
		t.Errorf("without the demo it must not feed: %s", answer)
	}
}

// The env file was garbled, and somebody else has the ports by now.
func TestDevWithAGarbledEnvFile(t *testing.T) {
	t.Parallel()
	data := filepath.Join(scratch.For(t), "data")
	if err := os.Mkdir(data, 0o755); err != nil {
		t.Fatal(err)
	}
	taken := mute(t)
	for _, garbled := range []string{
		"\x00\x01 not ' an env file\nexport PLUGCAST_JWT_SECRET='short'\nexport PLUGCAST_SECRET_KEY=" + strings.Repeat("k", 70<<10),
		fmt.Sprintf("export PLUGCAST_REDIS_URL='redis://%s/0'\nexport PLUGCAST_POSTGRES_URL='postgres://u:p@%s/d'\n", taken, taken),
		"export PLUGCAST_REDIS_URL='redis://127.0.0.1:99999'\nexport PLUGCAST_POSTGRES_URL=':::'\nexport MINE='it'\\''s'\n",
	} {
		if err := os.WriteFile(filepath.Join(data, "env"), []byte(garbled), 0o644); err != nil {
			t.Fatal(err)
		}
		d := startDev(t, data, "--services-only")
		if info, err := os.Stat(filepath.Join(data, "env")); err != nil || info.Mode() != 0o600 {
			t.Errorf("env has mode %v (%v)", info.Mode(), err)
		}
		vars := []string{"PLUGCAST_LOG_LEVEL=warn"}
		for name, value := range d.env(t) {
			vars = append(vars, name+"="+value)
		}
		if len(vars) != 5 {
			t.Errorf("env has %d variables", len(vars)-1)
		}
		if r := plugcast(t, vars, "token", "--system", "s", "--role", "viewer"); r.code != exitDone {
			t.Errorf("token: %+v", r)
		}
		if r := plugcast(t, vars, "verify", "--system", "s"); r.code != exitDone {
			t.Errorf("verify: %+v", r)
		}
		d.stop(t, syscall.SIGINT)
	}
}

func TestDevWhenAPortIsTaken(t *testing.T) {
	t.Parallel()
	taken := mute(t)
	data := filepath.Join(scratch.For(t), "data")
	plugcast(t, nil, "dev", "--data", data, "--listen", taken).wants(t, exitFailed, "cannot listen on "+taken)
	if _, err := os.Stat(data); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it began to make things: %v", err)
	}
	// This one is found out when Redis and Postgres run already.
	env := []string{"PLUGCAST_LOG_LEVEL=warn"}
	plugcast(t, env, "dev", "--data", data, "--listen", "127.0.0.1:0", "--admin-listen", taken).wants(t, exitFailed, "--admin-listen")
	d := devRun{data: data}
	if d.pid("redis") != 0 || d.pid("postgres") != 0 {
		t.Errorf("left running: %d %d", d.pid("redis"), d.pid("postgres"))
	}
	plugcast(t, nil, "dev", "--data", "/proc/nothing", "--listen", "127.0.0.1:0").wants(t, exitFailed, "data directory")
}

// A first start that is broken off leaves nothing running, and nothing that
// would block the next.
func TestDevIsInterruptedWhileItStarts(t *testing.T) {
	t.Parallel()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(scratch.For(t), "data")
	d := launchDev(t, data, exec.Command(path, "dev", "--data", data, "--listen", "127.0.0.1:0", "--services-only"))
	testpeer.Eventually(t, "Redis", func() bool { return d.pid("redis") != 0 })
	d.pids = append(descendants(t, d.process.Process.Pid), d.process.Process.Pid)
	d.stop(t, syscall.SIGINT)
	if text := d.errs.Tail(); text != "" {
		t.Errorf("it must end without a word: %s", text)
	}
	startDev(t, data, "--services-only").stop(t, syscall.SIGTERM)
}

// Somebody who is not root, in a shell whose standard input is closed.
func TestDevAsNormalUser(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("only root can become somebody else; the other tests of dev run as this user")
	}
	nobody, err := user.Lookup("nobody")
	if err != nil {
		t.Skip("there is no user nobody")
	}
	uid, _ := strconv.Atoi(nobody.Uid)
	gid, _ := strconv.Atoi(nobody.Gid)
	original, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	dir := scratch.For(t)
	program := filepath.Join(dir, "plugcast") // where nobody may run it
	raw, err := os.ReadFile(original)
	if err == nil {
		err = os.WriteFile(program, raw, 0o755)
	}
	home := filepath.Join(dir, "home")
	if err == nil {
		err = os.Mkdir(home, 0o700)
	}
	if err == nil {
		err = os.Chown(home, uid, gid)
	}
	if err != nil {
		t.Fatal(err)
	}
	command := exec.Command("sh", "-c", `exec "$0" "$@" <&-`, program, "dev", "--listen", "localhost:0", "--admin-listen", "127.0.0.1:0")
	command.Dir = home
	command.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	d := launchDev(t, filepath.Join(home, ".plugcast"), command)
	d.ready(t)
	d.append(t, d.env(t)["PLUGCAST_JWT_SECRET"], "mine", 7)
	if !strings.Contains(d.out.Tail(), "source .plugcast/env\n") {
		t.Errorf("it must say which file to source: %s", d.out.Tail())
	}
	d.stop(t, syscall.SIGINT)
}

// Root with a strict umask makes directories that the user postgres cannot pass
// through: the data are elsewhere then, where it can.
func TestDevUnderAStrictUmask(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("only root runs Postgres as somebody else")
	}
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(scratch.For(t), "it's private")
	t.Cleanup(func() {
		if target, err := os.Readlink(filepath.Join(data, "postgres")); err == nil {
			_ = os.RemoveAll(target)
			_ = os.Remove(filepath.Dir(target)) // unless somebody else's data are there
		}
	})
	d := launchDev(t, data, exec.Command("sh", "-c", `umask 077 && exec "$0" "$@"`, path, "dev", "--data", data, "--services-only"))
	d.ready(t)
	if info, err := os.Stat(data); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the data directory has mode %v (%v)", info.Mode(), err)
	}
	if target, err := os.Readlink(filepath.Join(data, "postgres")); err != nil || strings.HasPrefix(target, data) {
		t.Errorf("the data of Postgres are in %s (%v)", target, err)
	}
	d.stop(t, syscall.SIGTERM)
}

func TestReachable(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"127.0.0.1:80": "127.0.0.1:80", "[::1]:80": "[::1]:80", "10.1.2.3:80": "10.1.2.3:80",
		"[::]:80": "localhost:80", "0.0.0.0:80": "localhost:80",
	} {
		if got := reachable(address); got != want {
			t.Errorf("%s is reachable at %s, want %s", address, got, want)
		}
	}
	listener, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	conn, err := net.Dial("tcp", reachable(listener.Addr().String()))
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
}

func TestPathToSource(t *testing.T) {
	t.Parallel()
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		filepath.Join(here, ".plugcast", "env"): ".plugcast/env",
		filepath.Join(here, "env"):              "./env", // a shell would look for a bare name in PATH
		"/env":                                  "/env",
		"/a b/it's/env":                         `'/a b/it'\''s/env'`,
	} {
		if got := shellWord(relative(path)); got != want {
			t.Errorf("%s is shown as %s, want %s", path, got, want)
		}
	}
}
