package rest

import (
	"context"
	"net/http"

	"github.com/plugcast/plugcast/domain"
)

// DeadLetters lists the events whose reaction a process gave up.
type DeadLetters interface {
	// List returns at most limit dead letters of a system, or of all systems for "",
	// newest first.
	List(ctx context.Context, system domain.SystemID, limit int) ([]domain.DeadLetter, error)
}

type deadLettersInput struct {
	TicketParam
	SystemID domain.SystemID `query:"systemId" doc:"Only dead letters of this system"`
	Limit    int             `query:"limit" minimum:"1" maximum:"1000" default:"100"`
}

type deadLettersOutput struct {
	Body struct {
		DeadLetters []domain.DeadLetter `json:"deadLetters"`
	}
}

func (a *API) registerDeadLetters() {
	register(a, operation{
		id: "listDeadLetters", cost: costPage, method: http.MethodGet, path: "/api/v1/dead-letters", tag: "Sockets",
		summary: "List the events that processes could not react to",
		detail: "Only for staff. Lists the newest first. A process reacts to commands: it drops sockets, switches relays and admits devices. " +
			"It retries a reaction that fails, and gives it up after the last try. The newest 100 of each system are kept for 7 days " +
			"after the last one. The events themselves stay in history.",
	}, a.listDeadLetters)
}

func (a *API) listDeadLetters(ctx context.Context, in *deadLettersInput) (*deadLettersOutput, error) {
	done, err := a.admitStaff(ctx, in.SystemID)
	if err != nil {
		return nil, err
	}
	defer done()
	letters, err := a.deadLetters.List(ctx, in.SystemID, in.Limit)
	if err != nil {
		return nil, unavailable(err)
	}
	out := &deadLettersOutput{}
	out.Body.DeadLetters = letters
	return out, nil
}
