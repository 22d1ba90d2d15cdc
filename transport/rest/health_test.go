package rest

import (
	"context"
	"strings"
	"testing"

	"github.com/plugcast/plugcast/transport/testpeer"
)

func TestHealth(t *testing.T) {
	t.Parallel()
	asked := make(chan struct{}, 10)
	broken := make(chan struct{})
	b := setup(t, func(c *Config) {
		c.Readiness = NewReadiness([]Check{
			{"redis", func(context.Context) error { asked <- struct{}{}; return nil }},
			{"postgres", func(context.Context) error {
				select {
				case <-broken:
					return errDown
				default:
					return nil
				}
			}},
		}, func(context.Context) []Degradation {
			return []Degradation{{Check: "quarantine", Detail: "3 entries are in quarantine", Count: 3}}
		}, c.Log)
	})
	b.want(b.send("", "GET", "/healthz"), 200, "")
	for range 5 {
		if r := b.send("", "GET", "/readyz"); r.status != 200 || r.body["checks"].(map[string]any)["postgres"] != "ok" {
			t.Fatalf("%d %s", r.status, r.raw)
		} else if r.body["degraded"].([]any)[0].(map[string]any)["detail"] != "3 entries are in quarantine" {
			t.Fatalf("the degradation is missing: %s", r.raw)
		}
	}
	if n := len(asked); n != 1 {
		t.Errorf("5 questions within a second were passed on %d times", n)
	}
	close(broken)
	r := readyAt(t, b)
	checks := r.body["checks"].(map[string]any)
	if r.body["status"] != "unready" || checks["postgres"] != "failing" || checks["redis"] != "ok" {
		t.Errorf("%s", r.raw)
	}
	if strings.Contains(r.raw, "10.0.0.7") {
		t.Errorf("the inside shows: %s", r.raw)
	}
}

// readyAt repeats the request until the server no longer answers from its cache.
func readyAt(t *testing.T, b *bundle) (r reply) {
	testpeer.Eventually(t, "the server to be unready", func() bool {
		r = b.send("", "GET", "/readyz")
		return r.status == 503
	})
	return r
}
