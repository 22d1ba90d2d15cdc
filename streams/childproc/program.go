// Package childproc runs a server program, such as redis-server or postgres,
// as a private child of this process: on a loopback port, one at a time per
// directory, and never outliving its parent.
//
// Linux is what it is made for. Elsewhere it compiles, but the kernel neither
// ends a child with its parent nor lists processes for [EndOrphans].
package childproc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// ErrPortInUse tells that the port asked for belongs to another program.
var ErrPortInUse = errors.New("the port is in use")

// portAttempts bounds how many ports are tried when any port will do. A try
// fails only when another program takes the port in the instant between our
// check and the bind of the child.
const portAttempts = 10

// failedGrace is how long a child that did not get ready may take to end.
const failedGrace = 10 * time.Second

// Program says how to run a server program.
type Program struct {
	// Name is the program's name in errors and log lines.
	Name string
	// Path is the executable.
	Path string
	// Args gives the arguments, without the program's name, that make it
	// listen on a port.
	Args func(port int) []string
	// Dir is the working directory.
	Dir string
	// Env is the whole environment: nothing is inherited.
	Env []string
	// Input is what the program reads on its standard input. Other users of the
	// machine see arguments; this they do not.
	Input string
	// Credential is the user to run as; nil is the user of this process.
	Credential *syscall.Credential
	// StopSignal asks the program to end gracefully. Stop sends it, and the
	// kernel does when this process dies in whatever way.
	StopSignal syscall.Signal
	// Port is the port on 127.0.0.1 to listen on; 0 takes a free one.
	Port int
	// PIDFile, unless empty, holds the child's process id while it runs.
	PIDFile string
	// Ready tells whether the child with this process id serves on that port.
	// It is polled until it says true; what it reports may be a stranger's
	// doing as long as the port is contested, so it has to look at the pid.
	Ready func(ctx context.Context, pid, port int) bool
	// Lock guards the program's directory. Start takes it over when it
	// succeeds: it is released when the child has ended.
	Lock *Lock
	// Logger gets the program's output, line by line at debug level.
	Logger *slog.Logger
}

// Start runs the program and returns once it is ready. ctx bounds the start
// only: the child then runs until Stop or Kill, until it dies, or until this
// process does. A child that fails to get ready is ended before Start returns.
// The error wraps [ErrPortInUse] when Port is set and taken.
func Start(ctx context.Context, p Program) (*Process, error) {
	if p.Port != 0 {
		return startOn(ctx, p, p.Port)
	}
	for range portAttempts {
		port, err := freePort()
		if err != nil {
			return nil, err
		}
		proc, err := startOn(ctx, p, port)
		if !errors.Is(err, ErrPortInUse) {
			return proc, err
		}
	}
	return nil, fmt.Errorf("%s: each of %d free ports was taken by another program before it could listen", p.Name, portAttempts)
}

func startOn(ctx context.Context, p Program, port int) (*Process, error) {
	if portTaken(port) {
		return nil, fmt.Errorf("%s cannot listen on 127.0.0.1:%d: %w", p.Name, port, ErrPortInUse)
	}
	proc, err := launch(p, port)
	if err != nil {
		return nil, err
	}
	if err := proc.awaitReady(ctx, p.Ready); err != nil {
		// Asked to end, it can still give back what it took of the machine.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), failedGrace)
		defer cancel()
		return nil, errors.Join(err, proc.Stop(ctx))
	}
	proc.adopt(p.Lock)
	return proc, nil
}

// Command is a program that does its work and ends.
type Command struct {
	// Path is the executable, Args are its arguments without its name.
	Path string
	Args []string
	// Env is the whole environment: nothing is inherited.
	Env []string
	// Input is what the program reads on its standard input. Other users of the
	// machine see arguments; this they do not.
	Input string
	// Dir is the working directory.
	Dir string
	// Credential is the user to run as; nil is the user of this process.
	Credential *syscall.Credential
}

// Run runs a command to its end and returns what it printed. The command is
// killed with its children when ctx ends, and by the kernel when this process
// dies. An error says so when it is because ctx ended.
func Run(ctx context.Context, c Command) ([]byte, error) {
	// The kernel kills the child when the thread that forked it ends.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(ctx, c.Path, c.Args...)
	cmd.Env, cmd.Dir = c.Env, c.Dir
	cmd.SysProcAttr = childAttr(syscall.SIGKILL, c.Credential)
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = outputDelay
	out, err := cmd.CombinedOutput()
	if err != nil && ctx.Err() != nil && !errors.Is(err, ctx.Err()) {
		err = fmt.Errorf("%w: %w", ctx.Err(), err) // os/exec prefers how the process ended
	}
	return out, err
}
