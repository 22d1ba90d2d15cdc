package rest

import (
	"context"
	"net/http"
	"time"

	"github.com/plugcast/plugcast/domain"
)

type disconnectInput struct {
	WithTicket
	CommandInput
	Body struct {
		// What is given and empty, or null, is refused: it would pass for all of them.
		SystemID  domain.Optional[string] `json:"systemId,omitzero" nullable:"false" doc:"Sockets in the room of this system. Only staff may leave it out" example:"clinica-sol"`
		Subject   domain.Optional[string] `json:"subject,omitzero" nullable:"false" maxLength:"256" doc:"Sockets whose token has this sub"`
		Role      domain.Optional[string] `json:"role,omitzero" nullable:"false" enum:"viewer,operator,auditor,admin,service,bridge,staff" doc:"Sockets whose token has this role"`
		Reason    string                  `json:"reason,omitempty" maxLength:"256" doc:"Told to the clients, and kept in the event"`
		Reconnect bool                    `json:"reconnect,omitempty" doc:"Whether the clients may come back at once; not together with banFor"`
		BanFor    string                  `json:"banFor,omitempty" doc:"Refuse the return of all who match for this long, at most 24h" example:"10m"`
	}
}

func (a *API) registerDisconnects() {
	register(a, operation{
		id: "disconnect", method: http.MethodPost, path: "/api/v1/disconnects", tag: "Sockets", status: http.StatusAccepted,
		summary: "Throw out all sockets of a system, a subject or a role",
		detail: "Sockets are thrown out that match all that is given; at least one of `systemId`, `subject` and `role` is. With `banFor` " +
			"their owners, and everybody else who matches, are kept out until it ends: of the system, if one is given, and of every live " +
			"connection otherwise. With `systemId`, a socket that is in rooms of other systems as well, or is staff's, leaves the room " +
			"of that system and lives on; nor does a ban of a system keep staff out. HTTP requests other than the event stream are not " +
			"banned. " + waitsForNodes,
		errors: []int{413, 415, 422, 504},
	}, a.disconnect)
}

func (a *API) disconnect(ctx context.Context, in *disconnectInput) (*droppedOutput, error) {
	actor := actorOf(ctx)
	if err := actor.AuthorizeAnywhere(domain.ActionAdminister); err != nil {
		return nil, err
	}
	for name, field := range map[string]domain.Optional[string]{
		"systemId": in.Body.SystemID, "subject": in.Body.Subject, "role": in.Body.Role,
	} {
		if err := filled(name, field); err != nil {
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
	if err := in.ban(&d); err != nil {
		return nil, err
	}
	r, err := in.request(ctx, "disconnect", in.Body)
	if err != nil {
		return nil, err
	}
	command := func() (domain.Receipt, error) {
		return a.service.Execute(ctx, d.RecordedIn(), domain.Disconnect{DisconnectRequested: d}, r)
	}
	return a.dropping(ctx, d.RecordedIn(), &in.Waits, command)
}

// filled refuses a member that chooses something and is there without saying what: a
// client that did not fill it in does not mean everything.
func filled(name string, field domain.Optional[string]) error {
	if value, _ := field.Get(); value == "" && !field.IsZero() {
		return domain.Invalid(CodeInvalidRequest, "body."+name+": must not be empty or null; leave it out when it is not meant")
	}
	return nil
}

// ban works out until when the return is refused.
func (in *disconnectInput) ban(d *domain.DisconnectRequested) error {
	if in.Body.BanFor == "" {
		return nil
	}
	wait, err := time.ParseDuration(in.Body.BanFor)
	switch {
	case err != nil || wait <= 0 || wait > domain.MaxBan:
		return domain.Invalid(domain.CodeInvalidCommand, "banFor must be a duration of more than 0s and at most 24h, such as 10m")
	case d.Reconnect:
		return domain.Invalid(domain.CodeInvalidCommand, "reconnect and banFor exclude each other")
	}
	until := time.Now().Add(wait).UTC().Truncate(time.Millisecond)
	d.BanUntil = &until
	return nil
}
