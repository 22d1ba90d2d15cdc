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

// Bridges is the receiving end of other deployments' bridges, and what is known of
// our own.
type Bridges interface {
	// Deployment is the id of this deployment.
	Deployment() string
	// Import appends what is new in a batch and moves the source's cursor, together.
	// It fails with [*domain.ImportGapError] when something before was not taken.
	Import(ctx context.Context, b domain.ImportBatch) (domain.ImportResult, error)
	// Cursor returns up to where a source's log was taken, or false.
	Cursor(ctx context.Context, system domain.SystemID, source string) (domain.Position, bool, error)
	// SkipTo leaves out what a source has up to a position, if nothing was taken
	// from it before.
	SkipTo(ctx context.Context, system domain.SystemID, source string, at domain.Position) error
	// Rewind moves a cursor back to a position that it is after.
	Rewind(ctx context.Context, system domain.SystemID, source string, to domain.Position) error
	// List returns the status of every system of every link, as JSON.
	List(ctx context.Context) ([]json.RawMessage, error)
}

const (
	bridgePath       = systemPath + "/bridge"
	bridgeEventsPath = bridgePath + "/events"
	// maxEnvelope bounds one event that is pushed, in bytes.
	maxEnvelope = 1 << 20
)

// FromSource is part of the input of what another deployment calls.
type FromSource struct {
	Source string `query:"source" required:"true" doc:"Id of the deployment whose log it is"`
}

type bridgeEventsInput struct {
	InSystem
	FromSource
	After   string `query:"after" required:"true" doc:"Position in the source's log that the batch begins after"`
	Through string `query:"through" required:"true" doc:"Position in the source's log up to which the batch has all that is to be taken"`
	Unread
}

type bridgeEventsOutput struct {
	Body struct {
		Accepted   int             `json:"accepted" doc:"How many events were appended"`
		Duplicates int             `json:"duplicates" doc:"How many were here already"`
		Own        int             `json:"own" doc:"How many were first appended here, and were left out"`
		Refused    int             `json:"refused,omitempty" doc:"How many of those accepted are kept as undecodable, because the system may have no more devices"`
		Position   domain.Position `json:"position" doc:"Up to where the source's log is taken now"`
	}
}

type bridgeCursorInput struct {
	InSystem
	FromSource
}

type bridgeCursorOutput struct {
	Body struct {
		Deployment string          `json:"deployment" doc:"Id of this deployment"`
		Known      bool            `json:"known" doc:"Whether anything was taken from the source, or it was started"`
		Position   domain.Position `json:"position" doc:"Up to where the source's log is taken"`
	}
}

type setBridgeCursorInput struct {
	InSystem
	FromSource
	Body struct {
		Position domain.Position `json:"position" doc:"In the source's log"`
		Rewind   bool            `json:"rewind,omitempty" doc:"Go back to the position: the source lost what was after it. Otherwise the position only counts for a source that nothing is known of"`
	}
}

type bridgesOutput struct {
	Body struct {
		Deployment string            `json:"deployment" doc:"Id of this deployment"`
		Bridges    []json.RawMessage `json:"bridges" doc:"One per link and system; see the documentation"`
	}
}

func (a *API) registerBridges() {
	register(a, operation{
		id: "takeEvents", method: http.MethodPost, path: bridgeEventsPath, tag: "Bridges",
		summary: "Append events of another deployment",
		detail: "For the bridge of another deployment. A JSON array or NDJSON of at most 1,000 envelopes, in the order of the source's log, with " +
			"their positions there. What was taken before, has come by another way or was first appended here is left out, so that " +
			"the same batch may be sent any number of times. Events keep their id, type, version, time, actor and data.",
		errors: []int{408, 409, 413, 415, 504},
	}, a.takeEvents)
	register(a, operation{
		id: "getBridgeCursor", method: http.MethodGet, path: bridgePath + "/cursor", tag: "Bridges",
		summary: "Ask up to where the log of another deployment was taken",
	}, a.getBridgeCursor)
	register(a, operation{
		id: "setBridgeCursor", method: http.MethodPut, path: bridgePath + "/cursor", tag: "Bridges",
		summary: "Say where to begin with the log of another deployment",
		errors:  []int{409, 413, 415},
	}, a.setBridgeCursor)
	register(a, operation{
		id: "listBridges", method: http.MethodGet, path: "/api/v1/bridges", tag: "Bridges",
		summary: "List how the bridges of this deployment go",
		detail:  "For staff.",
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
	taken, err := a.bridges.Import(ctx, b)
	if behind := new(domain.ImportGapError); errors.As(err, &behind) {
		return nil, domain.Fail(domain.KindConflict, domain.CodeBridgeBehind, "the log of this source is taken up to "+
			behind.Cursor.String()+" only: send on from there").With("cursor", behind.Cursor)
	}
	if err != nil {
		return nil, err
	}
	out := &bridgeEventsOutput{}
	out.Body.Accepted, out.Body.Duplicates, out.Body.Own, out.Body.Refused = taken.Accepted, taken.Duplicates, taken.Own, taken.Refused
	out.Body.Position = taken.Cursor
	return out, nil
}

// limitEvents takes the events of a batch from the system's allowances. Those that
// processes react to have one of their own, as commands over HTTP do: by the
// thousands they would keep this machine from working for other systems.
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
			return a.limited(ctx, domain.FlowActions, system, wait)
		}
	}
	if ok, wait := a.limiter.Allow(ctx, domain.FlowDeviceUpdates, system, max(len(events), 1)); !ok {
		return a.limited(ctx, domain.FlowDeviceUpdates, system, wait)
	}
	return nil
}

// readEnvelopes reads a batch as readBatch does. An empty body is an empty batch:
// it moves the cursor over what was left out.
func readEnvelopes(body io.Reader) ([]domain.Event, error) {
	in := &itemReader{in: newItemBuffer(body), most: maxEnvelope}
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

type listBridgesInput struct{ WithTicket }

func (a *API) listBridges(ctx context.Context, _ *listBridgesInput) (*bridgesOutput, error) {
	if err := actorOf(ctx).AuthorizeAnywhere(domain.ActionMonitor); err != nil {
		return nil, err
	}
	done, err := a.admitRead(ctx, domain.PlatformSystem, costPage)
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
