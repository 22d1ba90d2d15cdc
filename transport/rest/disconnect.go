package rest

import (
	"context"
	"net/http"
	"time"

	"github.com/plugcast/plugcast/domain"
)

type disconnectInput struct {
	TicketParam
	CommandInput
	Body struct {
		// An empty or null selector is refused, because it would match everything.
		SystemID  domain.Optional[string] `json:"systemId,omitzero" nullable:"false" doc:"Sockets in this system's room" example:"clinica-sol"`
		Subject   domain.Optional[string] `json:"subject,omitzero" nullable:"false" maxLength:"256" doc:"Sockets whose token has this sub"`
		Role      domain.Optional[string] `json:"role,omitzero" nullable:"false" enum:"viewer,operator,auditor,admin,service,bridge,staff"`
		Reason    string                  `json:"reason,omitempty" maxLength:"256" doc:"Sent to the clients, and kept in the event"`
		Reconnect bool                    `json:"reconnect,omitempty" doc:"Whether the clients may reconnect at once; not with banFor"`
		BanFor    string                  `json:"banFor,omitempty" doc:"How long to refuse every matching client, at most 24h" example:"10m"`
	}
}

func (a *API) registerDisconnects() {
	register(a, operation{
		id: "disconnect", method: http.MethodPost, path: "/api/v1/disconnects", tag: "Sockets", status: http.StatusAccepted,
		summary: "Disconnect all sockets of a system, a subject or a role",
		detail: "Disconnects every socket that matches all of the given selectors: in the room of the system, with a token of the subject, " +
			"with a token of the role. Give at least one of `systemId`, `subject` and `role`. Only staff may leave out `systemId`. " +
			"With `banFor` the server also refuses every matching client until the ban ends: its joins of the system, if `systemId` is " +
			"given, and all of its live connections otherwise. With `systemId`, a socket that is also in rooms of other systems, or that " +
			"belongs to staff, leaves the room of that system and stays open. A ban of a system does not apply to staff. A ban applies " +
			"to live connections and event streams, not to other HTTP requests. " + waitsForNodes,
		errors: []int{413, 415, 422, 504},
	}, a.disconnect)
}

func (a *API) disconnect(ctx context.Context, in *disconnectInput) (*disconnectOutput, error) {
	actor := actorOf(ctx)
	if err := actor.AuthorizeAnywhere(domain.ActionAdminister); err != nil {
		return nil, err
	}
	for name, field := range map[string]domain.Optional[string]{
		"systemId": in.Body.SystemID, "subject": in.Body.Subject, "role": in.Body.Role,
	} {
		if err := rejectEmpty(name, field); err != nil {
			return nil, err
		}
	}
	system, _ := in.Body.SystemID.Get()
	subject, _ := in.Body.Subject.Get()
	role, _ := in.Body.Role.Get()
	d := domain.DisconnectRequested{
		TargetSystem: domain.SystemID(system), Subject: subject, Role: domain.Role(role), Reason: in.Body.Reason,
		CloseSockets: true, Reconnect: in.Body.Reconnect,
	}
	switch {
	case d.TargetSystem != "":
		if _, err := domain.ParseSystemID(string(d.TargetSystem)); err != nil {
			return nil, err
		}
	case d.Subject == "" && d.Role == "":
		return nil, domain.Invalid(domain.CodeInvalidCommand, "give at least one of systemId, subject and role")
	case actor.Role != domain.RoleStaff:
		return nil, domain.Fail(domain.KindForbidden, domain.CodeForbidden, "only staff may leave systemId out")
	}
	if err := in.setBan(&d); err != nil {
		return nil, err
	}
	r, err := in.request(ctx, "disconnect", in.Body)
	if err != nil {
		return nil, err
	}
	command := func() (domain.Receipt, error) {
		return a.service.Execute(ctx, d.RecordedIn(), domain.Disconnect{DisconnectRequested: d}, r)
	}
	return a.disconnectAndWait(ctx, d.RecordedIn(), &in.WaitParam, command)
}

// rejectEmpty refuses a member that is empty or null: a client that did not fill it in
// does not mean to match everything.
func rejectEmpty(name string, field domain.Optional[string]) error {
	if value, _ := field.Get(); value == "" && !field.IsZero() {
		return domain.Invalid(CodeInvalidRequest, "body."+name+": must not be empty or null; leave it out instead")
	}
	return nil
}

// setBan sets the end of the ban, if the caller asks for one.
func (in *disconnectInput) setBan(d *domain.DisconnectRequested) error {
	if in.Body.BanFor == "" {
		return nil
	}
	wait, err := time.ParseDuration(in.Body.BanFor)
	switch {
	case err != nil || wait <= 0 || wait > domain.MaxBan:
		return domain.Invalid(domain.CodeInvalidCommand, "banFor must be a duration of more than 0s and at most 24h, such as 10m")
	case d.Reconnect:
		return domain.Invalid(domain.CodeInvalidCommand, "reconnect and banFor cannot be combined")
	}
	until := time.Now().Add(wait).UTC().Truncate(time.Millisecond)
	d.BanUntil = &until
	return nil
}
