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

// Problem is every error of this face: RFC 9457, with a stable code.
type Problem struct {
	Type      string         `json:"type" doc:"urn:plugcast:problem: and the code"`
	Title     string         `json:"title" doc:"The status in words"`
	Status    int            `json:"status" doc:"The HTTP status"`
	Code      domain.Code    `json:"code" doc:"What went wrong, stable; see the table at the top"`
	Detail    string         `json:"detail" doc:"The same for people"`
	RequestID string         `json:"requestId,omitempty" doc:"Finds the request in the log"`
	Fields    []ProblemField `json:"errors,omitempty" doc:"With invalid-request: what is wrong where"`

	_ struct{} `additionalProperties:"true"` // the facts of an error, such as the holder in a conflict

	params map[string]any
	header http.Header
}

// ProblemField says what is wrong with one part of a request.
type ProblemField struct {
	Location string `json:"location,omitempty" doc:"Such as body.equipmentId or query.limit"`
	Message  string `json:"message"`
}

const problemType = "application/problem+json"

// problemKeys are the members that the facts of an error cannot take over.
var problemKeys = map[string]bool{
	"type": true, "title": true, "status": true, "code": true, "detail": true, "requestId": true, "errors": true,
}

// MarshalJSON writes the facts of the error beside the fixed members.
func (p *Problem) MarshalJSON() ([]byte, error) {
	type plain Problem
	b, err := json.Marshal((*plain)(p))
	if err != nil {
		return nil, err
	}
	more := map[string]any{}
	for key, value := range p.params {
		if !problemKeys[key] {
			more[key] = value
		}
	}
	if len(more) == 0 {
		return b, nil
	}
	facts, err := json.Marshal(more)
	if err != nil {
		return nil, err
	}
	return append(append(b[:len(b)-1], ','), facts[1:]...), nil
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
	if err != nil { // a fact that cannot be JSON; the rest still can
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

// problemOf turns any error into a problem. What is a fault of ours is logged
// with its cause, because the caller is not told.
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
		// A known error of this kind may still speak of the inside.
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
	case domain.KindLimited, domain.KindForbidden: // a banned client may come back later
		if ms, ok := e.Params["retryAfterMs"].(int64); ok { // as the other faces say it
			p.header.Set("Retry-After", retryAfter(time.Duration(ms)*time.Millisecond))
		}
	}
	return p
}

// retryAfter is the header for a wait: whole seconds, and not too few.
func retryAfter(wait time.Duration) string {
	return strconv.Itoa(max(1, int(math.Ceil(wait.Seconds()))))
}

func cause(e *domain.Error) error {
	if inner := e.Unwrap(); inner != nil {
		return inner
	}
	return e
}

// limited makes the problem for a caller that must wait. It holds the caller back for
// a moment first; see [pacer].
func (a *API) limited(ctx context.Context, flow domain.Flow, system domain.SystemID, wait time.Duration) *Problem {
	seconds := retryAfter(wait - a.pacer.hold(ctx, wait))
	p := newProblem(ctx, http.StatusTooManyRequests, limit.CodeRateLimited,
		fmt.Sprintf("too many %s for system %q; come back in %s s", flow, system, seconds))
	p.header.Set("Retry-After", seconds)
	p.params = map[string]any{"flow": flow}
	return p
}

func invalidRequest(format string, args ...any) error {
	return domain.Invalid(CodeInvalidRequest, fmt.Sprintf(format, args...))
}

// huma makes errors of its own, for what does not fit an operation's input.
// Where they are made is a variable of that package, and so is whether it takes
// a field name in any case; they are set once here.
func init() {
	huma.ValidateStrictCasing = true
	huma.NewErrorWithContext = func(ctx huma.Context, status int, msg string, errs ...error) huma.StatusError {
		return inputProblem(ctx.Context(), status, msg, errs...)
	}
	huma.NewError = func(status int, msg string, errs ...error) huma.StatusError {
		return inputProblem(context.Background(), status, msg, errs...)
	}
}

// inputProblem says in our words what huma found wrong with an input. The values
// that it quotes are left out: they may be long, or secret.
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
		return newProblem(ctx, status, CodeBodyTimeout, "the body came too slowly")
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

// bodyProblem is what went wrong while a body was read, or nil.
func bodyProblem(ctx context.Context, err error) *Problem {
	var tooLarge *http.MaxBytesError
	var timeout interface{ Timeout() bool }
	switch {
	case errors.As(err, &tooLarge):
		return newProblem(ctx, http.StatusRequestEntityTooLarge, CodeBodyTooLarge,
			fmt.Sprintf("the body is larger than %d bytes", tooLarge.Limit))
	case errors.As(err, &timeout) && timeout.Timeout():
		return newProblem(ctx, http.StatusRequestTimeout, CodeBodyTimeout, "the body came too slowly")
	default:
		return nil
	}
}
