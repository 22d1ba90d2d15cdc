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
	var result projections.VerifyResult
	var err error
	switch {
	case (c.File == "") == (c.System == ""):
		return usage("name either a FILE or a --system")
	case c.File != "":
		result, err = verifyFile(ctx, t, c.File)
	default:
		result, err = c.verifyHistory(ctx, t, logger)
	}
	switch {
	case err != nil:
		return err
	case result.Broken != nil:
		return fmt.Errorf("the chain is broken after %d good events: %w", result.Checked, result.Broken)
	case result.Checked == 0 && c.File != "":
		return fmt.Errorf("there are no events in %s", c.File)
	case result.Checked == 0:
		_, err = fmt.Fprintln(t.out, "there are no events")
	default:
		leftOut := ""
		if n := result.Head.Seq - result.Checked; n > 0 {
			leftOut = fmt.Sprintf("; PARTIAL: %d events before that are not in the file, by a filter of the export or by removal", n)
		}
		_, err = fmt.Fprintf(t.out, "%d events hold, up to %s with hash %s%s\n", result.Checked, result.Head, result.Hash, leftOut)
	}
	return err
}

// maxLine bounds a line of an export. Events are far smaller; what is larger is
// no export, and must not fill the memory.
const maxLine = 4 << 20

// verifyFile reads an export line by line, in memory of one line.
func verifyFile(ctx context.Context, t terminal, path string) (result projections.VerifyResult, err error) {
	file, err := os.Open(path)
	if err != nil {
		return result, fmt.Errorf("read export: %w", err)
	}
	defer file.Close()
	size := int64(-1)
	if info, err := file.Stat(); err == nil {
		size = info.Size()
	}
	bar := newProgress(t.err, size, "bytes")
	defer bar.Finish()
	lines := bufio.NewReaderSize(file, maxLine)
	var chain domain.ChainVerifier
	for number := 1; ctx.Err() == nil; number++ {
		line, err := lines.ReadSlice('\n')
		switch {
		case errors.Is(err, io.EOF) && len(line) == 0:
			return result, nil
		case errors.Is(err, bufio.ErrBufferFull):
			return result, fmt.Errorf("line %d: longer than %d bytes: not a line of a plugcast export", number, maxLine)
		case err != nil && !errors.Is(err, io.EOF):
			return result, fmt.Errorf("read export: %w", err)
		}
		_ = bar.Add(len(line))
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		link, err := domain.ParseCloudEvent(line)
		if err == nil {
			err = chain.Verify(&link)
		}
		switch {
		case errors.As(err, &result.Broken):
			return result, nil
		case err != nil:
			return result, fmt.Errorf("line %d: %w", number, err)
		}
		result.Checked, result.Head, result.Hash = chain.Verified(), link.Event.Cursor(), link.Hash
	}
	return result, ctx.Err()
}

func (c *verifyCommand) verifyHistory(ctx context.Context, t terminal, logger *slog.Logger) (projections.VerifyResult, error) {
	system, err := domain.ParseSystemID(c.System)
	if err != nil {
		return projections.VerifyResult{}, usage("--system: %v", err)
	}
	store, err := c.Backends.openStore(ctx, logger)
	if err != nil {
		return projections.VerifyResult{}, err
	}
	defer store.Close()
	bar := newProgress(t.err, 0, "events")
	defer bar.Finish()
	return store.Verify(ctx, everything, system, func(done, total uint64) {
		bar.ChangeMax64(int64(total))
		_ = bar.Set64(int64(done))
	})
}
