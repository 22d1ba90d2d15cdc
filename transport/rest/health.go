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

// Check is a condition of readiness. Run returns nil if the checked part works.
type Check struct {
	Name string
	Run  func(ctx context.Context) error
}

// The checks run at most once per checkEvery, because anybody can ask for them.
const (
	checkTime  = 2 * time.Second // the timeout of all checks
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
	Checks   map[string]string `json:"checks" doc:"ok or failing, by name; the log has the cause"`
	Degraded []Degradation     `json:"degraded,omitempty" doc:"Parts that fail although the process can serve; absent if there are none"`
}

// Degradation is a problem that operators must look at, although the process can serve
// requests.
type Degradation struct {
	Check  string    `json:"check" doc:"The degraded part" example:"quarantine"`
	Detail string    `json:"detail" doc:"The problem in words"`
	Count  int64     `json:"count" doc:"The number of affected objects"`
	Since  time.Time `json:"since"`
}

func (a *API) registerHealth() {
	huma.Register(a.huma, huma.Operation{
		OperationID: "health", Method: http.MethodGet, Path: "/healthz", Tags: []string{"Health"},
		Summary: "Check whether the process is alive",
	}, func(context.Context, *struct{}) (*healthOutput, error) {
		out := &healthOutput{}
		out.Body.Status = "ok"
		return out, nil
	})
	huma.Register(a.huma, huma.Operation{
		OperationID: "ready", Method: http.MethodGet, Path: "/readyz", Tags: []string{"Health"},
		Summary:     "Check whether the process can serve requests",
		Description: "Answers 503 while a check fails. A degraded part is listed and does not cause a 503.",
	}, func(context.Context, *struct{}) (*readyOutput, error) {
		status, body := a.readiness.result()
		return &readyOutput{Status: status, Body: body}, nil
	})
}

// Readiness answers on every address of the process whether it can serve requests. It
// caches its last answer for checkEvery. It is safe for concurrent use.
type Readiness struct {
	checks   []Check
	degraded func(ctx context.Context) []Degradation
	log      *slog.Logger

	mu        sync.Mutex // held during the checks, so that concurrent callers share the answer
	checkedAt time.Time
	last      readyBody
}

// NewReadiness returns a Readiness. degraded, which may be nil, lists the degraded
// parts. Anybody can read the details that it returns.
func NewReadiness(checks []Check, degraded func(ctx context.Context) []Degradation, log *slog.Logger) *Readiness {
	if degraded == nil {
		degraded = func(context.Context) []Degradation { return nil }
	}
	return &Readiness{checks: checks, degraded: degraded, log: log}
}

// ServeHTTP answers like GET /readyz of the API.
func (r *Readiness) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	status, body := r.result()
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // fails only if the caller is gone
}

func (r *Readiness) result() (status int, body readyBody) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.checkedAt.IsZero() || time.Since(r.checkedAt) >= checkEvery {
		r.last, r.checkedAt = r.check(), time.Now()
	}
	status = http.StatusOK
	if r.last.Status != "ready" {
		status = http.StatusServiceUnavailable
	}
	return status, r.last
}

// check runs all checks concurrently. It does not use the context of a request,
// because several requests share its answer.
func (r *Readiness) check() readyBody {
	ctx, cancel := context.WithTimeout(context.Background(), checkTime)
	defer cancel()
	failures := make([]error, len(r.checks))
	body := readyBody{Status: "ready", Checks: map[string]string{}}
	var group sync.WaitGroup
	for i, c := range r.checks {
		group.Go(func() { failures[i] = isolate.Run(r.log, "rest", func() error { return c.Run(ctx) }) })
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
