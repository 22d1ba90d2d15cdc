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

// bridgeReportCommand shows the findings that links to Socket.IO servers have reported.
type bridgeReportCommand struct {
	System string `help:"Only findings about this system."`
	Link   string `help:"Only findings of this bridge."`
	Since  string `help:"Only findings since this time (RFC 3339), or since this long ago (such as 24h)." placeholder:"TIME"`
	JSON   bool   `name:"json" help:"Print the report as one JSON document."`

	Backends backendFlags `embed:""`
}

// Help is shown with --help.
func (*bridgeReportCommand) Help() string {
	return "Shows the findings of bridges of kind socketio: the differences that those in shadow mode found, and the events that " +
		"those in forward mode may have lost or doubled. " +
		"The counts start with each bridge; --since narrows only the list. " +
		"Exit code 0: the list is empty. Exit code 1: it is not, or the command could not read the report and says so on stderr."
}

// differencesError is the result of a report that has findings.
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
	for more := report.More; more; { // the store holds few enough findings per link to fit in memory
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

// showReport prints the counts of each link, and then one line or more per finding.
func showReport(w io.Writer, report *domain.FindingsReport) error {
	var text strings.Builder
	if len(report.Links) == 0 {
		text.WriteString("no bridge has reported a finding\n")
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
			fmt.Fprintf(&text, "  %-12s %d (too many findings: the list lacks the oldest)\n", "dropped", l.Dropped)
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
		fmt.Fprintf(w, "  from %s to %s (%s)",
			f.From.Local().Format(time.DateTime), f.To.Local().Format(time.DateTime), f.To.Sub(*f.From).Round(time.Millisecond))
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
