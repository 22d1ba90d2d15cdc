// Package metrics measures a process, for Prometheus and for the other processes, and
// sums up what all processes of the deployment measured for the admin dashboard.
package metrics

import (
	"context"
	"encoding/json"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/domain/backoff"
	"github.com/plugcast/plugcast/domain/isolate"
	"github.com/plugcast/plugcast/projections"
	"github.com/plugcast/plugcast/streams"
	"github.com/plugcast/plugcast/streams/presence"
	"github.com/plugcast/plugcast/streams/reactions"
	"github.com/plugcast/plugcast/transport/admission"
	"github.com/plugcast/plugcast/transport/bridge"
	"github.com/plugcast/plugcast/transport/edge"
	"github.com/plugcast/plugcast/transport/rooms"
	"github.com/plugcast/plugcast/transport/shelly"
	"github.com/plugcast/plugcast/transport/shelly/cloud"
	"github.com/plugcast/plugcast/transport/shelly/outbound"
)

// Parts are what is measured. Hub, Work, Answers and Outbound are nil in a process that
// serves no clients; Worker and Cloud are nil in one that owns no partitions.
type Parts struct {
	Node      string   // name of this process
	Address   string   // at which other processes reach its clients' server
	Roles     []string // of this process
	Log       *streams.Log
	Store     *projections.Store
	Sockets   *presence.Registry
	Reactions *reactions.Dispatcher
	Bridges   *bridge.Runner
	Worker    *projections.Worker
	Cloud     *cloud.Supervisor
	Hub       *rooms.Hub
	Work      *admission.Controller // reads of the database
	Answers   *admission.Controller // bytes that clients have not read yet
	Outbound  *outbound.Server
	Refusals  *shelly.Refusals // of devices
	Clients   *edge.Server
	Logger    *slog.Logger
}

// Sampler measures this process. It is safe for concurrent use.
type Sampler struct {
	parts   Parts
	started time.Time

	mu         sync.Mutex
	before     sample
	lags       []partitionFigures    // of the partitions that this process owns
	quarantine domain.QuarantineSize // as far as a worker knows
}

// sample is what rates are measured between.
type sample struct {
	at         time.Time
	appends    uint64
	deliveries uint64
	latency    rooms.Histogram
	systems    map[domain.SystemID]uint64
}

// nodeFigures is what one process says of itself.
type nodeFigures struct {
	Node                string             `json:"node"`
	Address             string             `json:"address,omitempty"` // at which other processes reach its clients' server
	Roles               []string           `json:"roles"`
	StartedAt           time.Time          `json:"startedAt"`
	Sockets             int                `json:"sockets"`
	Rooms               int                `json:"rooms"`
	Appends             uint64             `json:"appends"`
	AppendErrors        uint64             `json:"appendErrors"`
	AppendsPerSecond    float64            `json:"appendsPerSecond"`
	Deliveries          uint64             `json:"deliveries"`
	DeliveriesPerSecond float64            `json:"deliveriesPerSecond"`
	DeliveryLatencyMs   latencyFigures     `json:"deliveryLatencyMs"`
	DeviceSockets       int                `json:"deviceSockets"`
	ShellyConnections   map[string]int     `json:"shellyConnections"` // to the Shelly Cloud that this process holds, by state
	DeadLetters         uint64             `json:"deadLetters"`       // events whose reaction was given up
	Panics              uint64             `json:"panics"`            // that were caught
	Partitions          []partitionFigures `json:"partitions"`        // that this process owns
	Projections         ProjectionFigures  `json:"projections"`       // what does not go as it should
	Systems             []systemFigures    `json:"systems"`           // the busiest
}

// latencyFigures are percentiles of the time from append to delivery.
type latencyFigures struct {
	P50 float64 `json:"p50"`
	P95 float64 `json:"p95"`
	P99 float64 `json:"p99"`
}

type partitionFigures struct {
	Partition int     `json:"partition"`
	BehindMs  float64 `json:"behindMs"`
}

type systemFigures struct {
	SystemID            domain.SystemID `json:"systemId"`
	Sockets             int             `json:"sockets"`
	DeliveriesPerSecond float64         `json:"deliveriesPerSecond"`
}

// topSystems is how many systems are named.
const topSystems = 10

// NewSampler makes a Sampler.
func NewSampler(parts Parts) *Sampler {
	now := time.Now()
	return &Sampler{parts: parts, started: now.UTC(), before: sample{at: now}}
}

// Own measures since the last call and returns the figures that the node publishes, as
// JSON. Figures that cannot be encoded must not keep the node from being listed.
func (s *Sampler) Own() json.RawMessage {
	raw, err := json.Marshal(s.measure())
	if err != nil {
		s.parts.Logger.Error("metrics: this node's figures cannot be written", "error", err)
		return json.RawMessage(`{}`)
	}
	return raw
}

func (s *Sampler) measure() nodeFigures {
	p := &s.parts
	log := p.Log.Stats()
	var hub rooms.Stats
	if p.Hub != nil {
		hub = p.Hub.Stats(topSystems)
	}
	now := sample{
		at: time.Now(), appends: log.Appends, deliveries: hub.Deliveries, latency: hub.Latency, systems: map[domain.SystemID]uint64{},
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	seconds := max(now.at.Sub(s.before.at).Seconds(), 0.001)
	latency := now.latency.Since(s.before.latency)
	n := nodeFigures{
		Node: p.Node, Address: p.Address, Roles: p.Roles, StartedAt: s.started, Sockets: len(p.Sockets.Own()), Rooms: hub.Rooms,
		Appends: log.Appends, AppendErrors: log.AppendErrors, AppendsPerSecond: float64(log.Appends-s.before.appends) / seconds,
		Deliveries: hub.Deliveries, DeliveriesPerSecond: float64(hub.Deliveries-s.before.deliveries) / seconds,
		DeliveryLatencyMs: latencyFigures{millis(latency.Quantile(0.5)), millis(latency.Quantile(0.95)), millis(latency.Quantile(0.99))},
		Partitions:        s.lags, Systems: []systemFigures{},
	}
	n.DeviceSockets, n.ShellyConnections = p.devices()
	n.DeadLetters = p.Reactions.Stats().Dead
	for _, count := range isolate.Panics() {
		n.Panics += count
	}
	n.Projections = ProjectionFigures{Failing: stuck(p.Store, now.at)}
	if p.Worker != nil {
		n.Projections.Quarantine = figuresOfQuarantine(s.quarantine)
	}
	for _, one := range hub.Systems {
		now.systems[one.SystemID] = one.Deliveries
		rate := float64(one.Deliveries-min(s.before.systems[one.SystemID], one.Deliveries)) / seconds
		n.Systems = append(n.Systems, systemFigures{one.SystemID, one.Subscriptions, rate})
	}
	s.before = now
	return n
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// devices counts the device sockets of this process, and its connections to the
// Shelly Cloud by state.
func (p *Parts) devices() (sockets int, connections map[string]int) {
	connections = map[string]int{}
	if p.Outbound != nil {
		sockets = p.Outbound.Stats().Sockets
	}
	if p.Cloud != nil {
		for state, n := range p.Cloud.Stats() {
			connections[string(state)] = n
		}
	}
	return sockets, connections
}

// Run keeps the lags of owned partitions up to date, once a second, until ctx ends.
func (s *Sampler) Run(ctx context.Context) error {
	backoff.Every(ctx, time.Second, func(time.Time) { s.lookAtLags(ctx) })
	return nil
}

func (s *Sampler) lookAtLags(ctx context.Context) {
	p := &s.parts
	if p.Worker == nil {
		return
	}
	owned := p.Worker.Owned()
	lags, err := p.Store.Lags(ctx, p.Log)
	if err != nil {
		p.Logger.Debug("metrics: lags", "error", err)
		return
	}
	mine := []partitionFigures{}
	for _, lag := range lags {
		if slices.Contains(owned, lag.Partition) {
			mine = append(mine, partitionFigures{lag.Partition, millis(lag.Behind)})
		}
	}
	quarantine, err := p.Store.QuarantineSize(ctx)
	if err != nil {
		p.Logger.Debug("metrics: quarantine", "error", err)
		return
	}
	s.mu.Lock()
	s.lags, s.quarantine = mine, quarantine
	s.mu.Unlock()
}

// projection is what a worker saw last.
func (s *Sampler) projection() []partitionFigures {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lags
}
