package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/bridge"
)

// bridgeCommand has the commands about links to other deployments and servers.
type bridgeCommand struct {
	Status bridgeStatusCommand `cmd:"" help:"Show the status of the bridges of a running deployment."`
	Report bridgeReportCommand `cmd:"" help:"Show the findings of bridges to Socket.IO servers."`
}

// bridgeStatusCommand shows the statuses that a running server returns.
type bridgeStatusCommand struct {
	URL   string `name:"url" help:"The server to ask." default:"http://127.0.0.1:8080" placeholder:"URL"`
	Token string `help:"A staff token. Default: the command signs one with the JWT secret." placeholder:"JWT"`
	JSON  bool   `name:"json" help:"Print the server's answer, as JSON."`

	Auth authFlags `embed:""`
}

// statusTimeout bounds the request.
const statusTimeout = 10 * time.Second

// Run implements the command.
func (c *bridgeStatusCommand) Run(ctx context.Context, t terminal) error {
	server, err := url.Parse(c.URL)
	if err != nil || server.Scheme != "http" && server.Scheme != "https" || server.Host == "" {
		return usage("--url must look like http://HOST:PORT")
	}
	if c.Token == "" {
		if c.Auth.JWTSecret == "" {
			return usage("give a staff --token, or PLUGCAST_JWT_SECRET to make one")
		}
		actor := domain.Actor{Subject: "bridge-status", Role: domain.RoleStaff, AllSystems: true, ExpiresAt: time.Now().Add(time.Minute)}
		if c.Token, err = c.Auth.config().Sign(actor, time.Now()); err != nil {
			return err
		}
	}
	raw, err := c.request(ctx, server)
	if err != nil {
		return fmt.Errorf("request from %s: %w", server.Host, err)
	}
	if c.JSON {
		_, err := fmt.Fprintf(t.out, "%s\n", strings.TrimSpace(string(raw)))
		return err
	}
	var answer struct {
		Deployment string          `json:"deployment"`
		Bridges    []bridge.Status `json:"bridges"`
	}
	if err := json.Unmarshal(raw, &answer); err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	return showBridges(t.out, answer.Deployment, answer.Bridges, time.Now())
}

func (c *bridgeStatusCommand) request(ctx context.Context, server *url.URL) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, server.JoinPath("api/v1/bridges").String(), nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+c.Token)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(response.Body, 16<<20))
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the server answered %s", response.Status)
	}
	return raw, nil
}

// staleAfter is the age at which a status counts as outdated: no process runs the bridge.
const staleAfter = 15 * time.Second

func showBridges(out io.Writer, deployment string, list []bridge.Status, now time.Time) error {
	fmt.Fprintf(out, "deployment %s\n", plain(deployment))
	if len(list) == 0 {
		_, err := fmt.Fprintln(out, "no bridges are configured, or none has run yet")
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "BRIDGE\tSYSTEM\tSTATE\tWAY\tPOSITION\tBEHIND\tACCEPTED\tDUPLICATES\tOWN\tFILTERED\tUNDECODABLE\tGAPS")
	for i := range list {
		s := &list[i]
		state := "down"
		switch {
		case now.Sub(s.At) > staleAfter:
			state = "not run"
		case s.Connected:
			state = "up"
		}
		for _, f := range []struct {
			way  string
			flow *bridge.Flow
		}{{"pull", s.Pull}, {"push", s.Push}} {
			if f.flow != nil {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\n",
					plain(s.Bridge), plain(string(s.System)), state, f.way, f.flow.Position,
					f.flow.Behind, f.flow.Accepted, f.flow.Duplicates, f.flow.Own, f.flow.Filtered, f.flow.Refused, f.flow.Gaps)
			}
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for i := range list {
		if s := &list[i]; s.LastError != "" && s.LastErrorAt != nil {
			fmt.Fprintf(out, "%s %s: %s: %s\n", plain(s.Bridge), plain(string(s.System)), s.LastErrorAt.Format(time.RFC3339), plain(s.LastError))
		}
	}
	return nil
}
