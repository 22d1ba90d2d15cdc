package rest

import (
	"context"
	"net/http"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/shelly/credential"
)

const (
	connectionListPath = systemPath + "/connections"
	connectionPath     = connectionListPath + "/{connectionId}"
)

// InConnection is part of the input of every operation on one connection.
type InConnection struct {
	InSystem
	ConnectionID domain.ConnectionID `path:"connectionId" example:"acc1"`
}

func (in *InConnection) authorize(ctx context.Context, action domain.Action) (domain.Actor, error) {
	actor, err := in.InSystem.authorize(ctx, action)
	if err == nil {
		_, err = domain.ParseConnectionID(string(in.ConnectionID))
	}
	return actor, err
}

type listConnectionsInput struct {
	InSystem
	ReadParams
	PageParams
	ConditionalRead
}

type listConnectionsOutput struct {
	Status int
	ETag   string `header:"ETag" doc:"Changes with every event of the system"`
	Body   *connectionPage
}

type connectionPage struct {
	AsOf
	Connections []*domain.Connection `json:"connections"`
	Next        string               `json:"next,omitempty" doc:"The after of the next page; absent on the last page"`
}

type getConnectionInput struct {
	InConnection
	ReadParams
	ConditionalRead
}

// connectionDetail is a connection and its last refused devices.
type connectionDetail struct {
	domain.Connection
	LastRefusals []domain.DeviceRefusal `json:"lastRefusals,omitempty" doc:"The last 10 devices that this process refused, newest first"`
}

// Refusals lists the devices that this process refused last.
type Refusals interface {
	// LastRefusals returns the devices refused on a connection, newest first.
	LastRefusals(system domain.SystemID, connection domain.ConnectionID) []domain.DeviceRefusal
}

type createConnectionInput struct {
	InSystem
	Idempotent
	CallerURL
	Body struct {
		ConnectionID domain.ConnectionID   `json:"connectionId,omitempty" doc:"The server makes one if it is absent" example:"acc1"`
		Kind         domain.ConnectionKind `json:"kind" enum:"shelly-cloud,shelly-outbound"`
		Name         string                `json:"name,omitempty" maxLength:"256" example:"ground floor"`
		AuthCode     SecretText            `json:"authCode,omitempty" maxLength:"8192" writeOnly:"true" doc:"Only for shelly-cloud"`
	}
}

type createConnectionOutput struct {
	Replay
	Location string `header:"Location"`
	ETag     string `header:"ETag" doc:"The connection's quoted position, for If-Match in the next command"`
	Body     connectionAnswer
}

// connectionAnswer is the answer to a command that changes a connection.
type connectionAnswer struct {
	CommandAnswer
	ConnectionID domain.ConnectionID `json:"connectionId"`
	Connection   *domain.Connection  `json:"connection,omitempty" doc:"The connection now; absent if the read model is behind"`
	DialInURL    string              `json:"dialInUrl,omitempty" readOnly:"true" example:"wss://plugcast.example.com/shelly/acc1/…"`
}

type updateConnectionInput struct {
	InConnection
	ConditionalWrite
	CommandInput
	CallerURL
	Body struct {
		Name      domain.Optional[string] `json:"name,omitzero" doc:"null removes it"`
		RotateKey bool                    `json:"rotateKey,omitempty" doc:"Replace the key of a shelly-outbound connection"`
		AuthCode  SecretText              `json:"authCode,omitempty" maxLength:"8192" writeOnly:"true" doc:"Only for shelly-cloud"`
	}
}

type deleteConnectionInput struct {
	InConnection
	ConditionalWrite
	CommandInput
	Reason string `query:"reason" maxLength:"256" doc:"Kept in the events"`
}

type connectionOutput struct {
	Status int
	Replay
	ETag string `header:"ETag" doc:"The connection's quoted position, for If-Match in the next command"`
	Body connectionAnswer
}

// commandConnectionInput is the connection command as the former platform had it: the
// path names no system, although several may have a connection with the same id.
type commandConnectionInput struct {
	TicketParam
	CommandInput
	ConnectionID domain.ConnectionID   `path:"connectionId" example:"acc1"`
	Action       domain.ConnectionVerb `path:"action" enum:"start,stop,restart"`
	SystemID     domain.SystemID       `query:"systemId" doc:"The system of the connection"`
	Body         *struct {
		Reason       string `json:"reason,omitempty" maxLength:"256" doc:"Sent to the disconnected clients, and kept in the events"`
		CloseSockets *bool  `json:"closeSockets,omitempty" doc:"Also close the system's browser sockets; by default only for stop"`
	}
}

type switchRelayInput struct {
	InDevice
	CommandInput
	Body struct {
		On          bool   `json:"on"`
		ToggleAfter string `json:"toggleAfter,omitempty" doc:"Switch back after this duration, at most 24h" example:"30m"`
	}
}

func (a *API) registerConnections() {
	const tag = "Connections"
	register(a, operation{
		id: "listConnections", cost: costPage, method: http.MethodGet, path: connectionListPath, tag: tag,
		summary: "List the Shelly connections of a system",
	}, a.listConnections)
	register(a, operation{
		id: "getConnection", method: http.MethodGet, path: connectionPath, tag: tag,
		summary: "Get a Shelly connection", errors: []int{404},
		detail: "For callers that may command the connection, `lastRefusals` lists the last 10 devices that the answering process refused or " +
			"disconnected; on a shelly-cloud connection, these are the devices beyond the limit of the system. A process keeps the list in " +
			"memory.",
	}, a.getConnection)
	register(a, operation{
		id: "createConnection", method: http.MethodPost, path: connectionListPath, tag: tag, status: http.StatusCreated,
		summary: "Add a Shelly connection",
		detail: "Kind `shelly-cloud` is a Shelly Cloud account to which the server connects; `authCode` is the code from the redirect of " +
			"Shelly's OAuth. Kind `shelly-outbound` is a key with which devices connect to the server: the answer has the `dialInUrl` to " +
			"enter in a device as its outbound WebSocket. The server tells it only once, not again to a repeat under the same Idempotency-Key; " +
			"`rotateKey` makes another one. No read and no event contains a key or a code.",
		errors: []int{409, 413, 415, 422, 504},
	}, a.createConnection)
	register(a, operation{
		id: "updateConnection", method: http.MethodPatch, path: connectionPath, tag: tag, status: http.StatusAccepted,
		summary: "Change the fields that are present",
		detail: "After a change of credential by `rotateKey` or `authCode`, the server no longer accepts the old one, and drops the sockets " +
			"that used it. The answer to `rotateKey` has the new `dialInUrl`; the server tells it only once.",
		errors: []int{404, 409, 412, 413, 415, 422, 504},
	}, a.updateConnection)
	register(a, operation{
		id: "deleteConnection", method: http.MethodDelete, path: connectionPath, tag: tag, status: http.StatusAccepted,
		summary: "Remove a connection and its credential",
		detail: "The server drops the connection's sockets. The devices and their states stay, and the devices may come back through another " +
			"connection. " + waitsForNodes,
		errors: []int{404, 412, 422, 504},
	}, a.deleteConnection)
	register(a, operation{
		id: "commandConnection", method: http.MethodPost, path: "/api/websocket/{connectionId}/{action}", tag: tag,
		status: http.StatusAccepted, summary: "Start, stop or restart a connection",
		detail: "Without `systemId`, the server chooses the connection of a system that the token names; otherwise the only one with that id, " +
			"first among those that were created in this deployment. A stop and a restart drop the sockets of the connection's devices in " +
			"every process. A start closes no sockets. " + waitsForNodes,
		errors: []int{404, 413, 415, 422, 504},
	}, a.commandConnection)
	register(a, operation{
		id: "switchRelay", method: http.MethodPost, path: devicePath + "/relay", tag: "Devices",
		status: http.StatusAccepted, summary: "Request that a relay is switched",
		detail: "With `wait`, the answer is 200 with the `outcome` of the `relay-switch-completed` event, and an `error` unless that is " +
			"`completed`. Outcome `unknown` means that the device got the request and did not answer, so it may have switched. If the wait " +
			"ends before the event, the answer is 202 without `outcome`.",
		errors: []int{404, 413, 415, 422, 504},
	}, a.switchRelay)
}

func (a *API) listConnections(ctx context.Context, in *listConnectionsInput) (*listConnectionsOutput, error) {
	list := listing[*domain.Connection]{
		of:   func(s *domain.Snapshot) []*domain.Connection { return s.Connections },
		id:   func(c *domain.Connection) string { return string(c.ConnectionID) },
		size: func(*domain.Connection) int { return rowBytes },
	}
	st, connections, next, err := readPage(ctx, a, &in.InSystem, &in.ReadParams, &in.PageParams,
		func(ctx context.Context, actor domain.Actor) (*domain.State, bool, error) {
			return a.reads.ConnectionPage(ctx, actor, in.SystemID, domain.ConnectionID(in.After), in.Limit)
		}, list)
	if err != nil {
		return nil, err
	}
	out := &listConnectionsOutput{Status: http.StatusOK, ETag: entityTag(st.Cursor.Position)}
	if in.matches(out.ETag) {
		out.Status = http.StatusNotModified
		return out, nil
	}
	out.Body = new(connectionPage)
	out.Body.AsOf, out.Body.Connections, out.Body.Next = asOf(st), connections, next
	return out, nil
}

func (a *API) getConnection(ctx context.Context, in *getConnectionInput) (*conditionalOutput[connectionDetail], error) {
	if _, err := domain.ParseConnectionID(string(in.ConnectionID)); err != nil {
		return nil, err
	}
	needs := domain.Needs{Connections: []domain.ConnectionID{in.ConnectionID}}
	st, err := a.readRows(ctx, &in.InSystem, &in.ReadParams, needs)
	if err != nil {
		return nil, err
	}
	c := st.Connections[in.ConnectionID]
	if c == nil {
		return nil, domain.Fail(domain.KindNotFound, domain.CodeUnknownConnection,
			`there is no connection "`+string(in.ConnectionID)+`"`)
	}
	detail := &connectionDetail{Connection: *c}
	if a.refusals != nil && actorOf(ctx).Authorize(domain.ActionCommand, in.SystemID) == nil {
		detail.LastRefusals = a.refusals.LastRefusals(in.SystemID, in.ConnectionID)
	}
	if len(detail.LastRefusals) > 0 { // the ETag does not cover refusals, so they are always sent
		in.IfNoneMatch = ""
	}
	return conditional(&in.ConditionalRead, entityTag(c.Position), detail), nil
}

// createTimeout is how long the answer to a creation waits for the read model, so
// that it shows the connection, and the caller's next read finds it.
const createTimeout = "5s"

func (a *API) createConnection(ctx context.Context, in *createConnectionInput) (*createConnectionOutput, error) {
	if _, err := in.authorize(ctx, domain.ActionAdminister); err != nil {
		return nil, err
	}
	if isCloud := in.Body.Kind == domain.ConnectionShellyCloud; isCloud != (in.Body.AuthCode != "") {
		return nil, domain.Invalid(domain.CodeInvalidCommand, "authCode is required for a shelly-cloud connection, and only allowed there")
	}
	r, err := in.request(ctx, "createConnection", in.SystemID, in.Body)
	if err != nil {
		return nil, err
	}
	id, err := idOrNew(ctx, &in.Idempotent, in.SystemID, in.Body.ConnectionID)
	if err != nil {
		return nil, err
	}
	if _, err := domain.ParseConnectionID(string(id)); err != nil {
		return nil, err
	}
	created := domain.CreateConnection{ConnectionCreated: domain.ConnectionCreated{ConnectionID: id, Kind: in.Body.Kind, Name: in.Body.Name}}
	request := credential.Request{
		System: in.SystemID, ConnectionID: id, Kind: in.Body.Kind, AuthCode: credential.Conceal(string(in.Body.AuthCode)),
	}
	receipt, key, err := a.withCredential(ctx, request, r, func(r domain.Request) (domain.Receipt, error) {
		return a.service.Execute(ctx, in.SystemID, created, r)
	})
	if err != nil {
		return nil, err
	}
	changed := a.answerConnection(ctx, in.SystemID, id, &WaitParam{Wait: createTimeout}, receipt)
	if changed.ETag == "" {
		changed.ETag = entityTag(receipt.Position)
	}
	changed.Body.DialInURL = a.dialInURL(&in.CallerURL, id, key)
	return &createConnectionOutput{
		Replay: changed.Replay, ETag: changed.ETag, Body: changed.Body,
		Location: "/api/v1/systems/" + string(in.SystemID) + "/connections/" + string(id),
	}, nil
}

func (a *API) updateConnection(ctx context.Context, in *updateConnectionInput) (*connectionOutput, error) {
	if _, err := in.authorize(ctx, domain.ActionAdminister); err != nil {
		return nil, err
	}
	match, err := in.ConditionalWrite.position()
	if err != nil {
		return nil, err
	}
	c := domain.UpdateConnection{IfMatch: match, ConnectionUpdated: domain.ConnectionUpdated{
		ConnectionID: in.ConnectionID, Name: in.Body.Name, Credential: in.Body.RotateKey || in.Body.AuthCode != "",
	}}
	switch {
	case in.Body.RotateKey && in.Body.AuthCode != "":
		return nil, domain.Invalid(domain.CodeInvalidCommand,
			"rotateKey is only for a shelly-outbound connection, and authCode only for a shelly-cloud one")
	case in.Body.RotateKey:
		c.CredentialKind = domain.ConnectionShellyOutbound
	case in.Body.AuthCode != "":
		c.CredentialKind = domain.ConnectionShellyCloud
	}
	r, err := in.request(ctx, "updateConnection", in.SystemID, in.ConnectionID, match, in.Body)
	if err != nil {
		return nil, err
	}
	update := func(r domain.Request) (domain.Receipt, error) {
		return a.service.Execute(ctx, in.SystemID, c, r)
	}
	var receipt domain.Receipt
	var key string
	if c.Credential {
		request := credential.Request{
			System: in.SystemID, ConnectionID: in.ConnectionID, Kind: c.CredentialKind, AuthCode: credential.Conceal(string(in.Body.AuthCode)),
		}
		receipt, key, err = a.withCredential(ctx, request, r, update)
	} else {
		receipt, err = update(r)
	}
	if err != nil {
		return nil, err
	}
	out := a.answerConnection(ctx, in.SystemID, in.ConnectionID, &in.WaitParam, receipt)
	out.Body.DialInURL = a.dialInURL(&in.CallerURL, in.ConnectionID, key)
	return out, nil
}

func (a *API) deleteConnection(ctx context.Context, in *deleteConnectionInput) (*disconnectOutput, error) {
	if _, err := in.authorize(ctx, domain.ActionAdminister); err != nil {
		return nil, err
	}
	match, err := in.ConditionalWrite.position()
	if err != nil {
		return nil, err
	}
	c := domain.ControlConnection{
		Verb: domain.VerbDelete, IfMatch: match,
		ConnectionCommand: domain.ConnectionCommand{ConnectionID: in.ConnectionID, Reason: in.Reason},
	}
	r, err := in.request(ctx, "deleteConnection", in.SystemID, c)
	if err != nil {
		return nil, err
	}
	// Removal reads the kept credential before the connection is deleted. Afterwards it
	// might find the credential of a new connection with the same id.
	remove := func(context.Context) error { return nil }
	r.BeforeAppend = func(ctx context.Context) (err error) {
		remove, err = a.credentials.Removal(ctx, in.SystemID, in.ConnectionID)
		return err
	}
	return a.disconnectAndWait(ctx, in.SystemID, &in.WaitParam, func() (domain.Receipt, error) {
		receipt, err := a.service.Execute(ctx, in.SystemID, c, r)
		if err != nil {
			return receipt, err
		}
		removing, cancel := context.WithTimeout(context.WithoutCancel(ctx), credentialTime)
		defer cancel()
		if err := remove(removing); err != nil {
			a.log.WarnContext(ctx, "could not remove the credential of a deleted connection; no device can use it",
				"requestId", requestID(ctx), "systemId", in.SystemID, "connectionId", in.ConnectionID, "error", err)
		}
		return receipt, nil
	})
}

// answerConnection answers a command that changed a connection. If it cannot read the
// connection, it leaves that out instead of failing: the command is done, and this
// answer is the only one that can contain a new key.
func (a *API) answerConnection(
	ctx context.Context, system domain.SystemID, id domain.ConnectionID, w *WaitParam, receipt domain.Receipt,
) *connectionOutput {
	out := &connectionOutput{Status: http.StatusAccepted, Replay: replayOf(receipt.Replayed)}
	out.Body.CommandAnswer, out.Body.ConnectionID = commandAnswer(receipt), id
	st, err := a.stateAfter(ctx, system, domain.Needs{Connections: []domain.ConnectionID{id}}, receipt, w)
	if err != nil {
		a.log.WarnContext(ctx, "could not read a changed connection", "requestId", requestID(ctx), "error", err)
	}
	if st == nil {
		return out
	}
	out.Status, out.Body.Outcome = http.StatusOK, domain.OutcomeCompleted
	if now := st.Connections[id]; now != nil {
		out.Body.Connection, out.ETag = now, entityTag(now.Position)
	}
	return out
}

func (a *API) commandConnection(ctx context.Context, in *commandConnectionInput) (*disconnectOutput, error) {
	actor := actorOf(ctx)
	if err := actor.AuthorizeAnywhere(domain.ActionCommand); err != nil {
		return nil, err
	}
	if _, err := domain.ParseConnectionID(string(in.ConnectionID)); err != nil {
		return nil, err
	}
	c := domain.ControlConnection{Verb: in.Action, ConnectionCommand: domain.ConnectionCommand{ConnectionID: in.ConnectionID}}
	c.CloseSockets = in.Action == domain.VerbStop
	if in.Body != nil {
		c.Reason = in.Body.Reason
		if in.Body.CloseSockets != nil {
			c.CloseSockets = *in.Body.CloseSockets
		}
	}
	r, err := in.request(ctx, "commandConnection", in.SystemID, c)
	if err != nil {
		return nil, err
	}
	system := in.SystemID
	if system == "" {
		system, err = a.systemOf(ctx, actor, in.ConnectionID)
	} else {
		_, err = (&InSystem{SystemID: system}).authorize(ctx, domain.ActionCommand)
	}
	if err != nil {
		return nil, err
	}
	command := func() (domain.Receipt, error) { return a.service.Execute(ctx, system, c, r) }
	if c.Verb == domain.VerbStart { // no process drops sockets, so none reports
		return a.answerStart(ctx, system, &in.WaitParam, command)
	}
	return a.disconnectAndWait(ctx, system, &in.WaitParam, command)
}

// systemOf looks up the system of a connection. The lookup counts as a read of the
// actor's system. Callers that send ?systemId= avoid it.
func (a *API) systemOf(ctx context.Context, actor domain.Actor, id domain.ConnectionID) (domain.SystemID, error) {
	done, err := a.admitRead(ctx, actor.QuotaSystem(""), costRow)
	if err != nil {
		return "", err
	}
	defer done()
	return a.reads.SystemOfConnection(ctx, actor, id)
}

func (a *API) answerStart(
	ctx context.Context, system domain.SystemID, in *WaitParam, command func() (domain.Receipt, error),
) (*disconnectOutput, error) {
	receipt, err := command()
	if err != nil {
		return nil, err
	}
	out := &disconnectOutput{Status: http.StatusAccepted, Replay: replayOf(receipt.Replayed)}
	out.Body.CommandAnswer = commandAnswer(receipt)
	st, err := a.stateAfter(ctx, system, domain.Needs{}, receipt, in)
	if err != nil || st == nil {
		return out, err
	}
	out.Status, out.Body.Outcome = http.StatusOK, domain.OutcomeCompleted
	return out, nil
}

func (a *API) switchRelay(ctx context.Context, in *switchRelayInput) (*switchOutput, error) {
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
	receipt, err := a.execute(ctx, "switchRelay", in.SystemID, c, &in.CommandInput)
	if err != nil {
		return nil, err
	}
	return a.answerSwitch(ctx, in.SystemID, &in.WaitParam, receipt), nil
}
