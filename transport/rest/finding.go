package rest

import (
	"context"
	"net/http"
	"strconv"

	"github.com/plugcast/plugcast/domain"
)

// Findings lists the findings of bridges. projections.Store implements it.
type Findings interface {
	Findings(ctx context.Context, filter domain.FindingsFilter) (*domain.FindingsReport, error)
}

type findingsInput struct {
	TicketParam
	PageParams
	System domain.SystemID `query:"systemId" doc:"Only findings about this system"`
	Link   string          `query:"link" maxLength:"64" doc:"Only findings of this bridge"`
	Since  string          `query:"since" doc:"Only findings from this time on, RFC 3339"`
}

type findingsOutput struct {
	Body struct {
		domain.FindingsReport
		Next string `json:"next,omitempty" doc:"The after of the next page; absent on the last page"`
	}
}

func (a *API) registerFindings() {
	register(a, operation{
		id: "listFindings", cost: costPage, method: http.MethodGet, path: "/api/v1/bridges/findings", tag: "Bridges",
		summary: "List the findings of bridges",
		detail: "Only for staff. A finding is something that a bridge to a Socket.IO server could not pass on for certain, or a difference " +
			"that it found while it only compares: a gap, a rejected payload, an event that differs. Lists the oldest first. Counts begin " +
			"with the first finding.",
	}, a.listFindings)
}

func (a *API) listFindings(ctx context.Context, in *findingsInput) (*findingsOutput, error) {
	done, err := a.admitStaff(ctx, in.System)
	if err != nil {
		return nil, err
	}
	defer done()
	filter := domain.FindingsFilter{System: in.System, Link: in.Link, Limit: in.Limit}
	if in.Since != "" {
		if filter.Since, err = domain.ParseTime(in.Since); err != nil {
			return nil, domain.Invalid(CodeInvalidRequest, "since must be an RFC 3339 time")
		}
	}
	if in.After != "" {
		if filter.After, err = strconv.ParseUint(in.After, 10, 63); err != nil {
			return nil, domain.Invalid(CodeInvalidRequest, "after must be the next of an earlier page")
		}
	}
	report, err := a.findings.Findings(ctx, filter)
	if err != nil {
		return nil, unavailable(err)
	}
	out := &findingsOutput{}
	out.Body.FindingsReport = *report
	if n := len(report.Findings); report.More && n > 0 {
		out.Body.Next = strconv.FormatUint(report.Findings[n-1].ID, 10)
	}
	return out, nil
}
