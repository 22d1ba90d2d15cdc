// Package nodejs runs Node programs, with their packages from npm, as peers of
// what is tested.
package nodejs

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"
)

// installFor bounds npm: a registry that does not answer must not hold a test up
// until the test's own end.
const installFor = 4 * time.Minute

// Install sees to it that dir, which has a package.json and a package-lock.json,
// has its node_modules. It runs npm only when the lock file has changed since, and
// one process at a time does.
func Install(t testing.TB, dir string) {
	t.Helper()
	npm := find(t, "npm")
	lock, err := os.ReadFile(filepath.Join(dir, "package-lock.json"))
	if err != nil {
		t.Fatalf("nodejs: %v", err)
	}
	if err := install(npm, dir, lock); err != nil {
		t.Fatalf("nodejs: install the packages of %s: %v", dir, err)
	}
}

func install(npm, dir string, lock []byte) error {
	unlock, err := exclusively(dir)
	if err != nil {
		return err
	}
	defer unlock()
	sum := sha256.Sum256(lock)
	want := hex.EncodeToString(sum[:])
	stamp := filepath.Join(dir, "node_modules", ".installed") // npm removes it with the folder
	if have, err := os.ReadFile(stamp); err == nil && string(have) == want {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), installFor)
	defer cancel()
	cmd := exec.CommandContext(ctx, npm, "ci", "--no-audit", "--no-fund")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("npm ci: %w\n%s", err, out)
	}
	if err := os.MkdirAll(filepath.Dir(stamp), 0o755); err != nil { // npm makes none for nothing
		return err
	}
	return os.WriteFile(stamp, []byte(want), 0o644)
}

// exclusively waits until no other process, and no other test of this one, has
// dir. The kernel lets go of it when this process dies.
func exclusively(dir string) (unlock func(), err error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(d.Fd()), syscall.LOCK_EX); err != nil {
		_ = d.Close()
		return nil, err
	}
	return func() { _ = d.Close() }, nil
}

// Command is a node process in dir that is interrupted when the test is over. It
// is not started yet; who starts it waits for it.
func Command(t testing.TB, dir string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), find(t, "node"), args...)
	cmd.Dir = dir
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// Folder is the directory of the caller's source file, joined with parts.
func Folder(t testing.TB, parts ...string) string {
	t.Helper()
	_, file, _, ok := runtime.Caller(1)
	if !ok {
		t.Fatal("nodejs: the caller's file is not known")
	}
	return filepath.Join(append([]string{filepath.Dir(file)}, parts...)...)
}

// Copy is a copy of a package's folder for this test alone, where it can build
// what it wants. It shares the packages that are installed.
func Copy(t testing.TB, dir string) string {
	t.Helper()
	to := t.TempDir()
	err := filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		switch {
		case entry.Name() == "dist" || entry.Name() == "node_modules" && name != "node_modules":
			return filepath.SkipDir
		case name == "node_modules":
			if err := os.Symlink(path, filepath.Join(to, name)); err != nil {
				return err
			}
			return filepath.SkipDir
		case entry.IsDir():
			return os.MkdirAll(filepath.Join(to, name), 0o700)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, name), text, 0o600)
	})
	if err != nil {
		t.Fatalf("nodejs: copy %s: %v", dir, err)
	}
	return to
}

func find(t testing.TB, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Fatalf("nodejs: %s is not installed: run .ci/setup --test", program)
	}
	return path
}
