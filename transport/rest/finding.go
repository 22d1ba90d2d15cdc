package rest

import (
	"context"
	"net/http"
	"strconv"

	"github.com/plugcast/plugcast/domain"
)

// Findings is what bridges report. projections.Store is one.
type Findings interface {
	Findings(ctx context.Context, filter domain.FindingsFilter) (*domain.FindingsReport, error)
}

type findingsInput struct {
	WithTicket
	Paged
	System domain.SystemID `query:"systemId" doc:"Only what is about this system"`
	Link   string          `query:"link" maxLength:"64" doc:"Only what this bridge reports"`
	Since  string          `query:"since" doc:"Only what was found at or after this time, RFC 3339"`
}

type findingsOutput struct {
	Body struct {
		domain.FindingsReport
		Next string `json:"next,omitempty" doc:"Pass it as after for the next page; absent on the last"`
	}
}

func (a *API) registerFindings() {
	register(a, operation{
		id: "listFindings", method: http.MethodGet, path: "/api/v1/bridges/findings", tag: "Bridges",
		summary: "List what bridges report",
		detail: "For staff. What a bridge to a Socket.IO server could not pass on for certain, or what differs where it only compares: gaps, " +
			"rejected payloads, differences event for event. The oldest come first; counts are since the beginning.",
	}, a.listFindings)
}

func (a *API) listFindings(ctx context.Context, in *findingsInput) (*findingsOutput, error) {
	if err := actorOf(ctx).AuthorizeAnywhere(domain.ActionMonitor); err != nil {
		return nil, err
	}
	filter := domain.FindingsFilter{Link: in.Link, Limit: in.Limit}
	var err error
	if in.System != "" {
		if filter.System, err = domain.ParseSystemID(string(in.System)); err != nil {
			return nil, err
		}
	}
	if in.Since != "" {
		if filter.Since, err = domain.ParseTime(in.Since); err != nil {
			return nil, domain.Invalid(CodeInvalidRequest, "since must be a time in RFC 3339")
		}
	}
	if in.After != "" {
		if filter.After, err = strconv.ParseUint(in.After, 10, 63); err != nil {
			return nil, domain.Invalid(CodeInvalidRequest, "after must be the next of an earlier page")
		}
	}
	done, err := a.admitRead(ctx, filter.System, costPage)
	if err != nil {
		return nil, err
	}
	defer done()
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
