package rest

import (
	"context"
	"net/http"
	"time"
)

type createTicketInput struct{ WithTicket }

type createTicketOutput struct {
	Body struct {
		Ticket    string    `json:"ticket" doc:"Put it in ?ticket= of a WebSocket or event stream URL, once"`
		ExpiresAt time.Time `json:"expiresAt" doc:"Until when it must be used"`
	}
}

func (a *API) registerTickets() {
	register(a, operation{
		id: "createTicket", method: http.MethodPost, path: "/api/v1/tickets", tag: "Tickets", status: http.StatusCreated,
		summary: "Get a ticket for one use in a URL",
		detail:  "It stands for the token of this request, for 30 s. What it opens lives as long as the token.",
	}, a.createTicket)
}

func (a *API) createTicket(ctx context.Context, _ *createTicketInput) (*createTicketOutput, error) {
	ticket, expires, err := a.tickets.Issue(ctx, actorOf(ctx))
	if err != nil {
		return nil, unavailable(err)
	}
	out := &createTicketOutput{}
	out.Body.Ticket, out.Body.ExpiresAt = ticket, expires.UTC()
	return out, nil
}
