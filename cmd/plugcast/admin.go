package main

import (
	"net/http"
	"net/http/pprof"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// adminHandler serves operators: metrics, health and profiles. It asks nobody
// who he is, so it listens on loopback unless told otherwise.
func (p *Program) adminHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", p.healthHandler())
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return mux
}

// metricsHandler answers with the figures of this process. They name no system,
// so it is on the clients' address as well, where a scraper finds it whatever
// port the operators' one has.
func (p *Program) metricsHandler() http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), collector{p})
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
}

// healthHandler answers whether the process lives, whether it can be sent
// requests, and what it does.
func (p *Program) healthHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", p.metricsHandler())
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("ok\n")) // the caller is gone, or hears it
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		for _, check := range p.checks() {
			if err := check.Ask(r.Context()); err != nil {
				http.Error(w, check.Name+" is not ready", http.StatusServiceUnavailable)
				return
			}
		}
		_, _ = w.Write([]byte("ready\n"))
	})
	return mux
}

// collector gives Prometheus the figures that the admin dashboard shows.
type collector struct{ program *Program }

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("plugcast_"+name, help, labels, nil)
}

var (
	appendsDesc      = describe("appends_total", "Events appended by this process.")
	appendErrorsDesc = describe("append_errors_total", "Appends that failed.")
	readDesc         = describe("entries_read_total", "Entries read from the log.")
	deliveriesDesc   = describe("deliveries_total", "Events handed to sockets.")
	socketsDesc      = describe("sockets", "Live sockets of this process.")
	devicesDesc      = describe("device_sockets", "Live sockets of Shelly devices of this process.")
	framesDesc       = describe("device_frames_total", "Frames that came from Shelly devices.")
	refusalsDesc     = describe("device_refusals_total", "Shelly devices that were refused or thrown out.", "reason")
	cloudDesc        = describe("shelly_cloud_connections", "Connections to the Shelly Cloud that this process holds.", "state")
	roomsDesc        = describe("rooms", "Open rooms of this process.")
	lagDesc          = describe("projection_lag_seconds", "Age of the checkpoint beside the log, of partitions that this process owns.", "partition")
	latencyDesc      = describe("delivery_latency_seconds", "Time from append to delivery, since the process started.", "quantile")
	quarantineDesc   = describe("quarantined_entries", "Entries of the log that could not be read, ever.")
)

// Describe implements prometheus.Collector. It describes nothing, which makes the
// collector an unchecked one: what there is depends on the roles of the process.
func (c collector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	p := c.program
	send := func(desc *prometheus.Desc, kind prometheus.ValueType, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(desc, kind, value, labels...)
	}
	log := p.backend.log.Stats()
	send(appendsDesc, prometheus.CounterValue, float64(log.Appends))
	send(appendErrorsDesc, prometheus.CounterValue, float64(log.AppendErrors))
	send(readDesc, prometheus.CounterValue, float64(log.EntriesRead))
	send(socketsDesc, prometheus.GaugeValue, float64(len(p.registry.Own())))
	if p.gateway != nil {
		hub := p.gateway.hub.Stats(0)
		send(deliveriesDesc, prometheus.CounterValue, float64(hub.Deliveries))
		send(roomsDesc, prometheus.GaugeValue, float64(hub.Rooms))
		for _, q := range []float64{0.5, 0.95, 0.99} {
			send(latencyDesc, prometheus.GaugeValue, hub.Latency.Quantile(q).Seconds(), strconv.FormatFloat(q, 'g', -1, 64))
		}
	}
	if p.shelly.outbound != nil {
		devices := p.shelly.outbound.Stats()
		send(devicesDesc, prometheus.GaugeValue, float64(devices.Sockets))
		send(framesDesc, prometheus.CounterValue, float64(devices.Frames))
		for reason, n := range devices.Refusals {
			send(refusalsDesc, prometheus.CounterValue, float64(n), reason)
		}
	}
	_, connections := p.shelly.figures()
	for state, n := range connections {
		send(cloudDesc, prometheus.GaugeValue, float64(n), state)
	}
	p.bridges.collect(send)
	if p.worker != nil {
		lags, unread := p.figures.projection()
		for _, lag := range lags {
			send(lagDesc, prometheus.GaugeValue, lag.BehindMs/1000, strconv.Itoa(lag.Partition))
		}
		send(quarantineDesc, prometheus.GaugeValue, float64(unread))
	}
}
