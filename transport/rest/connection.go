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
	Freshness
	Moment
	Paged
	Revalidated
}

type listConnectionsOutput struct {
	Status int
	ETag   string `header:"ETag" doc:"Changes with whatever happens in the system"`
	Body   *listedConnections
}

type listedConnections struct {
	AsOf
	Connections []*domain.Connection `json:"connections"`
	Next        string               `json:"next,omitempty" doc:"Pass it as after for the next page; absent on the last"`
}

type getConnectionInput struct {
	InConnection
	Freshness
	Moment
	Revalidated
}

type getConnectionOutput struct {
	Status int
	ETag   string `header:"ETag" doc:"The quoted position of the connection, for If-Match"`
	Body   *connectionDetail
}

// connectionDetail is a connection and its last refused devices.
type connectionDetail struct {
	domain.Connection
	LastRefusals []domain.DeviceRefusal `json:"lastRefusals,omitempty" doc:"The last 10 devices that the answering process refused or disconnected, the newest first; of a shelly-cloud connection those beyond the limit of the system; only for callers that may command it. Kept in memory"`
}

// Refusals knows which devices this process refused last.
type Refusals interface {
	// LastRefusals returns those that came over a connection, the newest first.
	LastRefusals(system domain.SystemID, connection domain.ConnectionID) []domain.DeviceRefusal
}

type createConnectionInput struct {
	InSystem
	Keyed
	Reached
	Body struct {
		ConnectionID domain.ConnectionID   `json:"connectionId,omitempty" doc:"Made when absent. No two systems have the same" example:"acc1"`
		Kind         domain.ConnectionKind `json:"kind" enum:"shelly-cloud,shelly-outbound" doc:"A Shelly Cloud account that we dial, or a key that devices dial in with"`
		Name         string                `json:"name,omitempty" maxLength:"256" example:"ground floor"`
		AuthCode     SecretText            `json:"authCode,omitempty" maxLength:"8192" writeOnly:"true" doc:"Of a shelly-cloud connection: the code that the redirect of Shelly's OAuth carries"`
	}
}

type createConnectionOutput struct {
	Replay
	Location string `header:"Location"`
	ETag     string `header:"ETag" doc:"For If-Match in the next command on the same thing"`
	Body     connectionAnswer
}

// connectionAnswer is the answer to what changes a connection.
type connectionAnswer struct {
	CommandAnswer
	ConnectionID domain.ConnectionID `json:"connectionId"`
	Connection   *domain.Connection  `json:"connection,omitempty" doc:"As it is now; absent when the read model is behind"`
	DialInURL    string              `json:"dialInUrl,omitempty" readOnly:"true" doc:"What to enter in a device as its outbound WebSocket. It is told once, to whoever made the key; a repeat under the same Idempotency-Key does not tell it again" example:"wss://plugcast.example.com/shelly/acc1/…"`
}

type updateConnectionInput struct {
	InConnection
	Conditional
	CommandInput
	Reached
	Body struct {
		Name      domain.Optional[string] `json:"name,omitzero" doc:"null takes it away"`
		RotateKey bool                    `json:"rotateKey,omitempty" doc:"Of a shelly-outbound connection: make a new key, and drop what came in with the old one"`
		AuthCode  SecretText              `json:"authCode,omitempty" maxLength:"8192" writeOnly:"true" doc:"Of a shelly-cloud connection: a new code"`
	}
}

type deleteConnectionInput struct {
	InConnection
	Conditional
	CommandInput
	Reason string `query:"reason" maxLength:"256" doc:"Kept in the events"`
}

type connectionOutput struct {
	Status int
	Replay
	ETag string `header:"ETag" doc:"For If-Match in the next command on the same thing"`
	Body connectionAnswer
}

// commandConnectionInput is the connection command of the system that this one
// replaces: its path names no system, and several may have a connection of that id.
type commandConnectionInput struct {
	WithTicket
	CommandInput
	ConnectionID domain.ConnectionID   `path:"connectionId" example:"acc1"`
	Action       domain.ConnectionVerb `path:"action" enum:"start,stop,restart"`
	SystemID     domain.SystemID       `query:"systemId" doc:"The system of the connection. Without it the server takes the connection of a system that the token names; otherwise the only one with that id, preferring those that were created in this deployment"`
	Body         *struct {
		Reason       string `json:"reason,omitempty" maxLength:"256" doc:"Told to the clients that are closed, and kept in the events"`
		CloseSockets *bool  `json:"closeSockets,omitempty" doc:"Also close the browser sockets of the system; when absent, true for stop and false otherwise. A start closes nothing"`
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
		id: "listConnections", method: http.MethodGet, path: connectionListPath, tag: tag,
		summary: "List the Shelly connections of a system",
	}, a.listConnections)
	register(a, operation{
		id: "getConnection", method: http.MethodGet, path: connectionPath, tag: tag,
		summary: "Get a Shelly connection", errors: []int{404},
	}, a.getConnection)
	register(a, operation{
		id: "createConnection", method: http.MethodPost, path: connectionListPath, tag: tag, status: http.StatusCreated,
		summary: "Add a Shelly connection",
		detail: "Of kind `shelly-outbound`, the answer has the `dialInUrl` that devices are given. It is told this once: whoever lost it " +
			"makes a new one with `rotateKey`. No read and no event has a key or a code.",
		errors: []int{409, 413, 415, 422, 504},
	}, a.createConnection)
	register(a, operation{
		id: "updateConnection", method: http.MethodPatch, path: connectionPath, tag: tag, status: http.StatusAccepted,
		summary: "Change the fields that are present",
		detail: "With a new credential, `rotateKey` or `authCode`, the old one lets nothing in from the answer on, and what it let in " +
			"is dropped.",
		errors: []int{404, 409, 412, 413, 415, 422, 504},
	}, a.updateConnection)
	register(a, operation{
		id: "deleteConnection", method: http.MethodDelete, path: connectionPath, tag: tag, status: http.StatusAccepted,
		summary: "Remove a connection and its credential",
		detail:  "Its sockets are dropped. Its devices stay, with what is known of them, and may come back through another connection. " + waitsForNodes,
		errors:  []int{404, 412, 422, 504},
	}, a.deleteConnection)
	register(a, operation{
		id: "commandConnection", method: http.MethodPost, path: "/api/websocket/{connectionId}/{action}", tag: tag,
		status: http.StatusAccepted, summary: "Start, stop or restart a connection",
		detail: "A stop and a restart drop the sockets of the connection's devices in every process. " + waitsForNodes,
		errors: []int{404, 413, 415, 422, 504},
	}, a.commandConnection)
	register(a, operation{
		id: "switchRelay", method: http.MethodPost, path: devicePath + "/relay", tag: "Devices",
		status: http.StatusAccepted, summary: "Ask for a relay to be switched",
		detail: "With `wait` the answer is 200 with the `outcome` of the `relay-switch-completed` event, and an `error` unless that is " +
			"`completed`: `unknown` says that the device was asked and did not answer, so that it may have switched. When the wait is over " +
			"before there is one, the answer is 202 without an `outcome`: it is still to come.",
		errors: []int{404, 413, 415, 422, 504},
	}, a.switchRelay)
}

func (a *API) listConnections(ctx context.Context, in *listConnectionsInput) (*listConnectionsOutput, error) {
	list := listed[*domain.Connection]{
		of:   func(s *domain.Snapshot) []*domain.Connection { return s.Connections },
		id:   func(c *domain.Connection) string { return string(c.ConnectionID) },
		size: func(*domain.Connection) int { return rowBytes },
	}
	st, connections, next, err := pageOf(ctx, a, &in.InSystem, &in.Freshness, &in.Moment, &in.Paged,
		func(ctx context.Context, actor domain.Actor) (*domain.State, bool, error) {
			return a.reads.ConnectionPage(ctx, actor, in.SystemID, domain.ConnectionID(in.After), in.Limit, domain.Position{})
		}, list)
	if err != nil {
		return nil, err
	}
	out := &listConnectionsOutput{Status: http.StatusOK, ETag: entityTag(st.Cursor.Position)}
	if in.matches(out.ETag) {
		out.Status = http.StatusNotModified
		return out, nil
	}
	out.Body = new(listedConnections)
	out.Body.AsOf, out.Body.Connections, out.Body.Next = stamp(st), connections, next
	return out, nil
}

func (a *API) getConnection(ctx context.Context, in *getConnectionInput) (*getConnectionOutput, error) {
	if _, err := domain.ParseConnectionID(string(in.ConnectionID)); err != nil {
		return nil, err
	}
	st, err := a.partOf(ctx, &in.InSystem, &in.Freshness, &in.Moment, domain.Needs{Connections: []domain.ConnectionID{in.ConnectionID}})
	if err != nil {
		return nil, err
	}
	c := st.Connections[in.ConnectionID]
	if c == nil {
		return nil, domain.Fail(domain.KindNotFound, domain.CodeUnknownConnection,
			`there is no connection "`+string(in.ConnectionID)+`"`)
	}
	out := &getConnectionOutput{Status: http.StatusOK, ETag: entityTag(c.Position), Body: &connectionDetail{Connection: *c}}
	if a.refusals != nil && actorOf(ctx).Authorize(domain.ActionCommand, in.SystemID) == nil {
		out.Body.LastRefusals = a.refusals.LastRefusals(in.SystemID, in.ConnectionID)
	}
	if in.matches(out.ETag) && len(out.Body.LastRefusals) == 0 { // which the tag says nothing of
		out.Status, out.Body = http.StatusNotModified, nil
	}
	return out, nil
}

// createPatience is how long the answer to a creation waits for the read model,
// so that it can show the connection and a read that follows finds it.
const createPatience = "5s"

func (a *API) createConnection(ctx context.Context, in *createConnectionInput) (*createConnectionOutput, error) {
	if _, err := in.authorize(ctx, domain.ActionAdminister); err != nil {
		return nil, err
	}
	if isCloud := in.Body.Kind == domain.ConnectionShellyCloud; isCloud != (in.Body.AuthCode != "") {
		return nil, domain.Invalid(domain.CodeInvalidCommand, "authCode is required for a shelly-cloud connection, and for no other")
	}
	r, err := in.request(ctx, "createConnection", in.SystemID, in.Body)
	if err != nil {
		return nil, err
	}
	id := in.Body.ConnectionID
	if id == "" {
		made, err := in.newID(ctx, in.SystemID)
		if err != nil {
			return nil, err
		}
		id = domain.ConnectionID(made)
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
	changed := a.changedConnection(ctx, in.SystemID, id, &Waits{Wait: createPatience}, receipt)
	if changed.ETag == "" {
		changed.ETag = entityTag(receipt.Position)
	}
	changed.Body.DialInURL = a.dialInURL(&in.Reached, id, key)
	return &createConnectionOutput{
		Replay: changed.Replay, ETag: changed.ETag, Body: changed.Body,
		Location: "/api/v1/systems/" + string(in.SystemID) + "/connections/" + string(id),
	}, nil
}

func (a *API) updateConnection(ctx context.Context, in *updateConnectionInput) (*connectionOutput, error) {
	if _, err := in.authorize(ctx, domain.ActionAdminister); err != nil {
		return nil, err
	}
	match, err := in.Conditional.position()
	if err != nil {
		return nil, err
	}
	c := domain.UpdateConnection{IfMatch: match, ConnectionUpdated: domain.ConnectionUpdated{
		ConnectionID: in.ConnectionID, Name: in.Body.Name, Credential: in.Body.RotateKey || in.Body.AuthCode != "",
	}}
	switch {
	case in.Body.RotateKey && in.Body.AuthCode != "":
		return nil, domain.Invalid(domain.CodeInvalidCommand, "rotateKey is for a shelly-outbound connection, and authCode for a shelly-cloud one")
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
	out := a.changedConnection(ctx, in.SystemID, in.ConnectionID, &in.Waits, receipt)
	out.Body.DialInURL = a.dialInURL(&in.Reached, in.ConnectionID, key)
	return out, nil
}

func (a *API) deleteConnection(ctx context.Context, in *deleteConnectionInput) (*droppedOutput, error) {
	if _, err := in.authorize(ctx, domain.ActionAdminister); err != nil {
		return nil, err
	}
	match, err := in.Conditional.position()
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
	// What is kept is looked at before the connection is gone: afterwards it may be
	// that of another one of the same id.
	remove := func(context.Context) error { return nil }
	r.BeforeAppend = func(ctx context.Context) (err error) {
		remove, err = a.credentials.Removal(ctx, in.SystemID, in.ConnectionID)
		return err
	}
	return a.dropping(ctx, in.SystemID, &in.Waits, func() (domain.Receipt, error) {
		receipt, err := a.service.Execute(ctx, in.SystemID, c, r)
		if err != nil {
			return receipt, err
		}
		removing, cancel := context.WithTimeout(context.WithoutCancel(ctx), credentialTime)
		defer cancel()
		if err := remove(removing); err != nil {
			a.log.WarnContext(ctx, "the credential of a deleted connection is still kept; it lets nobody in", "requestId", requestID(ctx),
				"systemId", in.SystemID, "connectionId", in.ConnectionID, "error", err)
		}
		return receipt, nil
	})
}

// changedConnection is the answer to a command on a connection. When the
// connection cannot be read it is without: the command is done, and a key is told
// now or never.
func (a *API) changedConnection(ctx context.Context, system domain.SystemID, id domain.ConnectionID, w *Waits, receipt domain.Receipt) *connectionOutput {
	out := &connectionOutput{Status: http.StatusAccepted, Replay: replayOf(receipt.Replayed)}
	out.Body.CommandAnswer, out.Body.ConnectionID = answer(receipt), id
	st, err := a.settled(ctx, system, domain.Needs{Connections: []domain.ConnectionID{id}}, receipt, w)
	if err != nil {
		a.log.WarnContext(ctx, "a connection that was changed cannot be read", "requestId", requestID(ctx), "error", err)
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

func (a *API) commandConnection(ctx context.Context, in *commandConnectionInput) (*droppedOutput, error) {
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
	if c.Verb == domain.VerbStart { // drops nothing, so there is nobody to hear from
		return a.started(ctx, system, &in.Waits, command)
	}
	return a.dropping(ctx, system, &in.Waits, command)
}

// systemOf looks up whose connection it is, as work of the actor's system. A caller
// that names the system spares it.
func (a *API) systemOf(ctx context.Context, actor domain.Actor, id domain.ConnectionID) (domain.SystemID, error) {
	done, err := a.admitRead(ctx, actor.QuotaSystem(""), costRow)
	if err != nil {
		return "", err
	}
	defer done()
	return a.reads.SystemOfConnection(ctx, actor, id)
}

func (a *API) started(ctx context.Context, system domain.SystemID, in *Waits, command func() (domain.Receipt, error)) (*droppedOutput, error) {
	receipt, err := command()
	if err != nil {
		return nil, err
	}
	out := &droppedOutput{Status: http.StatusAccepted, Replay: replayOf(receipt.Replayed)}
	out.Body.CommandAnswer = answer(receipt)
	st, err := a.settled(ctx, system, domain.Needs{}, receipt, in)
	if err != nil || st == nil {
		return out, err
	}
	out.Status, out.Body.Outcome = http.StatusOK, domain.OutcomeCompleted
	return out, nil
}

func (a *API) switchRelay(ctx context.Context, in *switchRelayInput) (*switchedOutput, error) {
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
	receipt, err := a.service.Execute(ctx, in.SystemID, c, r)
	if err != nil {
		return nil, err
	}
	return a.switched(ctx, in.SystemID, &in.Waits, receipt), nil
}
