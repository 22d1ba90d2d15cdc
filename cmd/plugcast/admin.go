package main

import (
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/plugcast/plugcast/domain/isolate"
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
	return p.knownHosts(isolated(mux, p.Logger, brokenPlainly))
}

// knownHosts serves requests that name this server as operators do: by an IP
// address, as localhost, by the host of --admin-listen, or by one of --admin-hosts.
// A browser that a page of the Internet makes ask for 127.0.0.1 under a name of the
// page's own (DNS rebinding) sends that name.
func (p *Program) knownHosts(next http.Handler) http.Handler {
	known := map[string]bool{"localhost": true, "": true} // no browser leaves the host out
	for _, name := range append(p.Server.AdminHosts, p.Server.AdminListen) {
		known[hostName(name)] = true
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := hostName(r.Host)
		if _, err := netip.ParseAddr(name); err != nil && !known[name] {
			http.Error(w, "the admin server does not answer to this host name; see --admin-hosts", http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// hostName is the host of HOST:PORT or HOST, as it is compared.
func hostName(address string) string {
	if host, _, err := net.SplitHostPort(address); err == nil {
		address = host
	}
	return strings.ToLower(strings.TrimSuffix(strings.Trim(address, "[] "), "."))
}

// metricsHandler answers with the figures of this process. They name no system,
// so it is on the clients' address as well, where a scraper finds it whatever
// port the operators' one has.
func (p *Program) metricsHandler() http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), collector{p})
	return newScrapes(promhttp.HandlerFor(registry, promhttp.HandlerOpts{DisableCompression: true}))
}

// healthHandler answers whether the process lives, whether it can be sent
// requests, and what it does.
func (p *Program) healthHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", p.metricsHandler())
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("ok\n")) // the caller is gone, or hears it
	})
	mux.Handle("GET /readyz", p.readiness)
	return mux
}

// collector gives Prometheus the figures that the admin dashboard shows.
type collector struct{ program *Program }

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

// Describe implements prometheus.Collector. It describes nothing, which makes the
// collector an unchecked one: what there is depends on the roles of the process.
func (c collector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	// The registry collects in a goroutine of its own.
	isolate.Do(c.program.Logger, "metrics", func() { c.collect(ch) })
}

func (c collector) collect(ch chan<- prometheus.Metric) {
	p := c.program
	send := func(desc *prometheus.Desc, kind prometheus.ValueType, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(desc, kind, value, labels...)
	}
	log := p.backend.log.Stats()
	send(appendsDesc, prometheus.CounterValue, float64(log.Appends))
	send(appendErrorsDesc, prometheus.CounterValue, float64(log.AppendErrors))
	send(readDesc, prometheus.CounterValue, float64(log.EntriesRead))
	p.collectConnections(send)
	send(socketsDesc, prometheus.GaugeValue, float64(len(p.registry.Own())))
	if p.gateway != nil {
		hub := p.gateway.hub.Stats(0)
		send(deliveriesDesc, prometheus.CounterValue, float64(hub.Deliveries))
		send(roomsDesc, prometheus.GaugeValue, float64(hub.Rooms))
		for _, q := range []float64{0.5, 0.95, 0.99} {
			send(latencyDesc, prometheus.GaugeValue, hub.Latency.Quantile(q).Seconds(), strconv.FormatFloat(q, 'g', -1, 64))
		}
		work, answers := p.gateway.work.Usage(), p.gateway.answers.Usage()
		send(workDesc, prometheus.GaugeValue, float64(work.Units))
		send(unsentDesc, prometheus.GaugeValue, float64(answers.Units))
		send(waitingDesc, prometheus.GaugeValue, float64(work.Waiting), "work")
		send(waitingDesc, prometheus.GaugeValue, float64(answers.Waiting), "bytes")
	}
	if p.shelly.outbound != nil {
		devices := p.shelly.outbound.Stats()
		send(devicesDesc, prometheus.GaugeValue, float64(devices.Sockets))
		send(framesDesc, prometheus.CounterValue, float64(devices.Frames))
	}
	for reason, n := range p.shelly.refusals.Counts() {
		send(refusalsDesc, prometheus.CounterValue, float64(n), reason)
	}
	p.collectReactions(send)
	_, connections := p.shelly.figures()
	for state, n := range connections {
		send(cloudDesc, prometheus.GaugeValue, float64(n), state)
	}
	p.bridges.collect(send)
	if p.worker != nil {
		for _, lag := range p.figures.projection() {
			send(lagDesc, prometheus.GaugeValue, lag.BehindMs/1000, strconv.Itoa(lag.Partition))
		}
		p.figures.collectProjections(send)
	}
}

func (p *Program) collectConnections(send func(*prometheus.Desc, prometheus.ValueType, float64, ...string)) {
	clients := p.clientEdge.Stats()
	send(connectionsDesc, prometheus.GaugeValue, float64(clients.Connections))
	send(connectionMaxDesc, prometheus.GaugeValue, float64(clients.MaxConnections))
	send(refusedDesc, prometheus.CounterValue, float64(clients.RefusedByTotal), "total")
	send(refusedDesc, prometheus.CounterValue, float64(clients.RefusedByAddress), "address")
	send(evictedDesc, prometheus.CounterValue, float64(clients.Evicted))
	send(acceptErrorsDesc, prometheus.CounterValue, float64(clients.AcceptErrors))
}
