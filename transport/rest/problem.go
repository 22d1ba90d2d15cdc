package rest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/limit"
)

// Problem is the form of every error: RFC 9457, with a stable code.
type Problem struct {
	Type      string         `json:"type" doc:"urn:plugcast:problem: and the code"`
	Title     string         `json:"title" doc:"The status in words"`
	Status    int            `json:"status" doc:"The HTTP status"`
	Code      domain.Code    `json:"code" doc:"The stable code of the error; see the table at the top"`
	Detail    string         `json:"detail" doc:"The error in words"`
	RequestID string         `json:"requestId,omitempty" doc:"The id of the request in the server's log"`
	Fields    []ProblemField `json:"errors,omitempty" doc:"With invalid-request: the invalid parts of the request"`

	_ struct{} `additionalProperties:"true"` // the error's parameters, such as the deviceId in a conflict

	params map[string]any
	header http.Header
}

// ProblemField describes the error in one part of a request.
type ProblemField struct {
	Location string `json:"location,omitempty" doc:"The invalid part" example:"body.equipmentId"`
	Message  string `json:"message"`
}

const problemType = "application/problem+json"

// problemKeys are the members that an error's parameters cannot replace.
var problemKeys = map[string]bool{
	"type": true, "title": true, "status": true, "code": true, "detail": true, "requestId": true, "errors": true,
}

// MarshalJSON adds the error's parameters to the fixed members.
func (p *Problem) MarshalJSON() ([]byte, error) {
	type plain Problem
	b, err := json.Marshal((*plain)(p))
	if err != nil {
		return nil, err
	}
	extra := map[string]any{}
	for key, value := range p.params {
		if !problemKeys[key] {
			extra[key] = value
		}
	}
	if len(extra) == 0 {
		return b, nil
	}
	members, err := json.Marshal(extra)
	if err != nil {
		return nil, err
	}
	return append(append(b[:len(b)-1], ','), members[1:]...), nil
}

// Error implements error.
func (p *Problem) Error() string { return string(p.Code) + ": " + p.Detail }

// GetStatus implements [huma.StatusError].
func (p *Problem) GetStatus() int { return p.Status }

// GetHeaders implements [huma.HeadersError].
func (p *Problem) GetHeaders() http.Header { return p.header }

// ContentType implements [huma.ContentTypeFilter].
func (p *Problem) ContentType(string) string { return problemType }

func newProblem(ctx context.Context, status int, code domain.Code, detail string) *Problem {
	return &Problem{
		Type: "urn:plugcast:problem:" + string(code), Title: http.StatusText(status), Status: status,
		Code: code, Detail: detail, RequestID: requestID(ctx), header: http.Header{},
	}
}

// write sends the problem as the whole response.
func (p *Problem) write(w http.ResponseWriter) {
	body, err := json.Marshal(p)
	if err != nil { // a parameter cannot be encoded; send the problem without parameters
		p.params = nil
		body, _ = json.Marshal(p)
	}
	for name, values := range p.header {
		w.Header()[name] = values
	}
	w.Header().Set("Content-Type", problemType)
	w.WriteHeader(p.Status)
	_, _ = w.Write(append(body, '\n'))
}

// problemOf converts any error to a problem. It logs internal errors with their cause,
// which the caller does not get to see.
func problemOf(ctx context.Context, log *slog.Logger, err error) *Problem {
	var ready *Problem
	if errors.As(err, &ready) {
		return ready
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		if own := new(domain.Error); !errors.As(err, &own) {
			err = domain.Fail(domain.KindUnavailable, domain.CodeUnavailable, "it took too long").WithCause(err)
		}
	}
	e := domain.AsError(err)
	p := newProblem(ctx, statusOf(e), e.Code, e.Detail)
	p.params = e.Params
	switch e.Kind {
	case domain.KindInternal:
		// The detail of an internal error may reveal internals.
		p.Detail = domain.AsError(errors.New("")).Detail
		p.params = nil
		log.ErrorContext(ctx, "request failed", "requestId", p.RequestID, "error", cause(e))
	case domain.KindUnavailable, domain.KindUnknownOutcome:
		if ctx.Err() == nil || !errors.Is(err, context.Canceled) {
			log.WarnContext(ctx, "request failed", "requestId", p.RequestID, "code", e.Code, "error", cause(e))
		}
		p.header.Set("Retry-After", "1")
	case domain.KindUnauthenticated:
		p.header.Set("WWW-Authenticate", "Bearer")
	case domain.KindLimited, domain.KindForbidden: // a ban ends, too
		if ms, ok := e.Params["retryAfterMs"].(int64); ok { // the other protocols send it like this
			p.header.Set("Retry-After", retryAfter(time.Duration(ms)*time.Millisecond))
		}
	}
	return p
}

// retryAfter returns the value of Retry-After for a wait: seconds, rounded up.
func retryAfter(wait time.Duration) string {
	return strconv.Itoa(max(1, int(math.Ceil(wait.Seconds()))))
}

func cause(e *domain.Error) error {
	if inner := e.Unwrap(); inner != nil {
		return inner
	}
	return e
}

// rateLimited returns the problem for a caller that is over its rate limit. It delays
// the caller first; see [pacer].
func (a *API) rateLimited(ctx context.Context, flow domain.Flow, system domain.SystemID, wait time.Duration) *Problem {
	seconds := retryAfter(wait - a.pacer.delay(ctx))
	p := newProblem(ctx, http.StatusTooManyRequests, limit.CodeRateLimited,
		fmt.Sprintf("too many %s for system %q; try again in %s s", flow, system, seconds))
	p.header.Set("Retry-After", seconds)
	p.params = map[string]any{"flow": flow}
	return p
}

func invalidRequest(format string, args ...any) error {
	return domain.Invalid(CodeInvalidRequest, fmt.Sprintf(format, args...))
}

// huma creates an error of its own for an input that does not match the operation.
// Package variables of huma hold the constructors, and whether the case of field names
// matters; init sets them.
func init() {
	huma.ValidateStrictCasing = true
	huma.NewErrorWithContext = func(ctx huma.Context, status int, msg string, errs ...error) huma.StatusError {
		return inputProblem(ctx.Context(), status, msg, errs...)
	}
	huma.NewError = func(status int, msg string, errs ...error) huma.StatusError {
		return inputProblem(context.Background(), status, msg, errs...)
	}
}

// inputProblem converts huma's errors about an input to a problem. It leaves out the
// values that huma quotes, because they may be long or secret.
func inputProblem(ctx context.Context, status int, msg string, errs ...error) *Problem {
	for _, err := range errs {
		if p := bodyProblem(ctx, err); p != nil {
			return p
		}
	}
	switch status {
	case http.StatusRequestEntityTooLarge:
		return newProblem(ctx, status, CodeBodyTooLarge, msg)
	case http.StatusRequestTimeout:
		return newProblem(ctx, status, CodeBodyTimeout, bodyTooSlow)
	case http.StatusUnsupportedMediaType:
		return newProblem(ctx, status, CodeUnsupportedMediaType, "the body must be application/json")
	}
	p := newProblem(ctx, http.StatusBadRequest, CodeInvalidRequest, msg)
	for _, err := range errs {
		field := ProblemField{Message: err.Error()}
		if detailer, ok := err.(huma.ErrorDetailer); ok {
			detail := detailer.ErrorDetail()
			field = ProblemField{Location: detail.Location, Message: detail.Message}
		}
		p.Fields = append(p.Fields, field)
	}
	if len(p.Fields) > 0 {
		first := p.Fields[0]
		p.Detail = strings.TrimPrefix(first.Location+": "+first.Message, ": ")
	}
	return p
}

const bodyTooSlow = "the client sent the body too slowly"

// bodyProblem returns the problem for an error of reading the body, or nil for other
// errors.
func bodyProblem(ctx context.Context, err error) *Problem {
	var tooLarge *http.MaxBytesError
	var timeout interface{ Timeout() bool }
	switch {
	case errors.As(err, &tooLarge):
		return newProblem(ctx, http.StatusRequestEntityTooLarge, CodeBodyTooLarge,
			fmt.Sprintf("the body is larger than %d bytes", tooLarge.Limit))
	case errors.As(err, &timeout) && timeout.Timeout():
		return newProblem(ctx, http.StatusRequestTimeout, CodeBodyTimeout, bodyTooSlow)
	default:
		return nil
	}
}
