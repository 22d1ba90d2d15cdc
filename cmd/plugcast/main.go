// Command plugcast is the whole platform in one binary: the server, the
// development environment around it, and the tools of operators and auditors.
//
// This package has the flags and a file for each command; it alone reads the environment and
// builds loggers. Package server wires the parts together. Exit codes: 0 done, 1 failed with one line on stderr, 2 wrong usage.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/plugcast/plugcast/cmd/plugcast/server"
)

// cli is the command line. Every flag has an environment variable: PLUGCAST_ and
// its name in upper case; the help shows both.
type cli struct {
	Dev      devCommand      `cmd:"" help:"Start a private Redis and Postgres, migrate, serve, and feed two demo systems."`
	Serve    serveCommand    `cmd:"" help:"Serve, against a Redis and a Postgres that you run."`
	Migrate  migrateCommand  `cmd:"" help:"Bring the database schema up to date, or show where it stands."`
	Token    tokenCommand    `cmd:"" help:"Print a signed access token."`
	Tail     tailCommand     `cmd:"" help:"Follow a system's events in the terminal."`
	Replay   replayCommand   `cmd:"" help:"Write a system's history as NDJSON of CloudEvents."`
	Verify   verifyCommand   `cmd:"" help:"Check the hash chain of an export or of a system's history."`
	Simulate simulateCommand `cmd:"" help:"Run simulated plugs that dial into a server."`
	Bridge   bridgeCommand   `cmd:"" help:"Look after bridges to other deployments and servers."`
	Rebuild  rebuildCommand  `cmd:"" help:"Rebuild the read models from history while the platform serves."`

	LogLevel  string           `help:"debug, info, warn or error." default:"info" enum:"debug,info,warn,error"`
	LogFormat string           `help:"auto, text or json. auto is text on a terminal and json elsewhere." default:"auto" enum:"auto,text,json"`
	Version   kong.VersionFlag `help:"Print the version." env:"-"`
}

// Exit codes, part of the contract with scripts.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the process at once
	unsetEmpty()
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// unsetEmpty takes variables that are set to nothing out of the environment. That
// is how containers are told that there is no value; an empty address to listen
// on would be every address there is.
func unsetEmpty() {
	for _, variable := range os.Environ() {
		if name, value, _ := strings.Cut(variable, "="); value == "" && strings.HasPrefix(name, envPrefix+"_") {
			_ = os.Unsetenv(name) // fails for no name that is set
		}
	}
}

// envPrefix begins the names of our variables.
const envPrefix = "PLUGCAST"

// terminal is where a command talks to its user.
type terminal struct {
	out, err io.Writer
}

// run is main as a function: it returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	afterHelp := exitDone
	if len(args) == 0 {
		args, stdout, afterHelp = []string{"--help"}, stderr, exitUsage
	}
	var c cli
	exited := errors.New("help was shown")
	parser, err := kong.New(&c,
		kong.Name("plugcast"),
		kong.Description("Event-sourced realtime platform for smart plugs."),
		kong.DefaultEnvars(envPrefix),
		kong.Vars{"version": "plugcast " + version(), "roles": roleNames(", "), "role_enum": roleNames(",")},
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 110}),
		kong.Writers(stdout, stderr),
		kong.Exit(func(int) { panic(exited) }),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Bind(terminal{out: onTerminal(stdout), err: stderr}),
	)
	if err != nil {
		fmt.Fprintf(stderr, "plugcast: %v\n", err)
		return exitFailed
	}
	parsed, shown, err := parse(parser, args, exited)
	switch {
	case shown:
		return afterHelp
	case err != nil:
		fmt.Fprintf(stderr, "plugcast: %s (see %s --help)\n", oneLine(err), commandOf(err))
		return exitUsage
	}
	err = parsed.Run(newLogger(stderr, c.LogLevel, c.LogFormat))
	wrong, config := new(usageError), new(server.ConfigError)
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &config):
		fmt.Fprintf(stderr, "plugcast: %s\n", oneLine(inFlags(config)))
		if !config.Unavailable {
			return exitUsage
		}
	case errors.As(err, &wrong):
		fmt.Fprintf(stderr, "plugcast: %s\n", oneLine(err))
		return exitUsage
	case interrupted(ctx, err):
		fmt.Fprintln(stderr, "plugcast: interrupted")
	default:
		fmt.Fprintf(stderr, "plugcast: %s\n", oneLine(err))
	}
	return exitFailed
}

// commandOf is the command whose arguments kong did not understand.
func commandOf(err error) string {
	if mistake := new(kong.ParseError); errors.As(err, &mistake) && mistake.Context != nil {
		if selected := mistake.Context.Selected(); selected != nil {
			return selected.FullPath()
		}
	}
	return "plugcast"
}

// interrupted tells whether a command ended because its user said so. For one
// that runs until then it is a good end; for one that had something to finish it
// is a failure, so that nobody takes half an export or half a check for the whole.
func interrupted(ctx context.Context, err error) bool {
	return ctx.Err() != nil && errors.Is(err, context.Canceled)
}

// untilStopped is the result of a command that runs until its user stops it.
func untilStopped(ctx context.Context, err error) error {
	if interrupted(ctx, err) {
		return nil
	}
	return err
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
