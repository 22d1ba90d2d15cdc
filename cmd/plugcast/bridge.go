package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/plugcast/plugcast/projections"
	"github.com/plugcast/plugcast/streams/bridgestatus"
	"github.com/plugcast/plugcast/streams/intake"
	"github.com/plugcast/plugcast/transport/bridge"
	"github.com/plugcast/plugcast/transport/bridge/legacy"
	"github.com/plugcast/plugcast/transport/bridge/peer"
)

// bridgeSide is what a process does for bridges: it takes in what others send,
// whether or not it has links of its own.
type bridgeSide struct {
	*intake.Intake
	deployment string
	statuses   *bridgestatus.Store
	runner     *bridge.Runner
}

// newBridges reads the configuration, if there is one.
func (p *Program) newBridges(ctx context.Context) (*bridgeSide, error) {
	deployment, err := p.backend.store.Deployment(ctx)
	if err != nil {
		return nil, err
	}
	s := &bridgeSide{
		Intake:     intake.New(p.backend.log, p.backend.store, p.quota, deployment, p.Logger),
		deployment: deployment,
		statuses:   bridgestatus.New(p.backend.log.Client(), p.backend.log.Prefix()),
	}
	var links []bridge.Link
	if p.Server.Bridges != "" {
		file, err := os.Open(p.Server.Bridges)
		if err != nil {
			return nil, fmt.Errorf("--bridges: %w", err)
		}
		defer file.Close()
		if links, err = bridge.Load(file, p.bridgeKinds(s), os.Getenv); err != nil {
			return nil, usage("--bridges %s: %v", p.Server.Bridges, err)
		}
	}
	s.runner = bridge.NewRunner(bridge.RunnerConfig{
		Links: links, Node: p.Server.NodeName, Partition: p.backend.log.Partition, Statuses: statusStore{s.statuses}, Logger: p.Logger,
	})
	return s, nil
}

// bridgeKinds are the kinds of link that can be configured.
func (p *Program) bridgeKinds(s *bridgeSide) map[string]bridge.Factory {
	return map[string]bridge.Factory{
		peer.Kind: peer.New(peer.Parts{
			Deployment: s.deployment, Intake: s.Intake, Reader: p.backend.timeline, Logger: p.Logger,
		}),
		legacy.Kind: legacy.New(legacy.Parts{
			Deployment: s.deployment, Log: p.backend.log, Reader: p.backend.timeline,
			Store: legacyStore{p.backend.store}, Quota: p.quota, Logger: p.Logger,
		}),
	}
}

// jobs are what the owner of a partition does for bridges.
func (s *bridgeSide) jobs() []projections.Job {
	return []projections.Job{s.runner.Run, s.Intake.Run}
}

// Deployment implements rest.Bridges.
func (s *bridgeSide) Deployment() string { return s.deployment }

// List implements rest.Bridges.
func (s *bridgeSide) List(ctx context.Context) ([]json.RawMessage, error) { return s.statuses.All(ctx) }

// statusStore is [bridge.StatusStore].
type statusStore struct{ store *bridgestatus.Store }

// Put implements bridge.StatusStore.
func (s statusStore) Put(ctx context.Context, status bridge.Status) error {
	raw, err := json.Marshal(status)
	if err != nil {
		return fmt.Errorf("status of bridge %s for %s: %w", status.Bridge, status.System, err)
	}
	return s.store.Put(ctx, status.Bridge+"/"+string(status.System), raw)
}

var (
	bridgeUpDesc     = describe("bridge_up", "Systems of a bridge that this process runs and that are connected.", "bridge")
	bridgeSysDesc    = describe("bridge_systems", "Systems of a bridge that this process runs.", "bridge")
	bridgeEventsDesc = describe("bridge_events_total", "Events that went over a bridge, by what became of them.", "bridge", "way", "result")
	bridgeBehindDesc = describe("bridge_behind_events", "Events that are known to be still to go over a bridge.", "bridge", "way")
	bridgeGapsDesc   = describe("bridge_gaps_total", "Times that events were found missing.", "bridge", "way")
)

// collect gives Prometheus the figures of the bridges that this process runs. They
// name no system.
func (s *bridgeSide) collect(send func(*prometheus.Desc, prometheus.ValueType, float64, ...string)) {
	type sum struct {
		up, systems int
		flows       map[string]bridge.Flow
	}
	sums := map[string]*sum{}
	for _, status := range s.runner.Statuses() {
		of := sums[status.Bridge]
		if of == nil {
			of = &sum{flows: map[string]bridge.Flow{}}
			sums[status.Bridge] = of
		}
		of.systems++
		if status.Connected {
			of.up++
		}
		for way, flow := range map[string]*bridge.Flow{"pull": status.Pull, "push": status.Push} {
			if flow == nil {
				continue
			}
			all := of.flows[way]
			all.Accepted += flow.Accepted
			all.Duplicates += flow.Duplicates
			all.Own += flow.Own
			all.Filtered += flow.Filtered
			all.Refused += flow.Refused
			all.Behind += flow.Behind
			all.Gaps += flow.Gaps
			of.flows[way] = all
		}
	}
	for name, of := range sums {
		send(bridgeUpDesc, prometheus.GaugeValue, float64(of.up), name)
		send(bridgeSysDesc, prometheus.GaugeValue, float64(of.systems), name)
		for way, flow := range of.flows {
			for result, n := range map[string]uint64{
				"accepted": flow.Accepted, "duplicate": flow.Duplicates, "own": flow.Own, "filtered": flow.Filtered, "undecodable": flow.Refused,
			} {
				send(bridgeEventsDesc, prometheus.CounterValue, float64(n), name, way, result)
			}
			send(bridgeBehindDesc, prometheus.GaugeValue, float64(flow.Behind), name, way)
			send(bridgeGapsDesc, prometheus.CounterValue, float64(flow.Gaps), name, way)
		}
	}
}

// warnOfLinks says what runs nowhere in this process.
func (s *bridgeSide) warnOfLinks(p *Program, logger *slog.Logger) {
	if p.Server.Bridges != "" && !p.has(roleWorker) {
		logger.Info("bridges are run by workers; this process has only checked their configuration", "bridges", p.Server.Bridges)
	}
}
