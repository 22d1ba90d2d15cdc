package server

import (
	"net/http"
	"net/http/pprof"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/plugcast/plugcast/cmd/plugcast/metrics"
	"github.com/plugcast/plugcast/transport/edge"
	"github.com/plugcast/plugcast/transport/rest"
	"github.com/plugcast/plugcast/transport/shelly/outbound"
	"github.com/plugcast/plugcast/transport/web"
)

// clientHandler serves clients: everything for a gateway, health alone for a worker.
// The figures name no system, so they are on the clients' address as well, where a
// scraper finds them whatever port the operators' one has.
func (s *Server) clientHandler(figures *prometheus.Registry) http.Handler {
	g, logger := s.gateway, s.config.Logger
	if g == nil {
		return edge.Isolate(s.healthHandler(figures), logger, edge.BrokenPlainly)
	}
	mux := http.NewServeMux()
	page := web.Handler()
	mux.Handle("GET /{$}", page)
	mux.Handle("GET /web/", page)
	mux.Handle("GET /ws", g.webSockets)
	mux.Handle("/socket.io/", g.socketIO)
	// For clients with addTrailingSlash: false. A redirect would lack the CORS headers.
	mux.Handle("/socket.io", g.socketIO)
	mux.HandleFunc("/api/socket/init", g.socketIO.Init)
	mux.Handle(outbound.Pattern, s.devices.outbound)
	mux.Handle(outbound.Prefix, s.devices.outbound)
	mux.Handle("GET /metrics", metrics.Handler(figures))
	mux.Handle("/", g.api)
	return edge.Isolate(g.addresses.Guard(mux, isSpared), logger, rest.Refuse(logger))
}

// isSpared reports whether a request is served also when others of its address have
// used up what is for requests without a valid token: one of a load balancer, or one
// whose credential comes later.
func isSpared(r *http.Request) bool {
	switch r.URL.Path {
	case "/healthz", "/readyz", "/metrics":
		return true
	}
	return strings.HasPrefix(r.URL.Path, "/socket.io") || strings.HasPrefix(r.URL.Path, outbound.Prefix)
}

// adminHandler serves metrics, health and profiles to operators. It does not
// authenticate, so it listens on loopback by default.
func (s *Server) adminHandler(figures *prometheus.Registry) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", s.healthHandler(figures))
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	names := append([]string{s.config.AdminListen}, s.config.AdminHosts...)
	return knownHosts(edge.Isolate(mux, s.config.Logger, edge.BrokenPlainly), names,
		"the admin server does not answer to this host name; see --admin-hosts")
}

// healthHandler serves /healthz (the process is alive), /readyz (it can take requests)
// and /metrics.
func (s *Server) healthHandler(figures *prometheus.Registry) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", metrics.Handler(figures))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("ok\n")) // an error means that the caller is gone
	})
	mux.Handle("GET /readyz", s.readiness)
	return mux
}
