package rest

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
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
	Status string            `json:"status" enum:"ready,unready"`
	Checks map[string]string `json:"checks" doc:"ok or failing, by name; the log says why"`
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
	r := &readiness{api: a}
	huma.Register(a.huma, huma.Operation{
		OperationID: "ready", Method: http.MethodGet, Path: "/readyz", Tags: []string{"Health"},
		Summary: "Whether the process can serve", Description: "503 while a check fails.",
	}, r.get)
}

// readiness remembers the last answer.
type readiness struct {
	api *API

	mu    sync.Mutex // held while checking: who comes meanwhile gets that answer
	asked time.Time
	last  readyBody
}

func (r *readiness) get(context.Context, *struct{}) (*readyOutput, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.asked.IsZero() || time.Since(r.asked) >= checkEvery {
		r.last, r.asked = r.check(), time.Now()
	}
	status := http.StatusOK
	if r.last.Status != "ready" {
		status = http.StatusServiceUnavailable
	}
	return &readyOutput{Status: status, Body: r.last}, nil
}

// check asks all at once. It is not bound to the caller, who is not the only one
// to get the answer.
func (r *readiness) check() readyBody {
	ctx, cancel := context.WithTimeout(context.Background(), checkTime)
	defer cancel()
	failures := make([]error, len(r.api.checks))
	var group sync.WaitGroup
	for i, c := range r.api.checks {
		group.Go(func() { failures[i] = c.Ask(ctx) })
	}
	group.Wait()
	body := readyBody{Status: "ready", Checks: map[string]string{}}
	for i, c := range r.api.checks {
		body.Checks[c.Name] = "ok"
		if failures[i] != nil {
			body.Status, body.Checks[c.Name] = "unready", "failing"
			r.api.log.Warn("not ready", "check", c.Name, "error", failures[i])
		}
	}
	return body
}
