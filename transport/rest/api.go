// Package rest is the HTTP face: commands, device updates, and reads of the
// present, the past and the history. The OpenAPI document is made from the same
// types that the handlers use. Every error is a problem document with a stable
// code; the table is in code.go.
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

// Config is what the API stands on. PublicURL, Limiter, Checks and Stream may be
// missing, and Outcomes and Nodes together: then no command waits for what others
// do.
type Config struct {
	Service       *domain.Service
	Reads         Reads
	Snapshots     Snapshots
	Work          *admission.Controller // admits reads at their cost; nil: any number
	Answers       *admission.Controller // counts the bytes of answers that are not sent yet; nil: any number
	Authenticator auth.Authenticator
	Tickets       auth.Tickets
	Sockets       Sockets
	Credentials   Credentials
	PublicURL     *url.URL // http or https: where devices reach us, if not where the caller does
	Outcomes      Outcomes
	Nodes         Nodes
	Limiter       Limiter
	Readiness     *Readiness // what /readyz answers; nil: always ready
	Origins       auth.Origins
	Bridges       Bridges      // nil: none can be made
	DeadLetters   DeadLetters  // nil: they are not listed
	Refusals      Refusals     // nil: none are shown
	Findings      Findings     // nil: there is no report of bridges
	Quarantine    Quarantine   // nil: it cannot be listed
	Stream        http.Handler // the events of a system, as text/event-stream
	Version       string       // of the program, for the OpenAPI document
	Log           *slog.Logger
}

// Limiter guards against floods across the deployment.
type Limiter interface {
	limit.Limiter
	// AllowAll takes from several systems, from all or from none. refused is the
	// system that has not enough, or "".
	AllowAll(ctx context.Context, flow domain.Flow, counts map[domain.SystemID]int) (refused domain.SystemID, retryAfter time.Duration)
}

// API is the HTTP face as one handler. It is safe for concurrent use.
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

// New makes the API. It answers at /api/, /openapi.json, /docs/, /healthz and
// /readyz, and with a problem document everywhere else, so that it can be the
// fallback of the program's mux.
func New(c Config) (*API, error) {
	if c.Service == nil || c.Reads == nil || c.Snapshots == nil || c.Authenticator == nil ||
		c.Tickets == nil || c.Sockets == nil || c.Credentials == nil ||
		(c.Outcomes == nil) != (c.Nodes == nil) || c.Log == nil {
		return nil, errors.New("rest: a part of the configuration is missing")
	}
	a := &API{
		service: c.Service, reads: c.Reads, snapshots: c.Snapshots, work: c.Work, answers: c.Answers,
		authenticator: c.Authenticator, tickets: c.Tickets, sockets: c.Sockets,
		credentials: c.Credentials, publicURL: c.PublicURL, outcomes: c.Outcomes, nodes: c.Nodes,
		limiter: c.Limiter, pacer: newPacer(), bridges: c.Bridges, findings: c.Findings, deadLetters: c.DeadLetters, refusals: c.Refusals,
		quarantine: c.Quarantine, readiness: c.Readiness, origins: c.Origins, log: c.Log, mux: http.NewServeMux(),
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

// operation is what differs from one operation to the next.
type operation struct {
	id, method, path string
	tag              string
	summary          string
	detail           string
	status           int          // of success; 200 when 0
	errors           []int        // that it may answer with, besides those that all may
	answer           reflect.Type // of a body that the handler writes by itself
}

// commonErrors are statuses that every operation may answer with.
var commonErrors = []int{400, 401, 403, 429, 500, 503}

// register adds an operation behind authentication and the rate limit.
func register[I, O any](a *API, op operation, handle func(context.Context, *I) (*O, error)) {
	bounded := func(ctx context.Context, in *I) (*O, error) {
		within := operationTime
		if w, can := any(in).(interface{ waiting() time.Duration }); can {
			within += w.waiting()
		}
		ctx, cancel := context.WithTimeout(ctx, within)
		defer cancel()
		out, err := handle(ctx, in)
		if err != nil {
			return nil, problemOf(ctx, a.log, err)
		}
		return out, nil
	}
	responses := describeAnswer(a.huma, op.answer)
	huma.Register(a.huma, huma.Operation{
		OperationID: op.id, Method: op.method, Path: op.path, Tags: []string{op.tag},
		Summary: op.summary, Description: op.detail, DefaultStatus: op.status,
		Errors:    append(op.errors, commonErrors...),
		Responses: responses,
		Security:  []map[string][]string{{securityScheme: {}}},
		// The body ends by itself before this; see boundedBody.
		MaxBodyBytes: maxBatchBody + 1, BodyReadTimeout: bodyTimeout,
		RejectUnknownQueryParameters: true,
		Middlewares:                  huma.Middlewares{a.admit},
	}, bounded)
	if !slices.Contains(op.errors, http.StatusUnprocessableEntity) {
		delete(responses, "422") // huma's own status for a bad input; here it is 400
	}
	if _, can := any(new(I)).(interface{ duration() (time.Duration, error) }); can {
		outcome := *responses["202"]
		outcome.Description = "Done: the answer waited for the outcome"
		responses["200"] = &outcome
	}
}

// admit authenticates the request and applies the rate limit: every request counts
// as one, whatever becomes of it.
func (a *API) admit(ctx huma.Context, next func(huma.Context)) {
	r, w := humago.Unwrap(ctx)
	actor, err := a.authenticator.Authenticate(r.Context(), r)
	if err != nil {
		problemOf(r.Context(), a.log, err).write(w)
		return
	}
	if a.limiter != nil {
		system := actor.QuotaSystem(domain.SystemID(r.PathValue("systemId")))
		if ok, wait := a.limiter.Allow(r.Context(), domain.FlowRequests, system, 1); !ok {
			a.limited(r.Context(), domain.FlowRequests, system, wait).write(w)
			return
		}
	}
	if p := encoded(r.Context(), r); p != nil {
		p.write(w)
		return
	}
	next(huma.WithValue(ctx, actorKey, actor))
}

func actorOf(ctx context.Context) domain.Actor {
	actor, _ := ctx.Value(actorKey).(domain.Actor)
	return actor
}

// The parts of inputs and outputs, such as InSystem, have exported names because
// huma passes over embedded types that have not.

// InSystem is part of the input of every operation within a system.
type InSystem struct {
	SystemID domain.SystemID `path:"systemId" doc:"The system (tenant)" example:"clinica-sol"`
	WithTicket
}

// authorize checks the system's id and whether the actor may do this in it.
func (in *InSystem) authorize(ctx context.Context, action domain.Action) (domain.Actor, error) {
	if _, err := domain.ParseSystemID(string(in.SystemID)); err != nil {
		return domain.Actor{}, err
	}
	actor := actorOf(ctx)
	return actor, actor.Authorize(action, in.SystemID)
}

// WithTicket makes the credential in the URL a known parameter.
type WithTicket struct {
	Ticket string `query:"ticket" hidden:"true"`
}

// systemPath is where everything of a system begins.
const systemPath = "/api/v1/systems/{systemId}"
