// Package rest is the HTTP API: commands, device updates, and reads of present and
// past states and of the history. It generates the OpenAPI document from the types
// that the handlers use. Every error is a problem document with a stable code;
// code.go has the table.
package rest

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/admission"
	"github.com/plugcast/plugcast/transport/auth"
	"github.com/plugcast/plugcast/transport/limit"
)

// Config holds what the API depends on. PublicURL, Limiter and every field whose
// comment mentions nil are optional. Outcomes and Nodes are optional together:
// without them, commands do not wait for other processes.
type Config struct {
	Service       *domain.Service
	Reads         Reads
	Snapshots     Snapshots
	Work          *admission.Controller // limits concurrent reads by their cost; nil: no limit
	Answers       *admission.Controller // limits the bytes of unsent answers; nil: no limit
	Authenticator auth.Authenticator
	Tickets       auth.Tickets
	Sockets       Sockets
	Credentials   Credentials
	PublicURL     *url.URL // http or https: where devices reach the server; nil: at the host of the request
	Outcomes      Outcomes
	Nodes         Nodes
	Limiter       Limiter
	Readiness     *Readiness // the answer of /readyz; nil: always ready
	Origins       auth.Origins
	Bridges       Bridges      // nil: no operations on bridges
	DeadLetters   DeadLetters  // nil: no list of dead letters
	Refusals      Refusals     // nil: connections show no refused devices
	Findings      Findings     // nil: no list of findings
	Quarantine    Quarantine   // nil: no list of quarantined entries
	Stream        http.Handler // a system's events as text/event-stream; nil: no stream
	Version       string       // the program's version, for the OpenAPI document
	Log           *slog.Logger
}

// Limiter limits rates across the deployment.
type Limiter interface {
	limit.Limiter
	// AllowAll charges several systems, either all or none. refused is a system that
	// is over its limit, or "".
	AllowAll(ctx context.Context, flow domain.Flow, counts map[domain.SystemID]int) (refused domain.SystemID, retryAfter time.Duration)
}

// API is the HTTP API as one handler. It is safe for concurrent use.
type API struct {
	service       *domain.Service
	reads         Reads
	snapshots     Snapshots
	work          *admission.Controller
	answers       *admission.Controller
	authenticator auth.Authenticator
	tickets       auth.Tickets
	sockets       Sockets
	credentials   Credentials
	publicURL     *url.URL
	outcomes      Outcomes
	nodes         Nodes
	limiter       Limiter
	pacer         *pacer
	bridges       Bridges
	findings      Findings
	deadLetters   DeadLetters
	refusals      Refusals
	quarantine    Quarantine
	readiness     *Readiness
	origins       auth.Origins
	log           *slog.Logger

	mux      *http.ServeMux
	huma     huma.API
	document []byte
}

// New returns the API. It serves /api/, /openapi.json, /docs/, /healthz and
// /readyz, and answers every other path with a problem document, so the program's
// mux can use it as the fallback.
func New(c Config) (*API, error) {
	if c.Service == nil || c.Reads == nil || c.Snapshots == nil || c.Authenticator == nil ||
		c.Tickets == nil || c.Sockets == nil || c.Credentials == nil ||
		(c.Outcomes == nil) != (c.Nodes == nil) || c.Log == nil {
		return nil, errors.New("rest: a required field of Config is missing")
	}
	a := &API{
		service: c.Service, reads: c.Reads, snapshots: c.Snapshots, work: c.Work, answers: c.Answers,
		authenticator: c.Authenticator, tickets: c.Tickets, sockets: c.Sockets,
		credentials: c.Credentials, publicURL: c.PublicURL, outcomes: c.Outcomes, nodes: c.Nodes,
		limiter: c.Limiter, pacer: newPacer(), bridges: c.Bridges, findings: c.Findings, deadLetters: c.DeadLetters,
		refusals: c.Refusals, quarantine: c.Quarantine, readiness: c.Readiness, origins: c.Origins, log: c.Log, mux: http.NewServeMux(),
	}
	if a.readiness == nil {
		a.readiness = NewReadiness(nil, nil, c.Log)
	}
	a.huma = humago.New(a.mux, newDocument(c.Version))
	a.registerUpdates()
	a.registerDevices()
	a.registerAssignments()
	a.registerEquipment()
	a.registerConnections()
	a.registerEnergy()
	a.registerHistory()
	a.registerSockets()
	a.registerDisconnects()
	a.registerTickets()
	a.registerHealth()
	if c.Bridges != nil {
		a.registerBridges()
	}
	if c.DeadLetters != nil {
		a.registerDeadLetters()
	}
	if c.Findings != nil {
		a.registerFindings()
	}
	if c.Quarantine != nil {
		a.registerQuarantine()
	}
	if c.Stream != nil {
		a.registerStream(c.Stream)
	}
	return a, a.serveDocument()
}

// operation describes one operation; register adds the parts that all share.
type operation struct {
	id, method, path string
	cost             int // in the rate limit; 0 means 1
	tag              string
	summary          string
	detail           string
	status           int          // on success; 0 means 200
	errors           []int        // error statuses besides commonErrors
	responseType     reflect.Type // the body's type if the handler streams it; otherwise nil
}

// commonErrors are the error statuses that every operation may answer with.
var commonErrors = []int{400, 401, 403, 429, 500, 503}

// register adds an operation behind authentication and the rate limit.
func register[I, O any](a *API, op operation, handle func(context.Context, *I) (*O, error)) {
	bounded := func(ctx context.Context, in *I) (*O, error) {
		timeout := operationTime
		if w, waits := any(in).(interface{ waiting() time.Duration }); waits {
			timeout += w.waiting()
		}
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		out, err := handle(ctx, in)
		if err != nil {
			return nil, problemOf(ctx, a.log, err)
		}
		return out, nil
	}
	responses := describeAnswer(a.huma, op.responseType)
	huma.Register(a.huma, huma.Operation{
		OperationID: op.id, Method: op.method, Path: op.path, Tags: []string{op.tag},
		Summary: op.summary, Description: op.detail, DefaultStatus: op.status,
		Errors:    append(op.errors, commonErrors...),
		Responses: responses,
		Security:  []map[string][]string{{securityScheme: {}}},
		// boundedBody ends the body before huma's limit.
		MaxBodyBytes: maxBatchBody + 1, BodyReadTimeout: bodyTimeout,
		RejectUnknownQueryParameters: true,
		Middlewares:                  huma.Middlewares{a.admit(max(op.cost, costRow))},
	}, bounded)
	if !slices.Contains(op.errors, http.StatusUnprocessableEntity) {
		delete(responses, "422") // huma's status for invalid input; this API answers 400
	}
	if _, waits := any(new(I)).(interface{ duration() (time.Duration, error) }); waits {
		outcome := *responses["202"]
		outcome.Description = "The server waited for the outcome"
		responses["200"] = &outcome
	}
}

// admit returns a middleware that authenticates the request and applies the rate limit.
// Every request counts with its cost, also if it fails later. It is charged once: a
// second charge for a part of the cost would find the bucket empty whenever others of
// the system ask at the same time.
func (a *API) admit(cost int) func(huma.Context, func(huma.Context)) {
	return func(ctx huma.Context, next func(huma.Context)) {
		r, w := humago.Unwrap(ctx)
		actor, err := a.authenticator.Authenticate(r.Context(), r)
		if err != nil {
			problemOf(r.Context(), a.log, err).write(w)
			return
		}
		if a.limiter != nil {
			cost := cost
			if ctx.Query("at") != "" {
				cost = costFold
			}
			system := actor.QuotaSystem(domain.SystemID(r.PathValue("systemId")))
			if ok, wait := a.limiter.Allow(r.Context(), domain.FlowRequests, system, cost); !ok {
				a.rateLimited(r.Context(), domain.FlowRequests, system, wait).write(w)
				return
			}
		}
		if p := checkContentEncoding(r.Context(), r); p != nil {
			p.write(w)
			return
		}
		next(huma.WithValue(ctx, actorKey, actor))
	}
}

func actorOf(ctx context.Context) domain.Actor {
	actor, _ := ctx.Value(actorKey).(domain.Actor)
	return actor
}

// The parts of inputs and outputs, such as InSystem, have exported names because
// huma ignores embedded types that are not exported.

// InSystem is part of the input of every operation within a system.
type InSystem struct {
	SystemID domain.SystemID `path:"systemId" doc:"The system (tenant)" example:"clinica-sol"`
	TicketParam
}

// authorize checks the system's id, and that the actor may perform the action in it.
func (in *InSystem) authorize(ctx context.Context, action domain.Action) (domain.Actor, error) {
	if _, err := domain.ParseSystemID(string(in.SystemID)); err != nil {
		return domain.Actor{}, err
	}
	actor := actorOf(ctx)
	return actor, actor.Authorize(action, in.SystemID)
}

// TicketParam makes huma accept ?ticket=, which the authenticator reads.
type TicketParam struct {
	Ticket string `query:"ticket" hidden:"true"`
}

// systemPath begins the path of every operation within a system.
const systemPath = "/api/v1/systems/{systemId}"
