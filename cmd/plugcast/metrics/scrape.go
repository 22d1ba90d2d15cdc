package metrics

import (
	"bytes"
	"net/http"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/time/rate"
)

// The rate at which figures are collected: a scraper asks a few times a minute, and
// collecting takes milliseconds of a processor.
const (
	scrapesPerSecond = 5
	scrapesAtOnce    = 20
)

// scrapes answers with figures that collect makes. Nobody needs a token for that, so
// requests that come too fast, from wherever, get the last figures again.
type scrapes struct {
	collect http.Handler
	fresh   *rate.Limiter
	last    atomic.Pointer[figuresPage]
}

// figuresPage is what collect answered once.
type figuresPage struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func newScrapes(collect http.Handler) *scrapes {
	return &scrapes{collect: collect, fresh: rate.NewLimiter(scrapesPerSecond, scrapesAtOnce)}
}

// ServeHTTP implements [http.Handler].
func (s *scrapes) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	page := s.last.Load()
	if page == nil || s.fresh.Allow() {
		page = &figuresPage{header: http.Header{}, status: http.StatusOK}
		alike := r.Clone(r.Context())
		alike.Header = http.Header{} // the next one may be shown this page, whatever it accepts
		s.collect.ServeHTTP(page, alike)
		if page.status == http.StatusOK {
			s.last.Store(page)
		}
	}
	for name, values := range page.header {
		w.Header()[name] = values
	}
	w.WriteHeader(page.status)
	_, _ = w.Write(page.body.Bytes()) // a client that is gone needs none
}

// Header implements [http.ResponseWriter].
func (p *figuresPage) Header() http.Header { return p.header }

// WriteHeader implements [http.ResponseWriter].
func (p *figuresPage) WriteHeader(status int) { p.status = status }

// Write implements [http.ResponseWriter].
func (p *figuresPage) Write(b []byte) (int, error) { return p.body.Write(b) }

// Handler answers with what is registered, for Prometheus. Each Handler has a limit of
// its own on how often it collects.
func Handler(registry *prometheus.Registry) http.Handler {
	return newScrapes(promhttp.HandlerFor(registry, promhttp.HandlerOpts{DisableCompression: true}))
}

// NewRegistry makes a registry with the figures of the Go runtime and of the operating
// system's process. They name no system.
func NewRegistry() *prometheus.Registry {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return registry
}
