package main

import (
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/domain/isolate"
	"github.com/plugcast/plugcast/transport/rooms"
)

// figures counts what this process does, puts it on the board of all nodes once
// a second, and makes the frames of the admin dashboard out of everybody's.
type figures struct {
	program *Program
	started time.Time

	mu         sync.Mutex
	before     sample
	lags       []partitionFigures    // of the partitions that this process owns
	quarantine domain.QuarantineSize // as far as a worker knows
	watchers   map[int]func(frame []byte)
	next       int
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
	Projections         projectionFigures  `json:"projections"`       // what does not go as it should
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

func newFigures(p *Program) *figures {
	now := time.Now()
	return &figures{program: p, started: now.UTC(), before: sample{at: now}, watchers: map[int]func([]byte){}}
}

// own measures since the last call and returns the figures that the node publishes.
// Figures that cannot be encoded must not keep the node from being listed.
func (f *figures) own() json.RawMessage {
	raw, err := json.Marshal(f.measure())
	if err != nil {
		f.program.Logger.Error("metrics: this node's figures cannot be written", "error", err)
		return json.RawMessage(`{}`)
	}
	return raw
}

func (f *figures) measure() nodeFigures {
	p := f.program
	log := p.backend.log.Stats()
	var hub rooms.Stats
	if p.gateway != nil {
		hub = p.gateway.hub.Stats(topSystems)
	}
	now := sample{
		at: time.Now(), appends: log.Appends, deliveries: hub.Deliveries, latency: hub.Latency, systems: map[domain.SystemID]uint64{},
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	seconds := max(now.at.Sub(f.before.at).Seconds(), 0.001)
	latency := now.latency.Since(f.before.latency)
	n := nodeFigures{
		Node: p.Server.NodeName, Address: p.address, Roles: p.Roles, StartedAt: f.started, Sockets: len(p.registry.Own()), Rooms: hub.Rooms,
		Appends: log.Appends, AppendErrors: log.AppendErrors, AppendsPerSecond: float64(log.Appends-f.before.appends) / seconds,
		Deliveries: hub.Deliveries, DeliveriesPerSecond: float64(hub.Deliveries-f.before.deliveries) / seconds,
		DeliveryLatencyMs: latencyFigures{millis(latency.Quantile(0.5)), millis(latency.Quantile(0.95)), millis(latency.Quantile(0.99))},
		Partitions:        f.lags, Systems: []systemFigures{},
	}
	n.DeviceSockets, n.ShellyConnections = p.shelly.figures()
	n.DeadLetters = p.reactions.Stats().Dead
	for _, count := range isolate.Panics() {
		n.Panics += count
	}
	n.Projections = projectionFigures{Failing: stuck(p.backend.store, now.at)}
	if p.worker != nil {
		n.Projections.Quarantine = figuresOfQuarantine(f.quarantine)
	}
	for _, s := range hub.Systems {
		now.systems[s.SystemID] = s.Deliveries
		rate := float64(s.Deliveries-min(f.before.systems[s.SystemID], s.Deliveries)) / seconds
		n.Systems = append(n.Systems, systemFigures{s.SystemID, s.Subscriptions, rate})
	}
	f.before = now
	return n
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// run keeps the lags of owned partitions and feeds the admin dashboard, once a
// second, until ctx ends.
func (f *figures) run(ctx context.Context) error {
	every := time.NewTicker(time.Second)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-every.C:
		}
		f.lookAtLags(ctx)
		f.feed(ctx)
	}
}

func (f *figures) lookAtLags(ctx context.Context) {
	p := f.program
	if p.worker == nil {
		return
	}
	owned := p.worker.Owned()
	lags, err := p.backend.store.Lags(ctx, p.backend.log)
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
	quarantine, err := p.backend.store.QuarantineSize(ctx)
	if err != nil {
		p.Logger.Debug("metrics: quarantine", "error", err)
		return
	}
	f.mu.Lock()
	f.lags, f.quarantine = mine, quarantine
	f.mu.Unlock()
}

// Subscribe gives fn a metrics frame once a second until cancel is called. fn
// must not block.
func (f *figures) Subscribe(fn func(frame []byte)) (cancel func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	id := f.next
	f.next++
	f.watchers[id] = fn
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.watchers, id)
	}
}

// projection is what a worker saw last.
func (f *figures) projection() []partitionFigures {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.lags
}

// feed makes one frame for everybody who watches here.
func (f *figures) feed(ctx context.Context) {
	f.mu.Lock()
	watchers := slices.Collect(maps.Values(f.watchers))
	f.mu.Unlock()
	if len(watchers) == 0 {
		return
	}
	board, err := f.program.registry.Nodes(ctx)
	if err != nil {
		f.program.Logger.Debug("metrics: nodes", "error", err)
		return
	}
	frame, err := json.Marshal(map[string]any{"event": "metrics", "data": summarise(decodeNodes(board), time.Now())})
	if err != nil {
		f.program.Logger.Error("metrics: the figures cannot be written", "error", err)
		return
	}
	for _, watch := range watchers {
		isolate.Do(f.program.Logger, "metrics", func() { watch(frame) })
	}
}

// decodeNodes reads what is on the board, in order of name.
func decodeNodes(board map[string]json.RawMessage) (nodes []nodeFigures) {
	for _, name := range slices.Sorted(maps.Keys(board)) {
		var n nodeFigures
		if json.Unmarshal(board[name], &n) == nil { // another version's node may say other things
			nodes = append(nodes, n)
		}
	}
	return nodes
}

// platformFigures is the data of a metrics frame.
type platformFigures struct {
	Time                string             `json:"time"`
	Nodes               []nodeFigures      `json:"nodes"`
	Sockets             int                `json:"sockets"`
	Rooms               int                `json:"rooms"` // a system with members on two nodes has two
	AppendsPerSecond    float64            `json:"appendsPerSecond"`
	DeliveriesPerSecond float64            `json:"deliveriesPerSecond"`
	DeliveryLatencyMs   latencyFigures     `json:"deliveryLatencyMs"` // of the slowest node
	ProjectionLag       []partitionFigures `json:"projectionLag"`
	Projections         projectionFigures  `json:"projections"` // what does not go as it should
	DeviceSockets       int                `json:"deviceSockets"`
	ShellyConnections   map[string]int     `json:"shellyConnections"` // to the Shelly Cloud, by state
	DeadLetters         uint64             `json:"deadLetters"`
	Panics              uint64             `json:"panics"`
	TopSystems          []systemFigures    `json:"topSystems"`
}

func summarise(nodes []nodeFigures, now time.Time) platformFigures {
	s := platformFigures{
		Time: domain.FormatTime(now), Nodes: nodes, ProjectionLag: []partitionFigures{}, ShellyConnections: map[string]int{},
		TopSystems: []systemFigures{}, Projections: summariseProjections(nodes),
	}
	systems, lags := map[domain.SystemID]systemFigures{}, map[int]float64{}
	for _, n := range nodes {
		s.Sockets += n.Sockets
		s.Rooms += n.Rooms
		s.DeviceSockets += n.DeviceSockets
		s.DeadLetters += n.DeadLetters
		s.Panics += n.Panics
		for state, count := range n.ShellyConnections {
			s.ShellyConnections[state] += count
		}
		s.AppendsPerSecond += n.AppendsPerSecond
		s.DeliveriesPerSecond += n.DeliveriesPerSecond
		s.DeliveryLatencyMs.P50 = max(s.DeliveryLatencyMs.P50, n.DeliveryLatencyMs.P50)
		s.DeliveryLatencyMs.P95 = max(s.DeliveryLatencyMs.P95, n.DeliveryLatencyMs.P95)
		s.DeliveryLatencyMs.P99 = max(s.DeliveryLatencyMs.P99, n.DeliveryLatencyMs.P99)
		for _, one := range n.Partitions { // one that has just moved is on the board twice: the worse counts
			lags[one.Partition] = max(lags[one.Partition], one.BehindMs)
		}
		for _, one := range n.Systems {
			sum := systems[one.SystemID]
			sum.SystemID = one.SystemID
			sum.Sockets += one.Sockets
			sum.DeliveriesPerSecond += one.DeliveriesPerSecond
			systems[one.SystemID] = sum
		}
	}
	for _, partition := range slices.Sorted(maps.Keys(lags)) {
		s.ProjectionLag = append(s.ProjectionLag, partitionFigures{partition, lags[partition]})
	}
	s.TopSystems = slices.SortedFunc(maps.Values(systems), func(a, b systemFigures) int {
		return cmp.Or(cmp.Compare(b.DeliveriesPerSecond, a.DeliveriesPerSecond), cmp.Compare(a.SystemID, b.SystemID))
	})
	s.TopSystems = s.TopSystems[:min(len(s.TopSystems), topSystems)]
	return s
}
