package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"

	"github.com/plugcast/plugcast/transport/shelly/simulator"
)

// simulateCommand is a fleet of plugs that dial into a server, as real ones do.
type simulateCommand struct {
	URL     string  `name:"url" required:"" help:"Where the plugs dial in: the URL that a connection of kind shelly-outbound got. Its end is a key." placeholder:"ws://HOST/shelly/CONNECTION/KEY"`
	Devices int     `help:"How many plugs, 1 to 20000." default:"10"`
	Rate    float64 `help:"Changes per plug and minute: power wavers, and now and then a relay flips." default:"6"`
	Seed    uint64  `help:"The same seed has the same plugs, with the same ids." default:"1"`
}

// Bounds of a fleet: the ports of one address are not many more, and a plug that
// changes more often than ten times a second is none.
const (
	mostSimulated    = 20_000
	mostSimulateRate = 600
	simulateRamp     = 2 * time.Millisecond // between two plugs' first dials
)

// Run implements the command. It ends well when its user stops it.
func (c *simulateCommand) Run(ctx context.Context, t terminal, logger *slog.Logger) error {
	server, err := url.Parse(c.URL)
	switch {
	case err != nil || server.Scheme != "ws" && server.Scheme != "wss" || server.Host == "" || strings.Trim(server.Path, "/") == "":
		return usage("--url looks like ws://HOST:PORT/shelly/CONNECTION/KEY or wss://HOST/shelly/CONNECTION/KEY")
	case c.Devices < 1 || c.Devices > mostSimulated:
		return usage("--devices must be 1 to %d, not %d", mostSimulated, c.Devices)
	case !(c.Rate >= 0 && c.Rate <= mostSimulateRate):
		return usage("--rate must be 0 to %d, not %v", mostSimulateRate, c.Rate)
	}
	fleet := simulator.NewFleet(simulator.FleetConfig{
		Devices: c.Devices, Seed: c.Seed, Rate: c.Rate,
		Connection: path.Base(path.Dir(server.Path)),
		Ramp:       time.Duration(c.Devices) * simulateRamp,
		Logger:     logger,
	})
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	started := time.Now()
	done := make(chan error, 1)
	go func() { done <- fleet.Run(ctx, c.URL) }()
	err = c.watch(ctx, fleet, t.err, withoutKey(server), done, cancel)
	fmt.Fprintf(t.err, "%d plugs sent %d frames in %v and dialled %d times\n",
		c.Devices, fleet.Sent(), time.Since(started).Round(time.Second), fleet.Dials())
	return untilStopped(ctx, err)
}

// withoutKey is a dial-in URL as it may be shown.
func withoutKey(server *url.URL) string {
	return server.Scheme + "://" + server.Host + path.Join("/", path.Dir(server.Path), "…")
}

// watch tells how the fleet does until it ends, and ends it when no plug of it
// will ever be let in.
func (c *simulateCommand) watch(ctx context.Context, fleet *simulator.Fleet, w io.Writer, place string,
	done <-chan error, cancel context.CancelCauseFunc,
) error {
	bar := newProgress(w, int64(c.Devices), "plugs")
	defer bar.Clear()
	every := time.NewTicker(100 * time.Millisecond)
	defer every.Stop()
	was := ""
	for {
		select {
		case err := <-done:
			return err
		case <-every.C:
			if ctx.Err() != nil {
				continue // the plugs say goodbye
			}
		}
		connected := fleet.Connected()
		if fleet.Refused(http.StatusUnauthorized) == c.Devices {
			err := fmt.Errorf("connect to %s: the server knows no such connection or key (401)", place)
			cancel(err)
			return <-done
		}
		is := standing(fleet, connected, c.Devices)
		switch {
		case is != was && is != "":
			_ = bar.Clear()
			fmt.Fprintf(w, "%s%s\n", is, map[bool]string{true: " to " + place}[connected == c.Devices])
		case connected < c.Devices:
			_ = bar.Set(connected)
		}
		if is != "" || connected == 0 {
			was = is
		}
	}
}

// standing is a fleet's situation, in words, if it is one worth a line.
func standing(fleet *simulator.Fleet, connected, devices int) string {
	switch refusal, problem := fleet.LastRefusal(), fleet.Problem(); {
	case connected == devices:
		return fmt.Sprintf("%d of %d plugs connected", connected, devices)
	case connected > 0:
		return ""
	case problem != nil:
		return fmt.Sprintf("the server cannot be reached (%s); the plugs go on trying", oneLine(problem))
	case refusal == http.StatusForbidden:
		return "the connection is stopped (403); the plugs go on trying"
	case refusal != 0 && refusal != http.StatusUnauthorized:
		return fmt.Sprintf("the server refuses the plugs (%d); they go on trying", refusal)
	}
	return ""
}
