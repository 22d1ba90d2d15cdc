package rest

import (
	"context"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/plugcast/plugcast/domain"
)

type eventsInput struct {
	InSystem
	FreshnessParam
	FilterParams
	After         string `query:"after" doc:"Events strictly after this position" example:"1795461046705-0"`
	Before        string `query:"before" doc:"Events strictly before this position"`
	From          string `query:"from" doc:"Events whose time is this (RFC 3339) or later: inclusive" example:"2026-11-23T18:00:00Z"`
	To            string `query:"to" doc:"Events whose time is before this (RFC 3339): exclusive"`
	Actor         string `query:"actor" maxLength:"256" doc:"Events caused by this subject, or by shelly:<connectionId>"`
	CorrelationID string `query:"correlationId" maxLength:"256" doc:"Events caused by the request with this id"`
	Limit         int    `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"Events per page"`
	Order         string `query:"order" enum:"asc,desc" default:"asc" doc:"By position: oldest or newest first"`
}

// FilterParams is part of the input of operations that filter events. Its exported
// fields only describe the parameters: [FilterParams.Resolve] reads the values, because
// huma ignores repeated and empty ones.
type FilterParams struct {
	Type     []string `query:"type" doc:"Events of these types, separated by commas; at most 64" example:"device-update"`
	Types    []string `query:"types" doc:"The same as type; both count"`
	DeviceID []string `query:"deviceId" doc:"Events about these devices, separated by commas; at most 256"`
	Devices  []string `query:"devices" doc:"The same as deviceId; both count"`

	types, devices []string
}

// Resolve implements [huma.Resolver].
func (in *FilterParams) Resolve(ctx huma.Context) []error {
	at := ctx.URL()
	query := at.Query()
	in.types, in.devices = slices.Concat(query["type"], query["types"]), slices.Concat(query["deviceId"], query["devices"])
	return nil
}

// eventPage and envelope only describe what listEvents writes.
type eventPage struct {
	Events []envelope       `json:"events"`
	Next   *domain.Position `json:"next,omitempty" doc:"The after (with order=desc, before) of the next page; absent on the last"`
}

type envelope struct {
	Event         domain.EventType `json:"event" example:"device-update"`
	Position      domain.Position  `json:"position" doc:"The event's place in the log; the cursor to resume from"`
	Seq           uint64           `json:"seq" doc:"The number of the event within its system: 1, 2, 3, …"`
	ID            string           `json:"id"`
	SystemID      domain.SystemID  `json:"systemId"`
	Time          time.Time        `json:"time"`
	Actor         string           `json:"actor" doc:"The person or program that caused the event"`
	CorrelationID string           `json:"correlationId,omitempty"`
	CausationID   string           `json:"causationId,omitempty"`
	Origin        string           `json:"origin,omitempty" doc:"The deployment that appended the event first, if not this one"`
	Version       int              `json:"version" doc:"The version of the format of data"`
	Data          map[string]any   `json:"data"`
}

type headInput struct {
	InSystem
	FreshnessParam
}

type headOutput struct {
	Body struct {
		AsOf
		Hash string `json:"hash" doc:"SHA-256 over the previous hash and the event at position, in hex"`
	}
}

func (a *API) registerHistory() {
	register(a, operation{
		id: "listEvents", cost: costPage, method: http.MethodGet, path: systemPath + "/events", tag: "History",
		summary:      "Read the history of a system",
		detail:       "Returns the events that match all filters. A page of large events has fewer than `limit`.",
		responseType: reflect.TypeFor[eventPage](),
	}, a.listEvents)
	register(a, operation{
		id: "getAuditHead", method: http.MethodGet, path: systemPath + "/audit/head", tag: "History",
		summary: "Get the head of the hash chain",
		detail:  "With a saved head, `plugcast verify` can prove later that nothing up to its position was altered.",
	}, a.getHead)
}

func (a *API) listEvents(ctx context.Context, in *eventsInput) (*huma.StreamResponse, error) {
	actor, err := in.authorize(ctx, domain.ActionHistory)
	if err != nil {
		return nil, err
	}
	query, err := in.query()
	if err != nil {
		return nil, err
	}
	if err := a.awaitPosition(ctx, in.SystemID, &in.FreshnessParam); err != nil {
		return nil, err
	}
	answer, err := a.reserve(ctx, in.SystemID, min(in.Limit*maxEventBytes, pageBytes))
	if err != nil {
		return nil, err
	}
	done, err := a.admitRead(ctx, in.SystemID, costPage)
	if err != nil {
		return nil, err
	}
	defer done()
	events, more, err := a.reads.Events(ctx, actor, in.SystemID, query)
	if err != nil {
		return nil, err
	}
	bytes := 0
	for i := range events {
		bytes += len(events[i].Data) + rowBytes
	}
	answer.Shrink(bytes)
	return streamJSON(func(send func([]byte) bool) { sendPage(events, more, send) }), nil
}

// maxEventBytes is the maximum size of an event.
const maxEventBytes = 64 << 10

func (in *eventsInput) query() (domain.EventQuery, error) {
	q := domain.EventQuery{Actor: in.Actor, CorrelationID: in.CorrelationID, Limit: in.Limit, Descending: in.Order == "desc"}
	var err error
	if q.Filter, err = domain.ParseEventFilter(in.types, in.devices); err != nil {
		return q, err
	}
	for _, p := range []struct {
		text string
		to   **domain.Position
	}{{in.After, &q.After}, {in.Before, &q.Before}} {
		if p.text == "" {
			continue
		}
		at, err := domain.ParsePosition(p.text)
		if err != nil {
			return q, err
		}
		*p.to = &at
	}
	for _, t := range []struct {
		name, text string
		to         **time.Time
	}{{"from", in.From, &q.From}, {"to", in.To, &q.To}} {
		if t.text == "" {
			continue
		}
		at, err := domain.ParseTime(t.text)
		if err != nil {
			return q, invalidRequest("%s must be an RFC 3339 time", t.name)
		}
		*t.to = &at
	}
	return q, nil
}

// sendPage writes an eventPage, piece by piece. It encodes the events exactly as the
// other protocols do, and adds the beginning of the next page if there is one.
func sendPage(events []domain.Event, more bool, send func([]byte) bool) {
	piece := append(make([]byte, 0, 2*pieceBytes), `{"events":[`...)
	for i := range events {
		if i > 0 {
			piece = append(piece, ',')
		}
		if piece = events[i].AppendEnvelope(piece); len(piece) >= pieceBytes {
			if !sendPieces(piece, send) {
				return
			}
			piece = piece[:0]
		}
	}
	piece = append(piece, ']')
	if more && len(events) > 0 {
		piece = append(piece, `,"next":`...)
		piece = strconv.AppendQuote(piece, events[len(events)-1].Position.String())
	}
	sendPieces(append(piece, "}\n"...), send)
}

func (a *API) getHead(ctx context.Context, in *headInput) (*headOutput, error) {
	actor, err := in.authorize(ctx, domain.ActionHistory)
	if err != nil {
		return nil, err
	}
	if err := a.awaitPosition(ctx, in.SystemID, &in.FreshnessParam); err != nil {
		return nil, err
	}
	done, err := a.admitRead(ctx, in.SystemID, costRow)
	if err != nil {
		return nil, err
	}
	defer done()
	cursor, hash, err := a.reads.Head(ctx, actor, in.SystemID)
	if err != nil {
		return nil, err
	}
	out := &headOutput{}
	out.Body.AsOf = AsOf{SystemID: in.SystemID, Position: cursor.Position, Seq: cursor.Seq}
	out.Body.Hash = hash.String()
	return out, nil
}

// describeAnswer describes a body of type t that a handler streams. t may be nil.
func describeAnswer(api huma.API, t reflect.Type) map[string]*huma.Response {
	if t == nil {
		return map[string]*huma.Response{}
	}
	return map[string]*huma.Response{"200": {Content: map[string]*huma.MediaType{
		"application/json": {Schema: api.OpenAPI().Components.Schemas.Schema(t, true, "")},
	}}}
}
