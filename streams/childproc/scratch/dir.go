// Package scratch makes temporary directories that vanish with the process
// that made them, however that process ends.
package scratch

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
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
// it, so that a server that runs as another user can have its data below.
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
