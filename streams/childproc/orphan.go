package childproc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// orphanGrace is how long an orphan may take to end by itself.
	orphanGrace = 10 * time.Second
	// killPatience is how long it may take to be gone after SIGKILL.
	killPatience = 10 * time.Second
	orphanPoll   = 20 * time.Millisecond
)

// EndOrphans ends every process whose command line belongs to the caller: the
// server of the directory that the caller has the [Lock] of, left by a parent
// that was killed. Each gets stop first, and SIGKILL after ten seconds. It
// returns when all are gone or ctx ends.
//
// Processes are known by their command line and not by a pid file, because a
// pid file may be lost, and its number may be a stranger's by now. The command
// line is also what can be read of another user's process in a container.
func EndOrphans(ctx context.Context, belongs func(argv []string) bool, stop syscall.Signal, logger *slog.Logger) error {
	return endOrphans(ctx, belongs, stop, orphanGrace, logger)
}

func endOrphans(ctx context.Context, belongs func([]string) bool, stop syscall.Signal, grace time.Duration, logger *slog.Logger) error {
	ctx, cancel := context.WithTimeout(ctx, grace+killPatience)
	defer cancel()
	poll := time.NewTicker(orphanPoll)
	defer poll.Stop()
	begun := time.Now()
	told := make(map[int]bool)
	for {
		pids := find(belongs)
		if len(pids) == 0 {
			return nil
		}
		for _, pid := range pids {
			sig := stop
			if time.Since(begun) >= grace {
				sig = syscall.SIGKILL
			} else if told[pid] {
				continue
			}
			if err := signal(pid, belongs, sig); err != nil {
				return fmt.Errorf("childproc: end orphan %d: %w", pid, err)
			}
			if !told[pid] {
				logger.Warn("ending a server left by an earlier run", "pid", pid)
			}
			told[pid] = true
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("childproc: end orphans %v: %w", pids, ctx.Err())
		case <-poll.C:
		}
	}
}

// signal sends sig to a process unless it is, by now, somebody else's: the
// handle is taken before the command line is read again, so that it cannot
// come to mean another process in between.
func signal(pid int, belongs func([]string) bool, sig syscall.Signal) error {
	proc, err := os.FindProcess(pid)
	if err != nil {
		return err
	}
	defer func() { _ = proc.Release() }()
	if argv, err := CommandLine(pid); err != nil || !belongs(argv) {
		return nil
	}
	if err := proc.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

// find lists the processes whose command line belongs.
func find(belongs func([]string) bool) []int {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	var pids []int
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil || pid == os.Getpid() {
			continue
		}
		if argv, err := CommandLine(pid); err == nil && belongs(argv) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// CommandLine returns the arguments of a process, its program's name first.
// It is empty for a process that has ended but was not waited for, and an
// error when there is no such process.
func CommandLine(pid int) ([]string, error) {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
	if err != nil {
		return nil, err
	}
	line := strings.TrimRight(string(text), "\x00")
	if line == "" {
		return nil, nil
	}
	return strings.Split(line, "\x00"), nil
}
