package childproc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// readyPoll is the pause between two looks at whether a child is ready.
	readyPoll = 10 * time.Millisecond
	// outputDelay bounds the wait for output after a child has ended:
	// processes that it left behind may still hold its stderr.
	outputDelay = 2 * time.Second
)

// Process is a running child. Its methods may be called from any goroutine.
type Process struct {
	name       string
	port       int
	cmd        *exec.Cmd
	stopSignal syscall.Signal
	pidFile    string
	output     *output
	stopping   sync.Once

	done chan struct{}
	exit error // why the child ended; written before done is closed

	mu    sync.Mutex
	lock  *Lock // released when the child ends
	ended bool
}

// launch starts the child and the goroutine that owns it.
func launch(p Program, port int) (*Process, error) {
	proc := &Process{
		name:       p.Name,
		port:       port,
		cmd:        exec.Command(p.Path, p.Args(port)...),
		stopSignal: p.StopSignal,
		pidFile:    p.PIDFile,
		output:     &output{logger: p.Logger, name: p.Name},
		done:       make(chan struct{}),
	}
	proc.cmd.Env, proc.cmd.Dir = p.Env, p.Dir
	if p.Input != "" {
		proc.cmd.Stdin = strings.NewReader(p.Input)
	}
	proc.cmd.SysProcAttr = childAttr(p.StopSignal, p.Credential)
	proc.cmd.Stdout, proc.cmd.Stderr = proc.output, proc.output
	proc.cmd.WaitDelay = outputDelay

	started := make(chan error, 1)
	go proc.run(started)
	if err := <-started; err != nil {
		<-proc.done
		return nil, fmt.Errorf("%s: start: %w", p.Name, err)
	}
	return proc, nil
}

// run starts the child and stays with it until it has ended. The death signal
// of a child is sent when the thread that forked it ends, not the process, so
// this goroutine keeps its thread for as long as the child lives.
func (p *Process) run(started chan<- error) {
	defer close(p.done)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	err := p.cmd.Start()
	if err == nil {
		err = p.writePIDFile()
		if err != nil {
			_ = p.cmd.Process.Kill()
			_ = p.cmd.Wait()
		}
	}
	started <- err
	if err != nil {
		return
	}
	p.exit = p.cmd.Wait()
	p.removePIDFile()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	if p.lock != nil {
		p.lock.Release()
	}
}

// adopt makes the lock live as long as the child.
func (p *Process) adopt(lock *Lock) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lock = lock
	if p.ended {
		lock.Release()
	}
}

// awaitReady returns when ready says so, or with the reason why it never will.
func (p *Process) awaitReady(ctx context.Context, ready func(context.Context, int, int) bool) error {
	poll := time.NewTicker(readyPoll)
	defer poll.Stop()
	for {
		if ready(ctx, p.PID(), p.port) {
			return nil
		}
		select {
		case <-p.done:
			if portTaken(p.port) {
				return fmt.Errorf("%s cannot listen on 127.0.0.1:%d: %w", p.name, p.port, ErrPortInUse)
			}
			return fmt.Errorf("%s: ended before it was ready (%v): %s", p.name, p.exit, p.output.tail())
		case <-ctx.Done():
			return fmt.Errorf("%s: not ready in time: %w: %s", p.name, context.Cause(ctx), p.output.tail())
		case <-poll.C:
		}
	}
}

// PID is the child's process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Port is the port on 127.0.0.1 that the child listens on.
func (p *Process) Port() int { return p.port }

// Done is closed when the child has ended and its directory is free again.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err says how the child ended, with the last lines it printed. It is nil
// while the child runs and when it exited with status 0.
func (p *Process) Err() error {
	select {
	case <-p.done:
	default:
		return nil
	}
	if p.exit == nil {
		return nil
	}
	return fmt.Errorf("%s: ended: %w: %s", p.name, p.exit, p.output.tail())
}

// Stop asks the child to end and waits until it has. When ctx ends first the
// child is killed, and the error says so. Stopping twice, or what has ended
// already, is no error.
func (p *Process) Stop(ctx context.Context) error {
	p.stopping.Do(func() { _ = p.cmd.Process.Signal(p.stopSignal) })
	select {
	case <-p.done:
		return nil
	default:
	}
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		return errors.Join(fmt.Errorf("%s: killed because it did not stop in time: %w", p.name, ctx.Err()), p.Kill())
	}
}

// Kill ends the child with SIGKILL, as a crash would, and waits until it is
// gone. Killing what has ended already is no error.
func (p *Process) Kill() error {
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("%s: kill: %w", p.name, err)
	}
	<-p.done
	return nil
}

// writePIDFile writes the file under another name first: who reads it sees a
// whole number or no file.
func (p *Process) writePIDFile() error {
	if p.pidFile == "" {
		return nil
	}
	tmp, err := os.CreateTemp(filepath.Dir(p.pidFile), filepath.Base(p.pidFile)+".")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = fmt.Fprintln(tmp, p.PID())
	if err := errors.Join(err, tmp.Chmod(0o644), tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), p.pidFile)
}

// removePIDFile leaves the file alone when it names another process.
func (p *Process) removePIDFile() {
	if p.pidFile == "" {
		return
	}
	text, err := os.ReadFile(p.pidFile)
	if err == nil && strings.TrimSpace(string(text)) == strconv.Itoa(p.PID()) {
		_ = os.Remove(p.pidFile)
	}
}
