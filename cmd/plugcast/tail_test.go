package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/testpeer"
)

// following is a tail that runs.
type following struct {
	process *exec.Cmd
	lines   io.ReadCloser
	stderr  *testpeer.Buffer
}

func follow(t *testing.T, env []string, args ...string) *following {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	f := &following{process: exec.Command(path, append([]string{"tail"}, args...)...), stderr: &testpeer.Buffer{}}
	f.process.Env, f.process.Stderr = env, f.stderr
	if f.lines, err = f.process.StdoutPipe(); err != nil {
		t.Fatal(err)
	}
	if err := f.process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = f.process.Process.Kill()
		_ = f.process.Wait()
	})
	return f
}

// read reads the given number of lines, for at most a minute.
func (f *following) read(t *testing.T, count int) string {
	t.Helper()
	stop := time.AfterFunc(time.Minute, func() { _ = f.process.Process.Kill() })
	defer stop.Stop()
	var text []byte
	for one := make([]byte, 1); bytes.Count(text, []byte("\n")) < count; text = append(text, one...) {
		if _, err := io.ReadFull(f.lines, one); err != nil {
			t.Fatalf("after %d lines of %d: %v: %s", bytes.Count(text, []byte("\n")), count, err, f.stderr.Tail())
		}
	}
	return string(text)
}

func TestTail(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	n := d.start(t, "")
	socket := []string{"--url", strings.Replace(n.base, "http://", "ws://", 1) + "/ws"}
	for name, through := range map[string][]string{"log": nil, "socket": socket} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			system := domain.SystemID("s-" + name)
			publish(t, n.base, testSecret, system, 3)
			args := append([]string{"--system", string(system), "--after", "0-0"}, through...)
			asJSON, forPeople := follow(t, d.env, append(args, "--json")...), follow(t, d.env, args...)
			narrow := follow(t, d.env, append(args, "--device", "plug-b", "--types", "of-tomorrow,device-update", "--json")...)
			first := asJSON.read(t, 3)
			forPeople.read(t, 3)
			publish(t, n.base, testSecret, system, 2) // live
			for i, line := range strings.Split(strings.TrimSpace(first+asJSON.read(t, 2)), "\n") {
				var e domain.Event
				if err := e.UnmarshalJSON([]byte(line)); err != nil || e.Seq != uint64(i+1) || e.SystemID != system {
					t.Errorf("line %d is %s (%v)", i, line, err)
				}
			}
			if line := forPeople.read(t, 1); !strings.Contains(line, "device-update") || !strings.Contains(line, `"deviceId":"plug-a"`) {
				t.Errorf("for people: %q", line)
			}
			if both := narrow.read(t, 2); strings.Count(both, `"deviceId":"plug-b"`) != 2 {
				t.Errorf("of plug-b alone: %s", both)
			}
			if err := asJSON.process.Process.Signal(os.Interrupt); err != nil {
				t.Fatal(err)
			}
			if err := asJSON.process.Wait(); err != nil || asJSON.stderr.Tail() != "" {
				t.Errorf("Ctrl-C must end it with 0 and no word: %v %s", err, asJSON.stderr.Tail())
			}

			// Its reader goes, as head does.
			_ = forPeople.lines.Close()
			publish(t, n.base, testSecret, system, 2)
			var end *exec.ExitError
			if err := forPeople.process.Wait(); !errors.As(err, &end) || end.Sys().(syscall.WaitStatus).Signal() != syscall.SIGPIPE {
				t.Errorf("a broken pipe must end it: %v", err)
			}
			if text := forPeople.stderr.Tail(); text != "" {
				t.Errorf("a broken pipe must end it quietly: %s", text)
			}
		})
	}
}

func TestTailIsRefused(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	n := d.start(t, "")
	address := strings.TrimPrefix(n.base, "http://")
	tail := func(token, url string) result {
		return plugcast(t, nil, "tail", "--system", "s", "--url", url, "--token", token)
	}
	tail(testToken(t, domain.RoleViewer, "other"), "ws://"+address+"/ws").wants(t, exitFailed, "forbidden")
	tail("nonsense", "ws://"+address+"/ws").wants(t, exitFailed, "token-invalid")
	tail(testToken(t, domain.RoleViewer), "ws://"+address+"/nothing").wants(t, exitFailed, "404")
	for url, says := range map[string]string{
		"ws://127.0.0.1:1/ws?ticket=hunter2": "refused", "ws://u:hunter2@127.0.0.1:1/ws": "malformed", "http://u:hunter2@h": "ws://",
	} {
		r := tail("t", url)
		if r.code == exitDone || !strings.Contains(r.stderr, says) || strings.Contains(r.stderr, "hunter2") {
			t.Errorf("tail --url %s: %+v", url, r)
		}
	}
	plugcast(t, d.env, "tail", "--system", "s", "--after", "99999999999999-0").wants(t, exitFailed, "ahead")
}

func TestShowEventKeepsInnerBraces(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	e := domain.Event{Type: domain.TypeDeviceUpdate, Seq: 7, Actor: "ana", Data: []byte(`{"attributes":{"a":{}}}`)}
	if err := showEvent(&out, &e); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), `"attributes":{"a":{}}  (ana)`) {
		t.Errorf("%q", out.String())
	}
}
