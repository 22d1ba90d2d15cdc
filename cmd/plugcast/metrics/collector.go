package metrics

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/plugcast/plugcast/domain/isolate"
)

// sender takes one figure for Prometheus.
type sender func(desc *prometheus.Desc, kind prometheus.ValueType, value float64, labels ...string)

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("plugcast_"+name, help, labels, nil)
}

var (
	appendsDesc       = describe("appends_total", "Events appended by this process.")
	appendErrorsDesc  = describe("append_errors_total", "Appends that failed.")
	readDesc          = describe("entries_read_total", "Entries read from the log.")
	deliveriesDesc    = describe("deliveries_total", "Events handed to sockets.")
	connectionsDesc   = describe("client_connections", "Network connections of clients and devices, until they are closed.")
	connectionMaxDesc = describe("client_connections_limit", "How many there may be.")
	refusedDesc       = describe("client_connections_refused_total", "Connections refused because a limit was reached.", "limit")
	evictedDesc       = describe("client_connections_evicted_total", "Idle connections that were closed to make room for others.")
	acceptErrorsDesc  = describe("accept_errors_total", "Connections that could not be accepted, for example for lack of file descriptors.")
	socketsDesc       = describe("sockets", "Live sockets of this process.")
	devicesDesc       = describe("device_sockets", "Live sockets of Shelly devices of this process.")
	framesDesc        = describe("device_frames_total", "Frames that came from Shelly devices.")
	refusalsDesc      = describe("device_refusals_total", "Shelly devices that were refused or disconnected.", "reason")
	cloudDesc         = describe("shelly_cloud_connections", "Connections to the Shelly Cloud that this process holds.", "state")
	roomsDesc         = describe("rooms", "Open rooms of this process.")
	workDesc          = describe("read_units", "Cost units of the reads in progress.")
	unsentDesc        = describe("unsent_bytes", "Bytes of answers and snapshots that are not sent yet.")
	waitingDesc       = describe("requests_waiting", "Requests that wait because of the bound of their system or of the process.", "for")
	lagDesc           = describe("projection_lag_seconds", "How far the checkpoint of an owned partition is behind the log.", "partition")
	latencyDesc       = describe("delivery_latency_seconds", "Time from append to delivery, since the process started.", "quantile")
)

// Describe implements [prometheus.Collector]. It describes nothing, which makes the
// collector an unchecked one: what there is depends on the roles of the process.
func (s *Sampler) Describe(chan<- *prometheus.Desc) {}

// Collect implements [prometheus.Collector].
func (s *Sampler) Collect(ch chan<- prometheus.Metric) {
	// The registry collects in a goroutine of its own.
	isolate.Do(s.parts.Logger, "metrics", func() { s.collect(ch) })
}

func (s *Sampler) collect(ch chan<- prometheus.Metric) {
	p := &s.parts
	send := func(desc *prometheus.Desc, kind prometheus.ValueType, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(desc, kind, value, labels...)
	}
	log := p.Log.Stats()
	send(appendsDesc, prometheus.CounterValue, float64(log.Appends))
	send(appendErrorsDesc, prometheus.CounterValue, float64(log.AppendErrors))
	send(readDesc, prometheus.CounterValue, float64(log.EntriesRead))
	p.collectConnections(send)
	send(socketsDesc, prometheus.GaugeValue, float64(len(p.Sockets.Own())))
	if p.Hub != nil {
		hub := p.Hub.Stats(0)
		send(deliveriesDesc, prometheus.CounterValue, float64(hub.Deliveries))
		send(roomsDesc, prometheus.GaugeValue, float64(hub.Rooms))
		for _, q := range []float64{0.5, 0.95, 0.99} {
			send(latencyDesc, prometheus.GaugeValue, hub.Latency.Quantile(q).Seconds(), strconv.FormatFloat(q, 'g', -1, 64))
		}
		work, answers := p.Work.Usage(), p.Answers.Usage()
		send(workDesc, prometheus.GaugeValue, float64(work.Units))
		send(unsentDesc, prometheus.GaugeValue, float64(answers.Units))
		send(waitingDesc, prometheus.GaugeValue, float64(work.Waiting), "work")
		send(waitingDesc, prometheus.GaugeValue, float64(answers.Waiting), "bytes")
	}
	if p.Outbound != nil {
		devices := p.Outbound.Stats()
		send(devicesDesc, prometheus.GaugeValue, float64(devices.Sockets))
		send(framesDesc, prometheus.CounterValue, float64(devices.Frames))
	}
	for reason, n := range p.Refusals.Counts() {
		send(refusalsDesc, prometheus.CounterValue, float64(n), reason)
	}
	p.collectReactions(send)
	_, connections := p.devices()
	for state, n := range connections {
		send(cloudDesc, prometheus.GaugeValue, float64(n), state)
	}
	collectBridges(p.Bridges.Statuses(), send)
	if p.Worker != nil {
		for _, lag := range s.projection() {
			send(lagDesc, prometheus.GaugeValue, lag.BehindMs/1000, strconv.Itoa(lag.Partition))
		}
		s.collectProjections(send)
	}
}

func (p *Parts) collectConnections(send sender) {
	clients := p.Clients.Stats()
	send(connectionsDesc, prometheus.GaugeValue, float64(clients.Connections))
	send(connectionMaxDesc, prometheus.GaugeValue, float64(clients.MaxConnections))
	send(refusedDesc, prometheus.CounterValue, float64(clients.RefusedByTotal), "total")
	send(refusedDesc, prometheus.CounterValue, float64(clients.RefusedByAddress), "address")
	send(evictedDesc, prometheus.CounterValue, float64(clients.Evicted))
	send(acceptErrorsDesc, prometheus.CounterValue, float64(clients.AcceptErrors))
}

var (
	handledDesc = describe("reactions_total", "Events that this process reacted to.")
	failedDesc  = describe("reaction_failures_total", "Runs of reactions that failed.")
	deadDesc    = describe("dead_letters_total", "Events for which this process gave up the reaction.")
	queuedDesc  = describe("reactions_queued", "Events in memory that wait for a reaction.")
	behindDesc  = describe("reactions_systems_behind", "Systems with more waiting events than fit in memory; the rest are read from the log.")
	panicsDesc  = describe("panics_total", "Panics that were caught, by the part that panicked.", "where")
)

// collectReactions sends the figures of reactions, and of panics.
func (p *Parts) collectReactions(send sender) {
	s := p.Reactions.Stats()
	send(handledDesc, prometheus.CounterValue, float64(s.Handled))
	send(failedDesc, prometheus.CounterValue, float64(s.Failed))
	send(deadDesc, prometheus.CounterValue, float64(s.Dead))
	send(queuedDesc, prometheus.GaugeValue, float64(s.Queued))
	send(behindDesc, prometheus.GaugeValue, float64(s.Behind))
	for where, n := range isolate.Panics() {
		send(panicsDesc, prometheus.CounterValue, float64(n), where)
	}
}
