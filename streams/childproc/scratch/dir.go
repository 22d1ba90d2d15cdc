// Package scratch makes temporary directories for tests that vanish with the
// process that made them, however that process ends. Unlike those of the
// testing package, other users can pass through them: Postgres cannot run as
// root, so it runs as another user when the tests do.
package scratch

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// janitor waits until its standard input ends, which it does when the maker of
// the directory closes it or dies, and removes the directory. It tries for
// five seconds: servers that die with their parent may still write there.
const janitor = `cat >/dev/null
tries=0
until rm -rf -- "$1" 2>/dev/null || [ $tries -ge 50 ]; do
	tries=$((tries + 1))
	sleep 0.1
done`

// Dir is a temporary directory.
type Dir struct {
	path    string
	janitor *exec.Cmd
	alive   io.Closer
}

// Make makes a directory in the system's place for temporary files, with a
// name that begins with prefix. Other users may pass through it but not list
// it.
func Make(prefix string) (*Dir, error) {
	path, err := os.MkdirTemp("", prefix)
	if err != nil {
		return nil, fmt.Errorf("scratch: %w", err)
	}
	d := &Dir{path: path, janitor: exec.Command("/bin/sh", "-c", janitor, "sh", path)}
	// A Ctrl-C in the terminal must not reach the janitor.
	d.janitor.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	d.janitor.Dir = "/"
	d.alive, err = d.janitor.StdinPipe()
	err = errors.Join(err, os.Chmod(path, 0o711))
	if err == nil {
		err = d.janitor.Start()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("scratch: %w", err), os.RemoveAll(path))
	}
	return d, nil
}

// Path is the absolute path of the directory.
func (d *Dir) Path() string { return d.path }

// Remove removes the directory and all that is in it. It is called once.
func (d *Dir) Remove() error {
	err := os.RemoveAll(d.path)
	_ = d.alive.Close()
	if err := errors.Join(err, d.janitor.Wait()); err != nil {
		return fmt.Errorf("scratch: remove: %w", err)
	}
	return nil
}

// For returns the path of a directory that is the test's own and is removed
// when the test ends.
func For(t testing.TB) string {
	t.Helper()
	dir, err := Make("plugcast-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := dir.Remove(); err != nil {
			t.Error(err)
		}
	})
	return dir.Path()
}
