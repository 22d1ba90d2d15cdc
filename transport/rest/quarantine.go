package rest

import (
	"context"
	"net/http"

	"github.com/plugcast/plugcast/domain"
)

// Quarantine lists the log entries that could not be read or projected.
// projections.Store implements it.
type Quarantine interface {
	Quarantine(ctx context.Context, actor domain.Actor, query domain.QuarantineQuery) (domain.QuarantinePage, error)
}

type quarantineInput struct {
	TicketParam
	System domain.SystemID `query:"systemId" doc:"Only entries of this system"`
	Before string          `query:"before" maxLength:"64" doc:"The next of the previous page" example:"1795461046705-0/3"`
	Limit  int             `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"Entries per page; fewer if they are large"`
}

type quarantineOutput struct {
	Body struct {
		Entries []domain.Quarantined `json:"entries"`
		Next    string               `json:"next,omitempty" doc:"The before of the next page; absent on the last page"`
	}
}

func (a *API) registerQuarantine() {
	register(a, operation{
		id: "listQuarantine", cost: costPage, method: http.MethodGet, path: "/api/v1/quarantine", tag: "History",
		summary: "List entries that could not be read or projected",
		detail: "Only for staff. Lists the entry with the newest position first. Each entry keeps its place in the history of its system, with " +
			"the type undecodable if it could not be stored unchanged. Entries that name no system appear only here.",
	}, a.listQuarantine)
}

func (a *API) listQuarantine(ctx context.Context, in *quarantineInput) (*quarantineOutput, error) {
	done, err := a.admitStaff(ctx, in.System)
	if err != nil {
		return nil, err
	}
	defer done()
	query := domain.QuarantineQuery{System: in.System, Limit: in.Limit}
	if in.Before != "" {
		before, err := domain.ParseQuarantineCursor(in.Before)
		if err != nil {
			return nil, err
		}
		query.Before = &before
	}
	page, err := a.quarantine.Quarantine(ctx, actorOf(ctx), query)
	if err != nil {
		return nil, err
	}
	out := &quarantineOutput{}
	out.Body.Entries = append([]domain.Quarantined{}, page.Entries...)
	if n := len(page.Entries); page.More && n > 0 {
		out.Body.Next = page.Entries[n-1].Cursor().String()
	}
	return out, nil
}
