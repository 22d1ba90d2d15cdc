package scratch

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// helper, when set, makes the test binary a process that makes a directory,
// prints its path and dies of a panic.
const helper = "SCRATCH_TEST_PANIC"

func TestMain(m *testing.M) {
	if os.Getenv(helper) == "" {
		os.Exit(m.Run())
	}
	dir, err := Make("plugcast-scratch-")
	if err == nil {
		err = os.WriteFile(filepath.Join(dir.Path(), "file"), nil, 0o600)
	}
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(dir.Path())
	panic("this panic is part of the test")
}

func gone(path string) bool {
	_, err := os.Stat(path)
	return errors.Is(err, fs.ErrNotExist)
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

func TestRemove(t *testing.T) {
	t.Parallel()
	dir, err := Make("plugcast-scratch-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir.Path(), "inner"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := dir.Remove(); err != nil {
		t.Fatal(err)
	}
	if !gone(dir.Path()) {
		t.Error("the directory is still there")
	}
}

func TestDirectoryVanishesWithAPanickingProcess(t *testing.T) {
	t.Parallel()
	cmd := exec.Command(self(t))
	cmd.Env = append(os.Environ(), helper+"=1")
	out, err := cmd.Output()
	if err == nil {
		t.Fatalf("the helper did not panic: %s", out)
	}
	path := strings.TrimSpace(string(out))
	if !filepath.IsAbs(path) {
		t.Fatalf("the helper failed: %s", path)
	}
	deadline := time.After(10 * time.Second)
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for !gone(path) {
		select {
		case <-deadline:
			t.Fatalf("%s is still there", path)
		case <-poll.C:
		}
	}
}
