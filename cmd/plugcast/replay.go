package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/domain/backoff"
	"github.com/plugcast/plugcast/projections"
)

// replayCommand writes a system's history as NDJSON of CloudEvents.
type replayCommand struct {
	System string  `required:"" help:"The system."`
	After  *string `help:"Begin after this position. Default: with the first event ever." placeholder:"POSITION"`
	Until  *string `help:"End with this position, or with the last event at or before this time. Default: the newest event." placeholder:"POSITION|TIME"`
	Speed  string  `help:"1x and 10x keep the pauses between events, max does not." default:"max" enum:"1x,10x,max"`
	Out    string  `required:"" help:"File to write, or - for standard output." placeholder:"FILE"`

	Filter   filterFlags  `embed:""`
	Backends backendFlags `embed:""`
}

// Run implements the command.
func (c *replayCommand) Run(ctx context.Context, t terminal, logger *slog.Logger) error {
	r, err := c.plan()
	if err != nil {
		return err
	}
	store, err := c.Backends.openStore(ctx, logger)
	if err != nil {
		return err
	}
	defer store.Close()
	out, finish, err := c.open(t)
	if err != nil {
		return err
	}
	err = r.write(ctx, store, out, t)
	if finishing := finish(err == nil); err == nil {
		err = finishing
	}
	if err == nil {
		fmt.Fprintf(t.err, "%d events written\n", r.written)
	}
	return err
}

// replay is what a command line asks for, read and checked.
type replay struct {
	system  domain.SystemID
	query   domain.EventQuery
	until   domain.Position // inclusive
	time    *time.Time      // instead of until, unless it is nil
	speed   float64         // how many seconds of history pass in one; 0 is without pauses
	written int
}

func (c *replayCommand) plan() (*replay, error) {
	r := &replay{until: domain.Position{Ms: math.MaxUint64, N: math.MaxUint64}} // after all others
	var err error
	if r.system, err = domain.ParseSystemID(c.System); err != nil {
		return nil, usage("--system: %v", err)
	}
	if r.query.Filter, err = c.Filter.parse(); err != nil {
		return nil, err
	}
	if r.query.After, err = parseAfter(c.After); err != nil {
		return nil, err
	}
	if c.Until != nil {
		if r.until, r.time, err = parseMoment(*c.Until); err != nil {
			return nil, usage("--until: %v", err)
		}
	}
	if factor, timed := strings.CutSuffix(c.Speed, "x"); timed && c.Speed != "max" {
		if r.speed, err = strconv.ParseFloat(factor, 64); err != nil {
			return nil, usage("--speed: %v", err)
		}
	}
	return r, nil
}

// parseMoment reads an RFC 3339 time or, when that is nil, a position.
func parseMoment(s string) (domain.Position, *time.Time, error) {
	if at, err := domain.ParseTime(s); err == nil {
		return domain.Position{}, &at, nil
	}
	at, err := domain.ParsePosition(s)
	if err != nil {
		return domain.Position{}, nil, fmt.Errorf("it is neither a position nor an RFC 3339 time: %q", s)
	}
	return at, nil, nil
}

// open opens what to write to. A file appears under its name only when all of it
// is there; a pipe or a device is written as it is.
func (c *replayCommand) open(t terminal) (io.Writer, func(done bool) error, error) {
	if c.Out == "-" {
		out := bufio.NewWriter(t.out)
		return out, func(bool) error { return out.Flush() }, nil
	}
	path, whole := c.Out+".part", true
	if info, err := os.Stat(c.Out); err == nil && info.IsDir() {
		return nil, nil, usage("--out: %s is a directory", c.Out)
	} else if err == nil && !info.Mode().IsRegular() {
		path, whole = c.Out, false
	}
	file, err := os.Create(path)
	if err != nil {
		return nil, nil, fmt.Errorf("write export: %w", err)
	}
	out := bufio.NewWriterSize(file, 1<<20)
	return out, func(done bool) error {
		err := out.Flush()
		if closing := file.Close(); err == nil {
			err = closing
		}
		if whole && done && err == nil {
			err = os.Rename(path, c.Out)
		}
		if whole && (!done || err != nil) {
			_ = os.Remove(path)
		}
		if err != nil {
			return fmt.Errorf("write export: %w", err)
		}
		return nil
	}, nil
}

// errUntil ends an export at the position where it was to end.
var errUntil = errors.New("that was the last event")

// write exports line by line. The bar counts by seq, and so also what a filter
// leaves out.
func (r *replay) write(ctx context.Context, store *projections.Store, out io.Writer, t terminal) error {
	var from domain.Cursor
	var err error
	if r.query.After != nil {
		if from, err = store.Locate(ctx, r.system, *r.query.After); err != nil {
			return err
		}
	}
	if r.time != nil {
		if r.until, err = store.PositionAt(ctx, everything, r.system, *r.time); err != nil {
			return err
		}
	}
	to, err := store.Locate(ctx, r.system, r.until)
	if err != nil {
		return err
	}
	bar := newProgress(t.err, int64(to.Seq-min(from.Seq, to.Seq)), "events")
	defer bar.Finish()
	var line []byte
	var pace pacer
	err = store.Export(ctx, everything, r.system, r.query, func(l *domain.HashedEvent) error {
		if l.Event.Position.After(r.until) {
			return errUntil
		}
		_ = bar.Set64(int64(l.Event.Seq - from.Seq))
		if err := pace.wait(ctx, l.Event.Time, r.speed); err != nil {
			return err
		}
		line = append(l.AppendCloudEvent(line[:0]), '\n')
		if _, err := out.Write(line); err != nil {
			return fmt.Errorf("write export: %w", err)
		}
		r.written++
		return nil
	})
	if errors.Is(err, errUntil) {
		return nil
	}
	return err
}

// everything is who asks when an operator does, with the database's own URL in
// his hands.
var everything = domain.Actor{Subject: "operator", Role: domain.RoleStaff, AllSystems: true}

// pacer keeps the pauses between events.
type pacer struct {
	started time.Time // when the first event was written
	first   time.Time // the first event's time
}

func (p *pacer) wait(ctx context.Context, at time.Time, speed float64) error {
	if speed == 0 {
		return ctx.Err()
	}
	if p.started.IsZero() {
		p.started, p.first = time.Now(), at
	}
	due := p.started.Add(time.Duration(float64(at.Sub(p.first)) / speed))
	return backoff.Sleep(ctx, time.Until(due))
}

// newProgress shows a bar on a terminal and nothing elsewhere.
func newProgress(w io.Writer, total int64, unit string) *progressbar.ProgressBar {
	if !isTerminal(w) {
		return progressbar.DefaultSilent(total)
	}
	return progressbar.NewOptions64(total, progressbar.OptionSetWriter(w), progressbar.OptionShowCount(),
		progressbar.OptionShowIts(), progressbar.OptionSetItsString(unit), progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionClearOnFinish())
}
