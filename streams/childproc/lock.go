package childproc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// lockPatience is how long Acquire waits for a holder that is just dying.
	lockPatience = 2 * time.Second
	lockPoll     = 20 * time.Millisecond
)

// ErrLocked tells that a live process runs the server of this directory.
var ErrLocked = errors.New("another process runs the server of this directory")

// Lock is held by the one process that runs the server of a directory. The
// kernel lets go of it when that process dies, however it dies: so who has
// the lock knows that any server still running there is an orphan.
type Lock struct {
	file    *os.File
	release sync.Once
}

// Acquire takes the lock whose file is at path, which is made if it is missing
// and stays when the lock is released. When another live process, or this
// one, has the lock, it fails after a moment with [ErrLocked].
func Acquire(ctx context.Context, path string) (*Lock, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("childproc: lock: %w", err)
	}
	if err := flock(ctx, file); err != nil {
		if errors.Is(err, syscall.EWOULDBLOCK) {
			holder, _ := os.ReadFile(path)
			err = fmt.Errorf("%w: process %s holds %s", ErrLocked, strings.TrimSpace(string(holder)), path)
		} else {
			err = fmt.Errorf("childproc: lock %s: %w", path, err)
		}
		_ = file.Close()
		return nil, err
	}
	// The number is for people who wonder who holds the lock.
	_ = file.Truncate(0)
	_, _ = file.WriteAt(fmt.Appendln(nil, os.Getpid()), 0)
	return &Lock{file: file}, nil
}

func flock(ctx context.Context, file *os.File) error {
	ctx, cancel := context.WithTimeout(ctx, lockPatience)
	defer cancel()
	poll := time.NewTicker(lockPoll)
	defer poll.Stop()
	for {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-poll.C:
		}
	}
}

// Release lets go of the lock. Releasing twice is harmless.
func (l *Lock) Release() {
	l.release.Do(func() {
		// Closing alone would not do: a child that is being forked right now
		// has a copy of the descriptor until it executes its program.
		_ = syscall.Flock(int(l.file.Fd()), syscall.LOCK_UN)
		_ = l.file.Close()
	})
}
