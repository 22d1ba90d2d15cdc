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
	b, err := c.Backends.open(ctx, logger)
	if err != nil {
		return err
	}
	defer b.Close()
	if after == nil {
		end, err := b.Timeline.End(ctx, system)
		if err != nil {
			return err
		}
		after = &end
	}
	return b.Timeline.Follow(ctx, system, *after, func(events []domain.Event, _ uint64) error {
		for i := range events {
			if err := print(&events[i]); err != nil {
				return err
			}
		}
		return nil
	})
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
