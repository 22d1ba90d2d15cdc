package server

import (
	"context"
	"fmt"
	"os"

	"github.com/plugcast/plugcast/projections"
	"github.com/plugcast/plugcast/streams/bridgestatus"
	"github.com/plugcast/plugcast/streams/intake"
	"github.com/plugcast/plugcast/transport/bridge"
	"github.com/plugcast/plugcast/transport/bridge/legacy"
	"github.com/plugcast/plugcast/transport/bridge/peer"
)

// bridging is the part of a process that serves bridges: it imports the events that other
// deployments send, whether or not it has links of its own. It implements [rest.Bridges].
type bridging struct {
	*intake.Intake
	*bridgestatus.Store
	runner *bridge.Runner
}

// newBridging opens the intake and the status store, and reads the links if any are configured.
func (s *Server) newBridging(ctx context.Context) (*bridging, error) {
	c, log := &s.config, s.backend.Log
	deployment, err := s.backend.Store.Deployment(ctx)
	if err != nil {
		return nil, err
	}
	b := &bridging{
		Intake: intake.New(log, s.backend.Store, s.quota, deployment, c.Logger),
		Store:  bridgestatus.New(log.Client(), log.Prefix()),
	}
	links, err := s.links(b.Intake)
	if err != nil {
		return nil, err
	}
	b.runner = bridge.NewRunner(bridge.RunnerConfig{
		Links: links, Node: c.NodeName, Partition: log.Partition, Statuses: b.Store, Logger: c.Logger,
	})
	return b, nil
}

// links reads the configured links.
func (s *Server) links(in *intake.Intake) ([]bridge.Link, error) {
	c := &s.config
	if c.Bridges == "" {
		return nil, nil
	}
	file, err := os.Open(c.Bridges)
	if err != nil {
		return nil, unavailable("Bridges", err)
	}
	defer file.Close()
	links, err := bridge.Load(file, map[string]bridge.Factory{
		peer.Kind: peer.New(peer.Parts{
			Deployment: in.Deployment(), Intake: in, Reader: s.backend.Timeline, Logger: c.Logger,
		}),
		legacy.Kind: legacy.New(legacy.Parts{
			Deployment: in.Deployment(), Log: s.backend.Log, Reader: s.backend.Timeline,
			Store: legacy.NewStore(s.backend.Store), Quota: s.quota, Logger: c.Logger,
		}),
	}, c.Getenv)
	if err != nil {
		return nil, invalid("Bridges", fmt.Errorf("%s: %w", c.Bridges, err))
	}
	if !c.has(RoleWorker) {
		c.Logger.Info("bridges are run by workers; this process has only checked their configuration", "bridges", c.Bridges)
	}
	return links, nil
}

// jobs returns the jobs that the owner of a partition has for bridges.
func (b *bridging) jobs() []projections.Job {
	return []projections.Job{b.runner.Run, b.Intake.Run}
}
