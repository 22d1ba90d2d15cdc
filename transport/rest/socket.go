package rest

import (
	"context"
	"net/http"
	"slices"

	"github.com/plugcast/plugcast/domain"
)

// Sockets knows the live sockets of all nodes.
type Sockets interface {
	// Page returns sockets in the order of their ids: those behind the id after that
	// are in the room of one of the systems, or all for nil. It looks at no more than
	// limit. next is what the next page begins after, "" on the last.
	Page(ctx context.Context, systems []domain.SystemID, after string, limit int) (page []domain.Socket, next string, err error)
	// Find returns a socket, and whether there is one.
	Find(ctx context.Context, id string) (domain.Socket, bool, error)
}

type listSocketsInput struct {
	WithTicket
	Paged
	SystemID domain.SystemID `query:"systemId" doc:"Only sockets in the room of this system"`
}

type listSocketsOutput struct {
	Body struct {
		Sockets []domain.Socket `json:"sockets"`
		Next    string          `json:"next,omitempty" doc:"Pass it as after for the next page; absent on the last"`
	}
}

type closeSocketInput struct {
	WithTicket
	CommandInput
	SocketID  string `path:"socketId" maxLength:"128"`
	Reason    string `query:"reason" maxLength:"256" doc:"Told to the client, and kept in the event"`
	Reconnect bool   `query:"reconnect" doc:"Whether the client may come back at once"`
}

func (a *API) registerSockets() {
	register(a, operation{
		id: "listSockets", method: http.MethodGet, path: "/api/v1/sockets", tag: "Sockets",
		summary: "List the live sockets of all nodes",
		detail: "Lists them in the order of their ids. Sockets that are in no room of the token's systems are left out, so a page may have " +
			"fewer than limit.",
	}, a.listSockets)
	register(a, operation{
		id: "closeSocket", method: http.MethodDelete, path: "/api/v1/sockets/{socketId}", tag: "Sockets", status: http.StatusAccepted,
		summary: "Disconnect a socket",
		detail: "The token must be for every system that the socket is in. Only staff can close a socket of staff; with another token the " +
			"socket leaves the room and stays open. With `wait` the answer is 200, with the node under `nodes`, when the process that holds " +
			"the socket has closed it, and 202 with the outcome `unknown` when that process did not answer in time.",
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
	// The rooms that are asked for, and whose work that is: staff and tokens for all
	// systems look at every socket.
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
	page, next, err := a.pageOfSockets(ctx, account, rooms, &in.Paged)
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

// pageOfSockets reads a page as work of the system.
func (a *API) pageOfSockets(
	ctx context.Context, account domain.SystemID, rooms []domain.SystemID, in *Paged,
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

func (a *API) closeSocket(ctx context.Context, in *closeSocketInput) (*droppedOutput, error) {
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
		// The node of the socket follows this system, and it is a matter of its
		// history. A socket that is in no room yet is a matter for staff.
		d.TargetSystem = socket.Systems[0]
	}
	r, err := in.request(ctx, "closeSocket", in.SocketID, in.Reason, in.Reconnect)
	if err != nil {
		return nil, err
	}
	command := func() (domain.Receipt, error) {
		return a.service.Execute(ctx, d.RecordedIn(), domain.Disconnect{DisconnectRequested: d}, r)
	}
	return a.dropping(ctx, d.RecordedIn(), &in.Waits, command, socket.Node)
}

// findSocket looks a socket up, as work of the actor's system.
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

func unavailable(err error) error {
	return domain.Fail(domain.KindUnavailable, domain.CodeUnavailable, "this cannot be answered now; repeat in a moment").WithCause(err)
}
