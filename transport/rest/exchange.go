package rest

import (
	"context"
	"errors"
	"io"
	"net/http"
	"runtime"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/domain/isolate"
)

// The limits of one request.
const (
	maxCommandBody = 64 << 10         // bytes
	maxBatchBody   = 8 << 20          // bytes
	maxDrain       = 24 << 20         // bytes that the server reads and discards of a body that is too large
	bodyTimeout    = 20 * time.Second // for reading the whole body
	operationTime  = 30 * time.Second // for an operation, besides the time that its caller asks it to wait
)

type contextKey int

const (
	requestIDKey contextKey = iota
	actorKey
	unsentKey
)

// requestID returns the id of the request that ctx belongs to, or "".
func requestID(ctx context.Context) string {
	id, _ := ctx.Value(requestIDKey).(string)
	return id
}

// ServeHTTP answers one request. The caller gets a response with a request id even if
// the handler panics, and the process survives the panic.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id := r.Header.Get("X-Request-Id")
	if !isRequestID(id) {
		id = uuid.NewString()
	}
	ctx := context.WithValue(r.Context(), requestIDKey, id)
	answer := &unsentAnswer{}
	defer answer.release() // also after a panic
	ctx = context.WithValue(ctx, unsentKey, answer)
	out := &response{ResponseWriter: w, bodiless: r.Body == nil || r.Body == http.NoBody}
	in := r.WithContext(ctx)
	in.Body = &boundedBody{ReadCloser: r.Body, limit: bodyLimit(r), left: bodyLimit(r), expects: r.Header.Get("Expect") != ""}
	out.Header().Set("X-Request-Id", id)
	out.Header().Set("X-Content-Type-Options", "nosniff")
	out.Header().Set("Cache-Control", "no-store")
	began := time.Now()
	defer func() {
		if fault := recover(); fault != nil {
			a.handlePanic(out, in, fault)
		}
		// The log gets the route instead of the path, because a path can contain a key,
		// for example that of a mistyped dial-in URL.
		a.log.DebugContext(ctx, "request", "requestId", id, "method", r.Method, "route", out.route,
			"status", out.status, "took", time.Since(began))
	}()
	if a.crossOrigin(out, in) {
		return
	}
	if p := checkURLText(ctx, in); p != nil {
		p.write(out)
		return
	}
	a.route(out, in)
}

// route calls the operation. If there is none, it turns the mux's answer, which is
// plain text, into a problem document.
func (a *API) route(w *response, r *http.Request) {
	handler, pattern := a.mux.Handler(r)
	if pattern != "" {
		w.route = pattern
		a.mux.ServeHTTP(w, r) // matches again, because only this sets the path values
		return
	}
	answer := &discardResponse{header: http.Header{}}
	handler.ServeHTTP(answer, r)
	p := newProblem(r.Context(), http.StatusNotFound, CodeNotFound, "no such path; see /docs for the API")
	if answer.status == http.StatusMethodNotAllowed {
		allow := answer.header.Get("Allow")
		p = newProblem(r.Context(), answer.status, CodeMethodNotAllowed, "this path supports "+allow)
		p.header.Set("Allow", allow)
	}
	p.write(w)
}

func (a *API) handlePanic(w *response, r *http.Request, fault any) {
	if err, is := fault.(error); is && errors.Is(err, http.ErrAbortHandler) {
		panic(fault) // tells the server to close the connection
	}
	if err, is := fault.(error); is && r.Context().Err() != nil && !errors.As(err, new(runtime.Error)) {
		return // the caller is gone; huma panics with the error of its write
	}
	isolate.Recovered(a.log.With("requestId", requestID(r.Context()), "method", r.Method, "route", w.route), "rest", fault)
	if w.status == 0 {
		e := domain.AsError(errors.New("panic"))
		newProblem(r.Context(), http.StatusInternalServerError, e.Code, e.Detail).write(w)
	}
}

// crossOrigin checks and answers requests from pages (CORS). It reports whether it
// answered the request.
func (a *API) crossOrigin(w http.ResponseWriter, r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" {
		return false
	}
	header := w.Header()
	header.Add("Vary", "Origin")
	if !a.origins.Allow(r) {
		newProblem(r.Context(), http.StatusForbidden, CodeOriginNotAllowed,
			"the server does not allow requests by pages of this origin (PLUGCAST_ALLOWED_ORIGINS)").write(w)
		return true
	}
	header.Set("Access-Control-Allow-Origin", origin)
	header.Set("Access-Control-Expose-Headers", "ETag, Location, Retry-After, X-Request-Id, Idempotency-Replayed")
	if r.Method != http.MethodOptions || r.Header.Get("Access-Control-Request-Method") == "" {
		return false
	}
	header.Set("Access-Control-Allow-Methods", "GET, POST, PUT, PATCH, DELETE")
	header.Set("Access-Control-Allow-Headers", "Authorization, Content-Type, If-Match, If-None-Match, Idempotency-Key, X-Request-Id, "+
		"Last-Event-ID, Cache-Control, Pragma, X-Requested-With") // clients of the event stream send the last four
	header.Set("Access-Control-Max-Age", "600")
	w.WriteHeader(http.StatusNoContent)
	return true
}

// isRequestID reports whether a caller's request id is harmless in logs and events.
func isRequestID(id string) bool {
	_, err := domain.ParseSystemID(id) // allows the same characters and length
	return err == nil
}

func bodyLimit(r *http.Request) int64 {
	if r.URL.Path == publishPath || strings.HasSuffix(r.URL.Path, "/bridge/events") {
		return maxBatchBody
	}
	return maxCommandBody
}

// boundedBody fails with a [*http.MaxBytesError] if the body is too large.
type boundedBody struct {
	io.ReadCloser
	limit   int64
	left    int64
	expects bool // the caller waits for 100 Continue before it sends the body
}

// Read implements [io.Reader].
func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left == 0 {
		return b.probe()
	}
	if int64(len(p)) > b.left {
		p = p[:b.left]
	}
	n, err := b.ReadCloser.Read(p)
	b.left -= int64(n)
	return n, err
}

// probe checks whether the body is larger than the limit. If so, it reads and discards
// up to maxDrain bytes. Otherwise the server would reset the connection while the
// caller still sends, and most clients would report the reset instead of the answer.
func (b *boundedBody) probe() (int, error) {
	var one [1]byte
	n, err := io.ReadFull(b.ReadCloser, one[:])
	if n == 0 {
		return 0, err
	}
	if !b.expects {
		_, _ = io.CopyN(io.Discard, b.ReadCloser, maxDrain)
	}
	return 0, &http.MaxBytesError{Limit: b.limit}
}

// response records the status and the route of a response, for the log.
type response struct {
	http.ResponseWriter
	status   int    // 0 until the header is written
	bodiless bool   // the request has no body
	route    string // the pattern that the request matched
}

// WriteHeader implements [http.ResponseWriter].
func (w *response) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write implements [http.ResponseWriter].
func (w *response) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(b)
}

// Unwrap serves [http.ResponseController].
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// SetReadDeadline sets the deadline for the body. The server clears it at the end of
// the body; from then on, it reads only to notice that the caller is gone, and a
// deadline would look like that. If the request has no body, SetReadDeadline does
// nothing: the server would never clear the deadline, which would end an operation
// that waits for an outcome.
func (w *response) SetReadDeadline(at time.Time) error {
	if w.bodiless {
		return nil
	}
	return http.NewResponseController(w.ResponseWriter).SetReadDeadline(at)
}

// discardResponse records the header and status of a response that is not sent.
type discardResponse struct {
	header http.Header
	status int
}

func (d *discardResponse) Header() http.Header         { return d.header }
func (d *discardResponse) Write(b []byte) (int, error) { return len(b), nil }
func (d *discardResponse) WriteHeader(status int)      { d.status = status }
