package rest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/plugcast/plugcast/domain"
)

// Bridges imports the events that other deployments' bridges send, and reports the
// status of this deployment's own bridges.
type Bridges interface {
	// Deployment returns the id of this deployment.
	Deployment() string
	// Import appends the new events of a batch and moves the source's cursor,
	// atomically. It fails with [*domain.ImportGapError] if the source has earlier
	// events that were not imported.
	Import(ctx context.Context, b domain.ImportBatch) (domain.ImportResult, error)
	// Cursor returns the position up to which a source's log was imported, or false
	// if nothing is known of the source.
	Cursor(ctx context.Context, system domain.SystemID, source string) (domain.Position, bool, error)
	// SkipTo starts a new source at a position: its events up to there are not
	// imported. It does nothing if the source has a cursor already.
	SkipTo(ctx context.Context, system domain.SystemID, source string, at domain.Position) error
	// Rewind moves a cursor back to an earlier position.
	Rewind(ctx context.Context, system domain.SystemID, source string, to domain.Position) error
	// List returns the status of every system of every bridge, as JSON.
	List(ctx context.Context) ([]json.RawMessage, error)
}

const (
	bridgePath       = systemPath + "/bridge"
	bridgeEventsPath = bridgePath + "/events"
	// maxEnvelope is the maximum size of one sent event in bytes.
	maxEnvelope = 1 << 20
)

// SourceParam is part of the input of the operations that another deployment calls.
type SourceParam struct {
	Source string `query:"source" required:"true" doc:"The id of the sending deployment"`
}

type bridgeEventsInput struct {
	InSystem
	SourceParam
	After   string `query:"after" required:"true" doc:"The position in the source's log after which the batch begins"`
	Through string `query:"through" required:"true" doc:"The position in the source's log up to which the batch is complete"`
	StreamedBody
}

type bridgeEventsOutput struct {
	Body struct {
		Accepted   int             `json:"accepted" doc:"The number of events that were appended"`
		Duplicates int             `json:"duplicates" doc:"The number of events that were here already"`
		Own        int             `json:"own" doc:"The number of events that this deployment appended first; it skips them"`
		Refused    int             `json:"refused,omitempty" doc:"The accepted events kept as undecodable: the system has its maximum of devices"`
		Position   domain.Position `json:"position" doc:"The position up to which the source's log is imported now"`
	}
}

type bridgeCursorInput struct {
	InSystem
	SourceParam
}

type bridgeCursorOutput struct {
	Body struct {
		Deployment string          `json:"deployment" doc:"The id of this deployment"`
		Known      bool            `json:"known" doc:"Whether events of the source were imported, or its cursor was set"`
		Position   domain.Position `json:"position" doc:"The position up to which the source's log is imported"`
	}
}

type setBridgeCursorInput struct {
	InSystem
	SourceParam
	Body struct {
		Position domain.Position `json:"position" doc:"The position in the source's log"`
		Rewind   bool            `json:"rewind,omitempty" doc:"Go back to the position, because the source lost its later events"`
	}
}

type bridgesOutput struct {
	Body struct {
		Deployment string            `json:"deployment" doc:"The id of this deployment"`
		Bridges    []json.RawMessage `json:"bridges" doc:"One per bridge and system; see the documentation"`
	}
}

func (a *API) registerBridges() {
	register(a, operation{
		id: "takeEvents", method: http.MethodPost, path: bridgeEventsPath, tag: "Bridges",
		summary: "Append events of another deployment",
		detail: "For the bridge of another deployment. The body is a JSON array or NDJSON of at most 1,000 envelopes, in the order of the " +
			"source's log, with their positions there. The server skips events that it has already, from this source or another, and " +
			"events that this deployment appended first, so a bridge can send the same batch any number of times. Events keep their " +
			"id, type, version, time, actor and data.",
		errors: []int{408, 409, 413, 415, 504},
	}, a.takeEvents)
	register(a, operation{
		id: "getBridgeCursor", method: http.MethodGet, path: bridgePath + "/cursor", tag: "Bridges",
		summary: "Get the position up to which another deployment's log was imported",
	}, a.getBridgeCursor)
	register(a, operation{
		id: "setBridgeCursor", method: http.MethodPut, path: bridgePath + "/cursor", tag: "Bridges",
		summary: "Set the position after which to import another deployment's log",
		detail: "Without `rewind`, the position counts only for a source that has no cursor yet. With `rewind`, it moves the source's " +
			"cursor back.",
		errors: []int{409, 413, 415},
	}, a.setBridgeCursor)
	register(a, operation{
		id: "listBridges", method: http.MethodGet, path: "/api/v1/bridges", tag: "Bridges",
		summary: "List the status of this deployment's bridges",
		detail:  "Only for staff.",
	}, a.listBridges)
	describeBatch[envelope](a, bridgeEventsPath, domain.MaxImportBatch)
}

func (a *API) takeEvents(ctx context.Context, in *bridgeEventsInput) (*bridgeEventsOutput, error) {
	if _, err := in.authorize(ctx, domain.ActionBridge); err != nil {
		return nil, err
	}
	b := domain.ImportBatch{System: in.SystemID, Source: in.Source}
	var err error
	if b.After, err = domain.ParsePosition(in.After); err != nil {
		return nil, err
	}
	if b.Through, err = domain.ParsePosition(in.Through); err != nil {
		return nil, err
	}
	if b.Events, err = readEnvelopes(in.body); err != nil {
		return nil, unreadable(ctx, err)
	}
	if err := a.limitEvents(ctx, in.SystemID, b.Events); err != nil {
		return nil, err
	}
	result, err := a.bridges.Import(ctx, b)
	if behind := new(domain.ImportGapError); errors.As(err, &behind) {
		return nil, domain.Fail(domain.KindConflict, domain.CodeBridgeBehind, "the log of this source is imported up to "+
			behind.Cursor.String()+" only; continue from there").With("cursor", behind.Cursor)
	}
	if err != nil {
		return nil, err
	}
	out := &bridgeEventsOutput{}
	out.Body.Accepted, out.Body.Duplicates, out.Body.Own, out.Body.Refused = result.Accepted, result.Duplicates, result.Own, result.Refused
	out.Body.Position = result.Cursor
	return out, nil
}

// limitEvents charges the system for the events of a batch. Events that processes
// react to have a limit of their own, as commands over HTTP do: thousands of them
// would keep this machine from working for other systems.
func (a *API) limitEvents(ctx context.Context, system domain.SystemID, events []domain.Event) error {
	if a.limiter == nil {
		return nil
	}
	actions := 0
	for i := range events {
		if events[i].Type.TriggersReaction() {
			actions++
		}
	}
	if actions > 0 {
		if ok, wait := a.limiter.Allow(ctx, domain.FlowActions, system, actions); !ok {
			return a.rateLimited(ctx, domain.FlowActions, system, wait)
		}
	}
	if ok, wait := a.limiter.Allow(ctx, domain.FlowDeviceUpdates, system, max(len(events), 1)); !ok {
		return a.rateLimited(ctx, domain.FlowDeviceUpdates, system, wait)
	}
	return nil
}

// readEnvelopes reads a batch of events as readBatch reads updates. An empty body is
// an empty batch, which moves the cursor past events that the bridge does not send.
func readEnvelopes(body io.Reader) ([]domain.Event, error) {
	in := &itemReader{in: newItemBuffer(body), maxBytes: maxEnvelope}
	var events []domain.Event
	for {
		item, err := in.next()
		switch {
		case errors.Is(err, io.EOF):
			return events, nil
		case err != nil:
			return nil, err
		case len(events) == domain.MaxImportBatch:
			return nil, domain.Fail(domain.KindTooLarge, domain.CodeBatchTooLarge,
				fmt.Sprintf("a batch holds at most %d events", domain.MaxImportBatch))
		}
		e, err := domain.ParseEnvelope(item)
		if err != nil {
			return nil, domain.AtIndex(domain.Invalid(CodeInvalidRequest, err.Error()), len(events))
		}
		events = append(events, e)
	}
}

func (a *API) getBridgeCursor(ctx context.Context, in *bridgeCursorInput) (*bridgeCursorOutput, error) {
	if _, err := in.authorize(ctx, domain.ActionBridge); err != nil {
		return nil, err
	}
	done, err := a.admitRead(ctx, in.SystemID, costRow)
	if err != nil {
		return nil, err
	}
	defer done()
	return a.bridgeCursor(ctx, in.SystemID, in.Source)
}

func (a *API) bridgeCursor(ctx context.Context, system domain.SystemID, source string) (*bridgeCursorOutput, error) {
	if _, err := domain.ParseDeployment(source); err != nil {
		return nil, err
	}
	at, known, err := a.bridges.Cursor(ctx, system, source)
	if err != nil {
		return nil, unavailable(err)
	}
	out := &bridgeCursorOutput{}
	out.Body.Deployment, out.Body.Known, out.Body.Position = a.bridges.Deployment(), known, at
	return out, nil
}

func (a *API) setBridgeCursor(ctx context.Context, in *setBridgeCursorInput) (*bridgeCursorOutput, error) {
	if _, err := in.authorize(ctx, domain.ActionBridge); err != nil {
		return nil, err
	}
	if _, err := domain.ParseDeployment(in.Source); err != nil {
		return nil, err
	}
	set := a.bridges.SkipTo
	if in.Body.Rewind {
		set = a.bridges.Rewind
	}
	if err := set(ctx, in.SystemID, in.Source, in.Body.Position); err != nil {
		if domain.AsError(err).Kind == domain.KindInternal {
			err = unavailable(err)
		}
		return nil, err
	}
	return a.bridgeCursor(ctx, in.SystemID, in.Source)
}

type listBridgesInput struct{ TicketParam }

func (a *API) listBridges(ctx context.Context, _ *listBridgesInput) (*bridgesOutput, error) {
	done, err := a.admitStaff(ctx, "")
	if err != nil {
		return nil, err
	}
	defer done()
	list, err := a.bridges.List(ctx)
	if err != nil {
		return nil, unavailable(err)
	}
	out := &bridgesOutput{}
	out.Body.Deployment, out.Body.Bridges = a.bridges.Deployment(), list
	return out, nil
}
