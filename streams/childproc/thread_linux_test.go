package childproc

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"testing"

	"github.com/plugcast/plugcast/transport/testpeer"
)

// onDyingThread calls f on a thread that ends thereafter, and returns the
// thread's id.
func onDyingThread(f func()) (thread int) {
	called := make(chan struct{})
	go func() {
		defer close(called)
		// Never unlocked, the thread ends with the goroutine, unless it is the
		// first of the process: that one never does.
		runtime.LockOSThread()
		if thread = syscall.Gettid(); thread == os.Getpid() {
			thread = onDyingThread(f)
			runtime.UnlockOSThread()
			return
		}
		f()
	}()
	<-called
	return thread
}

// The kernel ends a child when the thread that forked it ends. The thread
// that calls Start is not that thread.
func TestChildOutlivesTheThreadThatCalledStart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	lock := acquire(t, dir)
	var process *Process
	var err error
	thread := onDyingThread(func() { process, err = Start(context.Background(), sleeper(dir, lock)) })
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = process.Kill() }()
	testpeer.Eventually(t, "the end of the thread", func() bool {
		_, err := os.Stat(filepath.Join("/proc/self/task", strconv.Itoa(thread)))
		return err != nil
	})
	// A signal takes its time; less than twenty other children take.
	for range 20 {
		if err := exec.Command("/bin/true").Run(); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-process.Done():
		t.Errorf("the child ended with the thread: %v", process.Err())
	default:
	}
}
