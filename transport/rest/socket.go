package rest

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/plugcast/plugcast/domain"
)

// Sockets knows the live sockets of all nodes.
type Sockets interface {
	Sockets(ctx context.Context) ([]Socket, error)
}

// Socket is one live client.
type Socket struct {
	SocketID    string            `json:"socketId"`
	Node        string            `json:"node" doc:"The process that holds it"`
	Face        string            `json:"face" doc:"ws, sse, …"`
	Subject     string            `json:"subject" doc:"Of its token"`
	Role        domain.Role       `json:"role"`
	Systems     []domain.SystemID `json:"systems" doc:"The rooms that it is in, as far as the token may see them"`
	Remote      string            `json:"remote" doc:"Network address of the peer"`
	ConnectedAt time.Time         `json:"connectedAt"`
}

type listSocketsInput struct {
	WithTicket
	Paged
	SystemID domain.SystemID `query:"systemId" doc:"Only sockets in the room of this system"`
}

type listSocketsOutput struct {
	Body struct {
		Sockets []Socket `json:"sockets"`
		Next    string   `json:"next,omitempty" doc:"Pass it as after for the next page; absent on the last"`
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
		summary: "List the live sockets of all nodes", detail: "Sockets in no room of the token's systems are left out.",
	}, a.listSockets)
	register(a, operation{
		id: "closeSocket", method: http.MethodDelete, path: "/api/v1/sockets/{socketId}", tag: "Sockets", status: http.StatusAccepted,
		summary: "Throw a socket out",
		detail: "The token must be for every system that the socket is in. A socket of staff is closed by staff; with another token it " +
			"leaves the room and lives on. With `wait` the answer is 200 when the process that holds the " +
			"socket has closed it, and says so in `nodes`; 202 with the outcome `unknown` when it did not answer in time.",
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
	all, err := a.sockets.Sockets(ctx)
	if err != nil {
		return nil, unavailable(err)
	}
	visible := make([]Socket, 0, len(all))
	for _, s := range all {
		foreign := func(system domain.SystemID) bool { return !actor.Sees(system) }
		s.Systems = slices.DeleteFunc(slices.Clone(s.Systems), foreign)
		if in.SystemID != "" && !slices.Contains(s.Systems, in.SystemID) || len(s.Systems) == 0 && actor.Role != domain.RoleStaff {
			continue
		}
		visible = append(visible, s)
	}
	slices.SortFunc(visible, func(x, y Socket) int { return cmp.Compare(x.SocketID, y.SocketID) })
	out := &listSocketsOutput{}
	out.Body.Sockets, out.Body.Next = cut(&in.Paged, visible,
		func(s Socket) string { return s.SocketID }, func(Socket) int { return rowBytes })
	return out, nil
}

func (a *API) closeSocket(ctx context.Context, in *closeSocketInput) (*droppedOutput, error) {
	actor := actorOf(ctx)
	if err := actor.AuthorizeAnywhere(domain.ActionAdminister); err != nil {
		return nil, err
	}
	all, err := a.sockets.Sockets(ctx)
	if err != nil {
		return nil, unavailable(err)
	}
	at := slices.IndexFunc(all, func(s Socket) bool { return s.SocketID == in.SocketID })
	if at < 0 || !slices.ContainsFunc(all[at].Systems, actor.Sees) && actor.Role != domain.RoleStaff {
		return nil, domain.Fail(domain.KindNotFound, CodeUnknownSocket, "no live socket has this id")
	}
	if slices.ContainsFunc(all[at].Systems, func(system domain.SystemID) bool { return !actor.Sees(system) }) {
		return nil, domain.Fail(domain.KindForbidden, domain.CodeForbidden,
			"this token may not close the socket; POST /api/v1/disconnects takes sockets out of the room of one system")
	}
	d := domain.DisconnectRequested{
		SocketID: in.SocketID, Reason: in.Reason, CloseSockets: true, Reconnect: in.Reconnect,
		EveryRoom: len(all[at].Systems) > 1 && all[at].Role != domain.RoleStaff || actor.Role == domain.RoleStaff,
	}
	if len(all[at].Systems) > 0 {
		// The node of the socket follows this system, and it is a matter of its
		// history. A socket that is in no room yet is a matter for staff.
		d.TargetSystem = all[at].Systems[0]
	}
	r, err := in.request(ctx, "closeSocket", in.SocketID, in.Reason, in.Reconnect)
	if err != nil {
		return nil, err
	}
	command := func() (domain.Receipt, error) {
		return a.service.Execute(ctx, d.RecordedIn(), domain.Disconnect{DisconnectRequested: d}, r)
	}
	return a.dropping(ctx, d.RecordedIn(), &in.Waits, command, all[at].Node)
}

func unavailable(err error) error {
	return domain.Fail(domain.KindUnavailable, domain.CodeUnavailable, "this cannot be answered now; repeat in a moment").Because(err)
}
