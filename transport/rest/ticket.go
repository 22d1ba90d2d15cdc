package rest

import (
	"context"
	"net/http"
	"time"

	"github.com/plugcast/plugcast/domain"
)

type createTicketInput struct {
	TicketParam
	Body *struct {
		Stream domain.Optional[string] `json:"stream,omitzero" nullable:"false" doc:"The system of an event stream" example:"clinica-sol"`
	}
}

type createTicketOutput struct {
	Body struct {
		Ticket    string    `json:"ticket" doc:"Put it in ?ticket= of a WebSocket or event stream URL"`
		ExpiresAt time.Time `json:"expiresAt" doc:"When the ticket expires"`
	}
}

func (a *API) registerTickets() {
	register(a, operation{
		id: "createTicket", method: http.MethodPost, path: "/api/v1/tickets", tag: "Tickets", status: http.StatusCreated,
		summary: "Get a ticket for a URL",
		detail: "A ticket replaces the token of this request for one use within 30 s. The connection that it opens ends when the token " +
			"expires. With `stream`, the ticket opens only the event stream of that system, any number of times until the token expires, so that " +
			"an `EventSource` can reconnect with it.",
		errors: []int{413, 415},
	}, a.createTicket)
}

func (a *API) createTicket(ctx context.Context, in *createTicketInput) (*createTicketOutput, error) {
	issue := a.tickets.Issue
	if in.Body != nil && !in.Body.Stream.IsZero() {
		if err := rejectEmpty("stream", in.Body.Stream); err != nil {
			return nil, err // rather than a ticket that opens more than the caller meant
		}
		stream, _ := in.Body.Stream.Get()
		system := domain.SystemID(stream)
		if _, err := (&InSystem{SystemID: system}).authorize(ctx, domain.ActionRead); err != nil {
			return nil, err
		}
		issue = func(ctx context.Context, actor domain.Actor) (string, time.Time, error) {
			return a.tickets.IssueStream(ctx, actor, system)
		}
	}
	ticket, expires, err := issue(ctx, actorOf(ctx))
	if err != nil {
		return nil, unavailable(err)
	}
	out := &createTicketOutput{}
	out.Body.Ticket, out.Body.ExpiresAt = ticket, expires.UTC()
	return out, nil
}
