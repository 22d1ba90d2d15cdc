package metrics

import (
	"cmp"
	"encoding/json"
	"maps"
	"slices"
	"time"

	"github.com/plugcast/plugcast/domain"
)

// decodeNodes reads the entries of the registry of nodes, in order of name.
func decodeNodes(registry map[string]json.RawMessage) (nodes []nodeFigures) {
	for _, name := range slices.Sorted(maps.Keys(registry)) {
		var n nodeFigures
		if json.Unmarshal(registry[name], &n) == nil { // another version's node may say other things
			nodes = append(nodes, n)
		}
	}
	return nodes
}

// Platform is the data of a metrics frame.
type Platform struct {
	Time                string             `json:"time"`
	Nodes               []nodeFigures      `json:"nodes"`
	Sockets             int                `json:"sockets"`
	Rooms               int                `json:"rooms"` // a system with members on two nodes has two
	AppendsPerSecond    float64            `json:"appendsPerSecond"`
	DeliveriesPerSecond float64            `json:"deliveriesPerSecond"`
	DeliveryLatencyMs   latencyFigures     `json:"deliveryLatencyMs"` // of the slowest node
	ProjectionLag       []partitionFigures `json:"projectionLag"`
	Projections         ProjectionFigures  `json:"projections"` // what does not go as it should
	DeviceSockets       int                `json:"deviceSockets"`
	ShellyConnections   map[string]int     `json:"shellyConnections"` // to the Shelly Cloud, by state
	DeadLetters         uint64             `json:"deadLetters"`
	Panics              uint64             `json:"panics"`
	TopSystems          []systemFigures    `json:"topSystems"`
}

// summarise sums up the figures of all nodes.
func summarise(nodes []nodeFigures, now time.Time) Platform {
	s := Platform{
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
		for _, one := range n.Partitions { // one that has just moved is in the registry twice: the worse counts
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
