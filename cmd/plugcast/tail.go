package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/plugcast/plugcast/domain"
)

// tailCommand follows a system's events: straight from the log, or with --url
// through a server's WebSocket, as any client would.
type tailCommand struct {
	System string  `required:"" help:"The system to follow."`
	After  *string `help:"Begin after this position; 0-0 is the first event ever. Default: from now on." placeholder:"POSITION"`
	JSON   bool    `name:"json" help:"Print each event as one line of JSON."`
	URL    string  `name:"url" help:"Follow through this server's WebSocket instead of the log." placeholder:"ws://HOST/ws"`
	Token  string  `help:"Token for --url. Default: one is made with the JWT secret." placeholder:"JWT"`

	Filter   filterFlags  `embed:""`
	Backends backendFlags `embed:""`
	Auth     authFlags    `embed:""`
}

// Run implements the command.
func (c *tailCommand) Run(ctx context.Context, t terminal, logger *slog.Logger) error {
	system, err := domain.ParseSystemID(c.System)
	if err != nil {
		return usage("%v", err)
	}
	after, err := parseAfter(c.After)
	if err != nil {
		return err
	}
	filter, err := c.Filter.parse()
	if err != nil {
		return err
	}
	show := showEvent
	if c.JSON {
		show = showEnvelope
	}
	print := func(e *domain.Event) error {
		if !filter.Match(e.Type, e.Device) {
			return nil
		}
		return show(t.out, e)
	}
	if c.URL != "" {
		return untilStopped(ctx, c.throughServer(ctx, system, after, filter, print))
	}
	return untilStopped(ctx, c.fromLog(ctx, system, after, print, logger))
}

// fromLog reads history up to now, and then what comes.
func (c *tailCommand) fromLog(ctx context.Context, system domain.SystemID, after *domain.Position,
	print func(*domain.Event) error, logger *slog.Logger,
) error {
	b, err := openBackend(ctx, c.Backends, logger)
	if err != nil {
		return err
	}
	defer b.close()
	bell := newBell()
	start, cancel, err := b.timeline.Subscribe(ctx, system, func(_ []domain.Event, err error) { bell.ring(err) })
	if err != nil {
		return err
	}
	defer cancel()
	if after != nil {
		if start, err = b.timeline.Locate(ctx, system, *after); err != nil {
			return err
		}
	}
	for at := start; ; {
		events, err := b.timeline.Page(ctx, system, at, 1000)
		if err != nil {
			return err
		}
		for i := range events {
			if err := print(&events[i]); err != nil {
				return err
			}
			at = events[i].Cursor()
		}
		if len(events) > 0 {
			continue
		}
		if err := bell.wait(ctx); err != nil {
			return err
		}
	}
}

// bell wakes one waiter. Rings that come while nobody waits are one; an error is
// never lost among them.
type bell struct {
	arrived chan struct{}
	failed  chan error
}

func newBell() bell { return bell{arrived: make(chan struct{}, 1), failed: make(chan error, 1)} }

// ring does not block. An error is the last that is rung.
func (b bell) ring(err error) {
	if err != nil {
		b.failed <- err
		return
	}
	select {
	case b.arrived <- struct{}{}:
	default:
	}
}

// wait returns after a ring, with its error.
func (b bell) wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case err := <-b.failed:
		return err
	case <-b.arrived:
		return nil
	}
}

func showEnvelope(w io.Writer, e *domain.Event) error {
	_, err := w.Write(append(e.AppendEnvelope(nil), '\n'))
	return err
}

// showEvent prints one event as a person reads it: when, what, by whom, and its
// data without the braces. Names of devices or other servers cannot send control
// characters to the terminal.
func showEvent(w io.Writer, e *domain.Event) error {
	members := strings.TrimSuffix(strings.TrimPrefix(string(e.Data), "{"), "}")
	_, err := fmt.Fprintf(w, "%s  %6d  %-30s  %s  (%s)\n",
		e.Time.Local().Format("15:04:05.000"), e.Seq, plain(string(e.Type)), plain(members), plain(e.Actor))
	return err
}
