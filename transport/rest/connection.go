package rest

import (
	"context"
	"net/http"
	"time"

	"github.com/plugcast/plugcast/domain"
)

const connectionListPath = systemPath + "/connections"

type listConnectionsInput struct {
	InSystem
	Freshness
	Moment
	Paged
}

type listConnectionsOutput struct {
	Body struct {
		AsOf
		Connections []*domain.Connection `json:"connections"`
		Next        string               `json:"next,omitempty" doc:"Pass it as after for the next page; absent on the last"`
	}
}

type getConnectionInput struct {
	InSystem
	ConnectionID domain.ConnectionID `path:"connectionId" example:"acc1"`
	Freshness
	Moment
}

type getConnectionOutput struct {
	Body *domain.Connection
}

// commandConnectionInput is the connection command of the system that this one
// replaces: its path names no system.
type commandConnectionInput struct {
	WithTicket
	Keyed
	ConnectionID domain.ConnectionID   `path:"connectionId" example:"acc1"`
	Action       domain.ConnectionVerb `path:"action" enum:"start,stop,restart"`
	Body         *struct {
		Reason       string `json:"reason,omitempty" maxLength:"256" doc:"Told to the clients that are closed, and kept in the events"`
		CloseSockets bool   `json:"closeSockets,omitempty" doc:"Also close the browser sockets of the system"`
	}
}

type switchRelayInput struct {
	InDevice
	Keyed
	Body struct {
		On          bool   `json:"on"`
		ToggleAfter string `json:"toggleAfter,omitempty" doc:"Switch back after this duration, at most 24h" example:"30m"`
	}
}

type acceptedOutput struct {
	Replay
	Body CommandAnswer
}

func (a *API) registerConnections() {
	const tag = "Connections"
	register(a, operation{
		id: "listConnections", method: http.MethodGet, path: connectionListPath, tag: tag,
		summary: "List the Shelly connections of a system",
	}, a.listConnections)
	register(a, operation{
		id: "getConnection", method: http.MethodGet, path: connectionListPath + "/{connectionId}", tag: tag,
		summary: "Get a Shelly connection", errors: []int{404},
	}, a.getConnection)
	register(a, operation{
		id: "commandConnection", method: http.MethodPost, path: "/api/websocket/{connectionId}/{action}", tag: tag,
		status: http.StatusAccepted, summary: "Start, stop or restart a connection",
		errors: []int{404, 413, 415, 422, 504},
	}, a.commandConnection)
	register(a, operation{
		id: "switchRelay", method: http.MethodPost, path: devicePath + "/relay", tag: "Devices",
		status: http.StatusAccepted, summary: "Ask for a relay to be switched",
		errors: []int{404, 413, 415, 422, 504},
	}, a.switchRelay)
}

func (a *API) listConnections(ctx context.Context, in *listConnectionsInput) (*listConnectionsOutput, error) {
	st, err := a.stateOf(ctx, &in.InSystem, &in.Freshness, &in.Moment)
	if err != nil {
		return nil, err
	}
	out := &listConnectionsOutput{}
	out.Body.AsOf = stamp(st)
	out.Body.Connections, out.Body.Next = cut(&in.Paged, st.Snapshot().Connections,
		func(c *domain.Connection) string { return string(c.ConnectionID) })
	return out, nil
}

func (a *API) getConnection(ctx context.Context, in *getConnectionInput) (*getConnectionOutput, error) {
	if _, err := domain.ParseConnectionID(string(in.ConnectionID)); err != nil {
		return nil, err
	}
	st, err := a.stateOf(ctx, &in.InSystem, &in.Freshness, &in.Moment)
	if err != nil {
		return nil, err
	}
	c := st.Connections[in.ConnectionID]
	if c == nil {
		return nil, domain.Fail(domain.KindNotFound, domain.CodeUnknownConnection,
			`there is no connection "`+string(in.ConnectionID)+`"`)
	}
	return &getConnectionOutput{Body: c}, nil
}

func (a *API) commandConnection(ctx context.Context, in *commandConnectionInput) (*acceptedOutput, error) {
	actor := actorOf(ctx)
	if err := actor.AuthorizeAnywhere(domain.ActionCommand); err != nil {
		return nil, err
	}
	if _, err := domain.ParseConnectionID(string(in.ConnectionID)); err != nil {
		return nil, err
	}
	c := domain.CommandConnection{Verb: in.Action, ConnectionCommand: domain.ConnectionCommand{ConnectionID: in.ConnectionID}}
	if in.Body != nil {
		c.Reason, c.CloseSockets = in.Body.Reason, in.Body.CloseSockets
	}
	r, err := in.request(ctx, "commandConnection", c)
	if err != nil {
		return nil, err
	}
	system, err := a.reads.SystemOfConnection(ctx, actor, in.ConnectionID)
	if err != nil {
		return nil, err
	}
	receipt, err := a.service.CommandConnection(ctx, system, c, r)
	if err != nil {
		return nil, err
	}
	return &acceptedOutput{Replay: replayOf(receipt.Replayed), Body: answer(receipt)}, nil
}

func (a *API) switchRelay(ctx context.Context, in *switchRelayInput) (*acceptedOutput, error) {
	if _, err := in.authorize(ctx, domain.ActionCommand); err != nil {
		return nil, err
	}
	c := domain.SwitchRelay{DeviceID: in.DeviceID, On: in.Body.On}
	if in.Body.ToggleAfter != "" {
		var err error
		if c.ToggleAfter, err = time.ParseDuration(in.Body.ToggleAfter); err != nil {
			return nil, domain.Invalid(domain.CodeInvalidCommand, "toggleAfter must be a duration such as 30m")
		}
	}
	r, err := in.request(ctx, "switchRelay", in.SystemID, c)
	if err != nil {
		return nil, err
	}
	receipt, err := a.service.SwitchRelay(ctx, in.SystemID, c, r)
	if err != nil {
		return nil, err
	}
	return &acceptedOutput{Replay: replayOf(receipt.Replayed), Body: answer(receipt)}, nil
}
