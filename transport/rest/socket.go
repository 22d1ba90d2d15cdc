package rest

import (
	"context"
	"net/http"
	"slices"

	"github.com/plugcast/plugcast/domain"
)

// Sockets lists the live sockets of all nodes.
type Sockets interface {
	// Page returns the sockets with ids greater than after, in order of id, that are in
	// the room of one of the systems; with nil for systems, it returns all sockets. It
	// examines at most limit sockets. next is the id after which the next page begins,
	// or "" on the last page.
	Page(ctx context.Context, systems []domain.SystemID, after string, limit int) (page []domain.Socket, next string, err error)
	// Find returns a socket, and whether it exists.
	Find(ctx context.Context, id string) (domain.Socket, bool, error)
}

type listSocketsInput struct {
	TicketParam
	PageParams
	SystemID domain.SystemID `query:"systemId" doc:"Only sockets in the room of this system"`
}

type listSocketsOutput struct {
	Body struct {
		Sockets []domain.Socket `json:"sockets"`
		Next    string          `json:"next,omitempty" doc:"The after of the next page; absent on the last page"`
	}
}

type closeSocketInput struct {
	TicketParam
	CommandInput
	SocketID  string `path:"socketId" maxLength:"128"`
	Reason    string `query:"reason" maxLength:"256" doc:"Sent to the client, and kept in the event"`
	Reconnect bool   `query:"reconnect" doc:"Whether the client may reconnect at once"`
}

func (a *API) registerSockets() {
	register(a, operation{
		id: "listSockets", cost: costPage, method: http.MethodGet, path: "/api/v1/sockets", tag: "Sockets",
		summary: "List the live sockets of all nodes",
		detail: "Lists them in order of id. Leaves out sockets that are in no room of the token's systems, so a page may have fewer than " +
			"`limit`.",
	}, a.listSockets)
	register(a, operation{
		id: "closeSocket", method: http.MethodDelete, path: "/api/v1/sockets/{socketId}", tag: "Sockets", status: http.StatusAccepted,
		summary: "Disconnect a socket",
		detail: "The token must cover every system that the socket is in. Only staff can close a socket of staff; with another token the " +
			"socket leaves the room and stays open. With `wait`, the answer is 200 with the node under `nodes` when the process that holds " +
			"the socket has closed it, and 202 with outcome `unknown` if that process does not answer in time.",
		errors: []int{404, 422, 504},
	}, a.closeSocket)
}

func (a *API) listSockets(ctx context.Context, in *listSocketsInput) (*listSocketsOutput, error) {
	actor := actorOf(ctx)
	if err := actor.AuthorizeAnywhere(domain.ActionAdminister); err != nil {
		return nil, err
	}
	if in.SystemID != "" {
		if _, err := domain.ParseSystemID(string(in.SystemID)); err != nil {
			return nil, err
		}
		if err := actor.Authorize(domain.ActionAdminister, in.SystemID); err != nil {
			return nil, err
		}
	}
	// Staff and tokens for all systems see every socket. account is the system to which
	// the read counts.
	var rooms []domain.SystemID
	var account domain.SystemID
	switch {
	case in.SystemID != "":
		rooms, account = []domain.SystemID{in.SystemID}, in.SystemID
	case actor.Role != domain.RoleStaff && !actor.AllSystems:
		rooms = append([]domain.SystemID{}, actor.Systems...)
		if len(rooms) > 0 {
			account = rooms[0]
		}
	}
	page, next, err := a.pageOfSockets(ctx, account, rooms, &in.PageParams)
	if err != nil {
		return nil, err
	}
	out := &listSocketsOutput{}
	out.Body.Sockets, out.Body.Next = make([]domain.Socket, 0, len(page)), next
	for _, s := range page {
		foreign := func(system domain.SystemID) bool { return !actor.Sees(system) }
		s.Systems = slices.DeleteFunc(slices.Clone(s.Systems), foreign)
		if in.SystemID != "" && !slices.Contains(s.Systems, in.SystemID) || len(s.Systems) == 0 && actor.Role != domain.RoleStaff {
			continue
		}
		out.Body.Sockets = append(out.Body.Sockets, s)
	}
	return out, nil
}

// pageOfSockets reads a page. The read counts as one of the account's.
func (a *API) pageOfSockets(
	ctx context.Context, account domain.SystemID, rooms []domain.SystemID, in *PageParams,
) (page []domain.Socket, next string, err error) {
	done, err := a.admitRead(ctx, account, costPage)
	if err != nil {
		return nil, "", err
	}
	defer done()
	if page, next, err = a.sockets.Page(ctx, rooms, in.After, in.Limit); err != nil {
		return nil, "", unavailable(err)
	}
	return page, next, nil
}

func (a *API) closeSocket(ctx context.Context, in *closeSocketInput) (*disconnectOutput, error) {
	actor := actorOf(ctx)
	if err := actor.AuthorizeAnywhere(domain.ActionAdminister); err != nil {
		return nil, err
	}
	socket, live, err := a.findSocket(ctx, actor, in.SocketID)
	if err != nil {
		return nil, err
	}
	if !live || !slices.ContainsFunc(socket.Systems, actor.Sees) && actor.Role != domain.RoleStaff {
		return nil, domain.Fail(domain.KindNotFound, CodeUnknownSocket, "no live socket has this id")
	}
	if slices.ContainsFunc(socket.Systems, func(system domain.SystemID) bool { return !actor.Sees(system) }) {
		return nil, domain.Fail(domain.KindForbidden, domain.CodeForbidden,
			"this token may not close the socket; POST /api/v1/disconnects takes sockets out of the room of one system")
	}
	d := domain.DisconnectRequested{
		SocketID: in.SocketID, Reason: in.Reason, CloseSockets: true, Reconnect: in.Reconnect,
		EveryRoom: len(socket.Systems) > 1 && socket.Role != domain.RoleStaff || actor.Role == domain.RoleStaff,
	}
	if len(socket.Systems) > 0 {
		// The node of the socket reads this system's events. The platform's log gets the
		// event of a socket that is in no room yet.
		d.TargetSystem = socket.Systems[0]
	}
	r, err := in.request(ctx, "closeSocket", in.SocketID, in.Reason, in.Reconnect)
	if err != nil {
		return nil, err
	}
	command := func() (domain.Receipt, error) {
		return a.service.Execute(ctx, d.RecordedIn(), domain.Disconnect{DisconnectRequested: d}, r)
	}
	return a.disconnectAndWait(ctx, d.RecordedIn(), &in.WaitParam, command, socket.Node)
}

// findSocket looks up a socket. The lookup counts as a read of the actor's system.
func (a *API) findSocket(ctx context.Context, actor domain.Actor, id string) (socket domain.Socket, live bool, err error) {
	done, err := a.admitRead(ctx, actor.QuotaSystem(""), costRow)
	if err != nil {
		return domain.Socket{}, false, err
	}
	defer done()
	if socket, live, err = a.sockets.Find(ctx, id); err != nil {
		return domain.Socket{}, false, unavailable(err)
	}
	return socket, live, nil
}

// unavailable wraps an error of a dependency. The caller can repeat the request.
func unavailable(err error) error {
	return domain.Fail(domain.KindUnavailable, domain.CodeUnavailable, "a part of the server is down; try again in a moment").WithCause(err)
}
