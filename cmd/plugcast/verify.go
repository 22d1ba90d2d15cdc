package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/projections"
)

// verifyCommand checks a hash chain: of an export, which needs no server, or of
// the live history.
type verifyCommand struct {
	File   string `arg:"" optional:"" help:"An export, as replay writes it."`
	System string `help:"Check this system's live history instead."`

	Backends backendFlags `embed:""`
}

// Run implements the command.
func (c *verifyCommand) Run(ctx context.Context, t terminal, logger *slog.Logger) error {
	var chain domain.Chain
	var err error
	switch {
	case (c.File == "") == (c.System == ""):
		return usage("name either a FILE or a --system")
	case c.File != "":
		err = verifyFile(ctx, t, &chain, c.File)
	default:
		err = c.verifyHistory(ctx, t, &chain, logger)
	}
	if broken := new(domain.BrokenError); errors.As(err, &broken) {
		return fmt.Errorf("the chain is broken after %d good events: %w", chain.Checked(), broken)
	}
	if err != nil {
		return err
	}
	if chain.Last() == nil {
		_, err = fmt.Fprintln(t.out, "there are no events")
		return err
	}
	_, err = fmt.Fprintf(t.out, "%d events hold, up to %s with hash %s\n",
		chain.Checked(), chain.Last().Event.Cursor(), chain.Last().Hash)
	return err
}

// verifyFile reads an export line by line, in memory of one line.
func verifyFile(ctx context.Context, t terminal, chain *domain.Chain, path string) error {
	file, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("read export: %w", err)
	}
	defer file.Close()
	size := int64(-1)
	if info, err := file.Stat(); err == nil {
		size = info.Size()
	}
	bar := newProgress(t.err, size, "bytes")
	defer bar.Finish()
	lines := bufio.NewReaderSize(file, 1<<20)
	for number := 1; ctx.Err() == nil; number++ {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) && len(line) == 0 {
			return nil
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read export: %w", err)
		}
		_ = bar.Add(len(line))
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		link, err := domain.ParseCloudEvent(line)
		if err != nil {
			return fmt.Errorf("line %d: %w", number, err)
		}
		if err := chain.Check(&link); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (c *verifyCommand) verifyHistory(ctx context.Context, t terminal, chain *domain.Chain, logger *slog.Logger) error {
	system, err := domain.ParseSystemID(c.System)
	if err != nil {
		return usage("--system: %v", err)
	}
	store, err := openStore(ctx, c.Backends, nil, logger)
	if err != nil {
		return err
	}
	defer store.Close()
	newest, err := store.Locate(ctx, system, projections.At(time.Now().AddDate(1, 0, 0)))
	if err != nil {
		return err
	}
	bar := newProgress(t.err, int64(newest.Seq), "events")
	defer bar.Finish()
	for at := (domain.Position{}); ; {
		links, err := store.Links(ctx, system, at, projections.MaxPage)
		if err != nil || len(links) == 0 {
			return err
		}
		for i := range links {
			if err := chain.Check(&links[i]); err != nil {
				return err
			}
			at = links[i].Event.Position
		}
		_ = bar.Add(len(links))
	}
}
