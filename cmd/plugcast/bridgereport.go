package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/plugcast/plugcast/domain"
)

// bridgeReportCommand shows what bridges report.
type bridgeReportCommand struct {
	System string `help:"Only what is about this system."`
	Link   string `help:"Only what this bridge reports."`
	Since  string `help:"Only what was found at or after this time (RFC 3339), or this long ago (such as 24h)." placeholder:"TIME"`
	JSON   bool   `name:"json" help:"Print the report as one JSON document."`

	Backends backendFlags `embed:""`
}

// Help is shown with --help.
func (*bridgeReportCommand) Help() string {
	return "Shows what bridges of kind legacy report: what differs where they only compare, and what they could not pass on for certain. " +
		"Counts are since each bridge began; --since narrows the list alone. " +
		"Exit code 0: there is nothing in the list. Exit code 1: there is, or the report cannot be read (which is said on stderr)."
}

// differencesError is the result of a report with something in it.
type differencesError struct{ count int }

func (e *differencesError) Error() string {
	if e.count == 1 {
		return "the report has 1 entry"
	}
	return fmt.Sprintf("the report has %d entries", e.count)
}

// Run implements the command.
func (c *bridgeReportCommand) Run(ctx context.Context, t terminal, logger *slog.Logger) error {
	filter := domain.FindingsFilter{Link: c.Link}
	var err error
	if c.System != "" {
		if filter.System, err = domain.ParseSystemID(c.System); err != nil {
			return usage("%v", err)
		}
	}
	if c.Since != "" {
		if filter.Since, err = parseSince(c.Since, time.Now()); err != nil {
			return err
		}
	}
	store, err := c.Backends.openStore(ctx, logger)
	if err != nil {
		return err
	}
	defer store.Close()
	report, err := store.Findings(ctx, filter)
	if err != nil {
		return err
	}
	for more := report.More; more; { // MaxFindings a link: few enough to hold
		filter.After = report.Findings[len(report.Findings)-1].ID
		next, err := store.Findings(ctx, filter)
		if err != nil {
			return err
		}
		report.Findings = append(report.Findings, next.Findings...)
		more = next.More
	}
	report.More = false
	show := showReport
	if c.JSON {
		show = showReportJSON
	}
	if err := show(t.out, report); err != nil {
		return err
	}
	if n := len(report.Findings); n > 0 {
		return &differencesError{n}
	}
	return nil
}

// parseSince reads a time, or how long ago it was.
func parseSince(s string, now time.Time) (time.Time, error) {
	if ago, err := time.ParseDuration(s); err == nil && ago >= 0 {
		return now.Add(-ago), nil
	}
	at, err := domain.ParseTime(s)
	if err != nil {
		return at, usage("--since is a time such as 2026-11-23T18:00:00Z, or a duration such as 24h, not %q", s)
	}
	return at, nil
}

func showReportJSON(w io.Writer, report *domain.FindingsReport) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(report)
}

// showReport prints the sums of each link, and then one line or more per finding.
func showReport(w io.Writer, report *domain.FindingsReport) error {
	var text strings.Builder
	if len(report.Links) == 0 {
		text.WriteString("no bridge has reported anything\n")
	}
	for _, l := range report.Links {
		fmt.Fprintf(&text, "%s  %s  since %s", l.Link, l.System, l.Since.Local().Format(time.DateTime))
		if l.AliveAt != nil {
			fmt.Fprintf(&text, ", last written %s", l.AliveAt.Local().Format(time.DateTime))
		}
		text.WriteString("\n")
		for _, what := range slices.Sorted(maps.Keys(l.Counts)) {
			fmt.Fprintf(&text, "  %-12s %d\n", what, l.Counts[what])
		}
		if l.Dropped > 0 {
			fmt.Fprintf(&text, "  %-12s %d (there were too many: the oldest are not in the list)\n", "not kept", l.Dropped)
		}
	}
	for i := range report.Findings {
		showFinding(&text, &report.Findings[i])
	}
	_, err := io.WriteString(w, text.String())
	return err
}

func showFinding(w io.Writer, f *domain.Finding) {
	fmt.Fprintf(w, "%s  %-11s  %s %s", f.At.Local().Format("2006-01-02 15:04:05.000"), f.Kind, f.Link, f.System)
	for _, part := range []string{string(f.Event), string(f.Device), strings.Join(f.Members, ",")} {
		if part != "" {
			fmt.Fprintf(w, "  %s", part)
		}
	}
	switch {
	case f.From != nil && f.To != nil:
		fmt.Fprintf(w, "  from %s to %s (%s)", f.From.Local().Format(time.DateTime), f.To.Local().Format(time.DateTime), f.To.Sub(*f.From).Round(time.Millisecond))
	case f.DelayMS != 0:
		fmt.Fprintf(w, "  %d ms later there", f.DelayMS)
	}
	if f.Count > 0 {
		fmt.Fprintf(w, "  %d events", f.Count)
	}
	if f.After != nil && f.Through != nil {
		fmt.Fprintf(w, " after %s up to %s", f.After, f.Through)
	} else if f.Through != nil {
		fmt.Fprintf(w, "  at %s", f.Through)
	}
	if f.Detail != "" {
		fmt.Fprintf(w, "  %s", plain(f.Detail))
	}
	fmt.Fprintln(w)
	for _, side := range []struct {
		name    string
		payload json.RawMessage
	}{{"here", f.Here}, {"there", f.There}} {
		if side.payload != nil {
			fmt.Fprintf(w, "    %-6s %s\n", side.name, plain(string(side.payload)))
		}
	}
}
