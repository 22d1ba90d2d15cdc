package rest

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/plugcast/plugcast/domain/isolate"
)

// Check is something that must work before this process is sent requests.
type Check struct {
	Name string
	Ask  func(ctx context.Context) error
}

// How readiness is asked for: each check within checkTime, and not again within
// checkEvery, because anybody may ask.
const (
	checkTime  = 2 * time.Second
	checkEvery = time.Second
)

type healthOutput struct {
	Body struct {
		Status string `json:"status" enum:"ok"`
	}
}

type readyOutput struct {
	Status int
	Body   readyBody
}

type readyBody struct {
	Status   string            `json:"status" enum:"ready,unready"`
	Checks   map[string]string `json:"checks" doc:"ok or failing, by name; the log says why"`
	Degraded []Degradation     `json:"degraded,omitempty" doc:"Parts that do not work properly although the process serves requests; absent when all parts work"`
}

// Degradation is something that operators have to look at, although the process can be
// sent requests.
type Degradation struct {
	Check  string    `json:"check" doc:"The part that is degraded" example:"quarantine"`
	Detail string    `json:"detail" doc:"In words"`
	Count  int64     `json:"count" doc:"Of how many things"`
	Since  time.Time `json:"since"`
}

func (a *API) registerHealth() {
	huma.Register(a.huma, huma.Operation{
		OperationID: "health", Method: http.MethodGet, Path: "/healthz", Tags: []string{"Health"},
		Summary: "Whether the process lives",
	}, func(context.Context, *struct{}) (*healthOutput, error) {
		out := &healthOutput{}
		out.Body.Status = "ok"
		return out, nil
	})
	huma.Register(a.huma, huma.Operation{
		OperationID: "ready", Method: http.MethodGet, Path: "/readyz", Tags: []string{"Health"},
		Summary: "Whether the process can serve", Description: "503 while a check fails. A degraded part is listed and does not cause a 503.",
	}, func(context.Context, *struct{}) (*readyOutput, error) {
		status, body := a.readiness.answer()
		return &readyOutput{Status: status, Body: body}, nil
	})
}

// Readiness answers whether a process can be sent requests, on every address that it is
// asked at. It remembers the last answer for a moment, and is safe for concurrent use.
type Readiness struct {
	checks   []Check
	degraded func(ctx context.Context) []Degradation
	log      *slog.Logger

	mu    sync.Mutex // held while checking: who comes meanwhile gets that answer
	asked time.Time
	last  readyBody
}

// NewReadiness makes a Readiness. degraded, which may be nil, says what does not work as it
// should; its details are public.
func NewReadiness(checks []Check, degraded func(ctx context.Context) []Degradation, log *slog.Logger) *Readiness {
	if degraded == nil {
		degraded = func(context.Context) []Degradation { return nil }
	}
	return &Readiness{checks: checks, degraded: degraded, log: log}
}

// ServeHTTP answers like GET /readyz of the API.
func (r *Readiness) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	status, body := r.answer()
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the caller is gone, or hears it
}

func (r *Readiness) answer() (status int, body readyBody) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.asked.IsZero() || time.Since(r.asked) >= checkEvery {
		r.last, r.asked = r.check(), time.Now()
	}
	status = http.StatusOK
	if r.last.Status != "ready" {
		status = http.StatusServiceUnavailable
	}
	return status, r.last
}

// check asks all at once. It is not bound to the caller, who is not the only one
// to get the answer.
func (r *Readiness) check() readyBody {
	ctx, cancel := context.WithTimeout(context.Background(), checkTime)
	defer cancel()
	failures := make([]error, len(r.checks))
	body := readyBody{Status: "ready", Checks: map[string]string{}}
	var group sync.WaitGroup
	for i, c := range r.checks {
		group.Go(func() { failures[i] = isolate.Run(r.log, "rest", func() error { return c.Ask(ctx) }) })
	}
	group.Go(func() { isolate.Do(r.log, "rest", func() { body.Degraded = r.degraded(ctx) }) })
	group.Wait()
	for i, c := range r.checks {
		body.Checks[c.Name] = "ok"
		if failures[i] != nil {
			body.Status, body.Checks[c.Name] = "unready", "failing"
			r.log.Warn("not ready", "check", c.Name, "error", failures[i])
		}
	}
	return body
}
