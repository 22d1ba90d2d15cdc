package main

import (
	"bytes"
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/plugcast/plugcast/cmd/plugcast/metrics"
	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/streams/redisserver/redistest"
	"github.com/plugcast/plugcast/transport/testpeer"
)

const partitions = 16

// awaitMetrics passes over frames until one is as wanted. Every frame has to be
// consistent in itself.
func awaitMetrics(t *testing.T, c *conversation, what string, wanted func(*metrics.Platform) bool) *metrics.Platform {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		var f metrics.Platform
		c.await("metrics", &f)
		seen := map[int]bool{}
		for _, lag := range f.ProjectionLag {
			if seen[lag.Partition] || lag.Partition < 0 || lag.Partition >= partitions || lag.BehindMs < 0 {
				t.Fatalf("projection lag %+v", f.ProjectionLag)
			}
			seen[lag.Partition] = true
		}
		if l := f.DeliveryLatencyMs; l.P50 < 0 || l.P95 < l.P50 || l.P99 < l.P95 {
			t.Fatalf("latency %+v", l)
		}
		if wanted(&f) {
			return &f
		}
		if ctx.Err() != nil {
			t.Fatalf("waited in vain for %s; the last figures are %+v", what, f)
		}
	}
}

// names lists the nodes of a frame, which are sorted.
func names(f *metrics.Platform) string {
	var list []string
	for _, n := range f.Nodes {
		list = append(list, n.Node)
	}
	return strings.Join(list, " ")
}

// The admin dashboard shows the whole platform at any node: under traffic, when
// that has ended, and when a node is dead.
func TestAdminDashboard(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	here, there := d.start(t, "", "--node-name", "node-a"), d.start(t, "", "--node-name", "node-b")
	tr := newTraffic(t, 2, func() string { return here.base })
	viewer := testToken(t, domain.RoleViewer)
	for _, at := range []struct {
		base   string
		system domain.SystemID
	}{{there.base, "centre-00"}, {there.base, "centre-00"}, {here.base, "centre-01"}} {
		c := converse(t, at.base, viewer)
		c.join(at.system)
		go func() { // until the socket is closed
			for {
				if _, _, err := c.conn.NextReader(); err != nil {
					return
				}
			}
		}()
	}
	admin := testToken(t, domain.RoleAdmin, "centre-00")
	stream := openStream(t, http.StatusOK, there.base, "centre-00", "", admin)
	go func() { // until its node is dead
		for stream.lines.Scan() {
		}
	}()
	refused := converse(t, here.base, admin)
	refused.say("join-admin-dashboard", nil)
	var why refusal
	if refused.await("error", &why); why.Code != "forbidden" {
		t.Errorf("an admin of a system got %+v", why)
	}
	_ = refused.conn.Close()

	dashboard := converse(t, here.base, testToken(t, domain.RoleStaff))
	dashboard.say("join-admin-dashboard", nil)
	dashboard.await("joined", nil)

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var publishers sync.WaitGroup
	for system, batch := range []int{50, 5} {
		publishers.Go(func() {
			for ctx.Err() == nil {
				if err := tr.publish(t.Context(), system, batch); err != nil {
					t.Error(err)
					return
				}
				pause(ctx, 50*time.Millisecond)
			}
		})
	}
	awaitMetrics(t, dashboard, "figures under traffic", func(f *metrics.Platform) bool {
		return names(f) == "node-a node-b" && f.Sockets == 5 && f.Rooms == 2 && f.AppendsPerSecond > 0 && f.DeliveriesPerSecond > 0 &&
			f.DeliveryLatencyMs.P50 > 0 && len(f.ProjectionLag) == partitions && len(f.TopSystems) == 2 &&
			f.TopSystems[0].SystemID == "centre-00" && f.TopSystems[0].Sockets == 3 && f.TopSystems[0].DeliveriesPerSecond > 0 &&
			f.TopSystems[1].SystemID == "centre-01" && f.TopSystems[1].Sockets == 1 && f.TopSystems[1].DeliveriesPerSecond > 0
	})
	stop()
	publishers.Wait()
	first, second := tr.perSystem[0].Load(), tr.perSystem[1].Load()
	awaitMetrics(t, dashboard, "the sums after traffic", func(f *metrics.Platform) bool {
		var appends, deliveries uint64
		for _, n := range f.Nodes {
			appends += n.Appends
			deliveries += n.Deliveries
		}
		return appends == first+second && deliveries == 3*first+second && f.AppendsPerSecond == 0 && f.DeliveriesPerSecond == 0
	})
	if listed := liveSockets(t, here.base, admin); len(listed) != 3 {
		t.Errorf("sockets of the system: %+v", listed)
	}
	there.kill() // so that it cannot say that its sockets are gone
	awaitMetrics(t, dashboard, "one node to have all", func(f *metrics.Platform) bool {
		return names(f) == "node-a" && f.Sockets == 2 && f.Rooms == 1 && len(f.ProjectionLag) == partitions &&
			len(f.Nodes[0].Partitions) == partitions
	})
	testpeer.Eventually(t, "the sockets of the dead node to be forgotten", func() bool { return len(liveSockets(t, here.base, admin)) == 0 })
}

// scrape reads /metrics as Prometheus does.
func scrape(t *testing.T, n *node) map[string]*dto.MetricFamily {
	t.Helper()
	status, header, text, err := call(t.Context(), "GET", n.admin+"/metrics", "", nil)
	if err != nil || status != http.StatusOK || !strings.HasPrefix(header.Get("Content-Type"), "text/plain") {
		t.Fatalf("status %d, %v: %s", status, err, text)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return families
}

// sum adds up the values of a counter or gauge, and counts them.
func sum(family *dto.MetricFamily) (total float64, values int) {
	for _, m := range family.GetMetric() {
		total += m.GetCounter().GetValue() + m.GetGauge().GetValue()
	}
	return total, len(family.GetMetric())
}

// The admin address has figures for Prometheus, and says whether the process can
// be sent requests. It is another address than the clients'.
func TestMetricsAndHealth(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	n := d.start(t, "")
	tr := newTraffic(t, 1, func() string { return n.base })
	c := converse(t, n.base, testToken(t, domain.RoleViewer))
	c.join("centre-00")
	if err := tr.publish(t.Context(), 0, 30); err != nil {
		t.Fatal(err)
	}
	for seen := 0; seen < 30; seen++ {
		c.await("device-update", nil)
	}
	testpeer.Eventually(t, "the worker to own all partitions", func() bool {
		_, owned := sum(scrape(t, n)["plugcast_projection_lag_seconds"])
		return owned == partitions
	})
	families := scrape(t, n)
	for name, want := range map[string]float64{
		"plugcast_appends_total": 30, "plugcast_append_errors_total": 0, "plugcast_deliveries_total": 30, "plugcast_sockets": 1,
		"plugcast_rooms": 1, "plugcast_quarantined_entries": 0,
	} {
		if total, values := sum(families[name]); total != want || values != 1 {
			t.Errorf("%s is %v in %d values, want %v", name, total, values, want)
		}
	}
	if read, _ := sum(families["plugcast_entries_read_total"]); read < 30 {
		t.Errorf("%v entries were read", read)
	}
	latency := families["plugcast_delivery_latency_seconds"].GetMetric()
	if len(latency) != 3 || latency[0].GetGauge().GetValue() <= 0 {
		t.Errorf("latency %v", latency)
	}
	if families["go_goroutines"] == nil || families["process_resident_memory_bytes"] == nil {
		t.Error("the figures of the runtime and the process are missing")
	}
	mustCall(t, http.StatusOK, "GET", n.base+"/metrics", "", nil, nil)
	mustCall(t, http.StatusNotFound, "GET", n.base+"/debug/pprof/", "", nil, nil)

	ready := func(want int) func() bool {
		return func() bool {
			for _, base := range []string{n.base, n.admin} {
				if status, _, _, err := call(t.Context(), "GET", base+"/readyz", "", nil); err != nil || status != want {
					return false
				}
			}
			return true
		}
	}
	testpeer.Eventually(t, "readiness", ready(http.StatusOK))
	if err := d.redis.Kill(); err != nil {
		t.Fatal(err)
	}
	testpeer.Eventually(t, "the node to notice that Redis is down", ready(http.StatusServiceUnavailable))
	for _, base := range []string{n.base, n.admin} {
		mustCall(t, http.StatusOK, "GET", base+"/healthz", "", nil, nil)
	}
	d.redis = redistest.Restart(t, d.redis)
	testpeer.Eventually(t, "the node to be ready again", ready(http.StatusOK))
}
