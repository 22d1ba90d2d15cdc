package childproc

import (
	"bytes"
	"io"
	"log/slog"
	"os/exec"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/plugcast/plugcast/transport/testpeer/parent"
)

// stray starts a shell script that is nobody's child as far as this package
// knows, and returns when the script has printed a line.
func stray(t *testing.T, text, name string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", text, name)
	// It waits for input that never comes.
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	if _, err := io.ReadFull(stdout, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	return cmd
}

func named(name string) func([]string) bool {
	return func(argv []string) bool { return slices.Contains(argv, name) }
}

func TestEndOrphansLeavesStrangersAlone(t *testing.T) {
	t.Parallel()
	const text = `echo; read -r x`
	dir := t.TempDir()
	orphan, stranger := stray(t, text, dir+"/a"), stray(t, text, dir+"/b")
	var log bytes.Buffer
	if err := EndOrphans(t.Context(), named(dir+"/a"), syscall.SIGTERM, slog.New(slog.NewTextHandler(&log, nil))); err != nil {
		t.Fatal(err)
	}
	if parent.Running(orphan.Process.Pid) {
		t.Error("the orphan still runs")
	}
	if !parent.Running(stranger.Process.Pid) {
		t.Error("the stranger was ended")
	}
	if !bytes.Contains(log.Bytes(), []byte("level=WARN")) {
		t.Errorf("no warning: %s", log.Bytes())
	}
}

func TestEndOrphansKillsTheStubborn(t *testing.T) {
	t.Parallel()
	name := t.TempDir()
	orphan := stray(t, `trap "" TERM; echo; read -r x`, name)
	err := endOrphans(t.Context(), named(name), syscall.SIGTERM, 50*time.Millisecond, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if parent.Running(orphan.Process.Pid) {
		t.Error("the orphan still runs")
	}
}

// Between the look at a process and the signal its number may pass on to
// somebody else: then nothing is sent.
func TestSignalChecksAgainWhoseTheProcessIs(t *testing.T) {
	t.Parallel()
	stranger := stray(t, `echo; read -r x`, t.TempDir())
	looks := 0
	belongs := func([]string) bool {
		looks++
		return false
	}
	if err := signal(stranger.Process.Pid, belongs, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if looks != 1 || !parent.Running(stranger.Process.Pid) {
		t.Errorf("looked %d times, runs: %v; want one look and no signal", looks, parent.Running(stranger.Process.Pid))
	}
}
