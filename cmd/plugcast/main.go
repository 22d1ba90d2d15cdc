// Command plugcast is the whole platform in one binary: the server, the
// development environment around it, and the tools of operators and auditors.
//
// This package alone reads the environment, builds loggers and wires the parts
// together. Exit codes: 0 done, 1 failed with one line on stderr, 2 wrong usage.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"
)

// cli is the command line. Every flag has an environment variable: PLUGCAST_ and
// its name in upper case; the help shows both.
type cli struct {
	Dev     devCommand     `cmd:"" help:"Start a private Redis and Postgres, migrate, serve, and feed two demo systems."`
	Serve   serveCommand   `cmd:"" help:"Serve, against a Redis and a Postgres that you run."`
	Migrate migrateCommand `cmd:"" help:"Bring the database schema up to date, or show where it stands."`
	Token   tokenCommand   `cmd:"" help:"Print a signed access token."`
	Tail    tailCommand    `cmd:"" help:"Follow a system's events in the terminal."`
	Replay  replayCommand  `cmd:"" help:"Write a system's history as NDJSON of CloudEvents."`
	Verify  verifyCommand  `cmd:"" help:"Check the hash chain of an export or of a system's history."`
	Rebuild rebuildCommand `cmd:"" help:"Rebuild the read models from history while the platform serves."`

	LogLevel string `help:"debug, info, warn or error." default:"info" enum:"debug,info,warn,error"`
}

// Exit codes, part of the contract with scripts.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// terminal is where a command talks to its user.
type terminal struct {
	out, err io.Writer
}

// run is main as a function: it returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var c cli
	exited := errors.New("help was shown")
	parser, err := kong.New(&c,
		kong.Name("plugcast"),
		kong.Description("Event-sourced realtime platform for smart plugs."),
		kong.DefaultEnvars("PLUGCAST"),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 110}),
		kong.Writers(stdout, stderr),
		kong.Exit(func(int) { panic(exited) }),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Bind(terminal{out: stdout, err: stderr}),
	)
	if err != nil {
		fmt.Fprintf(stderr, "plugcast: %v\n", err)
		return exitFailed
	}
	parsed, shown, err := parse(parser, args, exited)
	switch {
	case shown:
		return exitDone
	case err != nil:
		fmt.Fprintf(stderr, "plugcast: %v (see plugcast --help)\n", err)
		return exitUsage
	}
	if err := parsed.Run(newLogger(stderr, c.LogLevel)); err != nil {
		if usage := new(usageError); errors.As(err, &usage) {
			fmt.Fprintf(stderr, "plugcast: %v\n", err)
			return exitUsage
		}
		if errors.Is(err, context.Canceled) && ctx.Err() != nil {
			return exitDone // asked to stop, and stopped
		}
		fmt.Fprintf(stderr, "plugcast: %s\n", oneLine(err))
		return exitFailed
	}
	return exitDone
}

// parse turns kong's way of ending the process after --help into a result.
func parse(parser *kong.Kong, args []string, exited error) (parsed *kong.Context, shown bool, err error) {
	defer func() {
		switch r := recover(); r {
		case nil:
		case exited:
			shown = true
		default:
			panic(r)
		}
	}()
	parsed, err = parser.Parse(args)
	return parsed, false, err
}

// usageError marks a mistake in how a command was called.
type usageError struct{ reason string }

func (e *usageError) Error() string { return e.reason }

func usage(format string, args ...any) error { return &usageError{fmt.Sprintf(format, args...)} }
