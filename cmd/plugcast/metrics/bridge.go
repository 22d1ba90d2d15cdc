package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/plugcast/plugcast/transport/bridge"
)

var (
	bridgeUpDesc     = describe("bridge_up", "Systems of a bridge that this process runs and that are connected.", "bridge")
	bridgeSysDesc    = describe("bridge_systems", "Systems of a bridge that this process runs.", "bridge")
	bridgeEventsDesc = describe("bridge_events_total", "Events that crossed a bridge, by result.", "bridge", "way", "result")
	bridgeBehindDesc = describe("bridge_behind_events", "Events that are known to wait for a bridge.", "bridge", "way")
	bridgeGapsDesc   = describe("bridge_gaps_total", "Times that events were missing.", "bridge", "way")
)

// collectBridges sends the metrics of the bridges that this process runs, summed over their
// systems.
func collectBridges(statuses []bridge.Status, send sender) {
	type sum struct {
		up, systems int
		flows       map[string]bridge.Flow
	}
	sums := map[string]*sum{}
	for _, status := range statuses {
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
