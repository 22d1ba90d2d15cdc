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

// What one exchange may take.
const (
	maxCommandBody = 64 << 10         // bytes
	maxBatchBody   = 8 << 20          // bytes
	maxDrain       = 24 << 20         // bytes that are read of a body that is too large
	bodyTimeout    = 20 * time.Second // for the whole body
	operationTime  = 30 * time.Second // for an operation, besides what it was asked to wait
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

// ServeHTTP answers one request. Whatever happens inside, the caller gets a
// response with a request id, and the process lives on.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id := r.Header.Get("X-Request-Id")
	if !isRequestID(id) {
		id = uuid.NewString()
	}
	ctx := context.WithValue(r.Context(), requestIDKey, id)
	answer := &unsent{}
	defer answer.sent() // whatever became of it
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
			a.recovered(out, in, fault)
		}
		// The path is no use where it matches no route, and may have a key in it: that
		// of a mistyped dial-in URL, say.
		a.log.DebugContext(ctx, "request", "requestId", id, "method", r.Method, "route", out.route,
			"status", out.status, "took", time.Since(began))
	}()
	if a.crossOrigin(out, in) {
		return
	}
	if p := unstorable(ctx, in); p != nil {
		p.write(out)
		return
	}
	a.route(out, in)
}

// route finds the operation. The mux answers with plain text where there is
// none, so its answer is looked at first.
func (a *API) route(w *response, r *http.Request) {
	handler, pattern := a.mux.Handler(r)
	if pattern != "" {
		w.route = pattern
		a.mux.ServeHTTP(w, r) // again, because only this sets the path values
		return
	}
	answer := &discarded{header: http.Header{}}
	handler.ServeHTTP(answer, r)
	p := newProblem(r.Context(), http.StatusNotFound, CodeNotFound, "there is nothing at this path; /docs lists what there is")
	if answer.status == http.StatusMethodNotAllowed {
		allow := answer.header.Get("Allow")
		p = newProblem(r.Context(), answer.status, CodeMethodNotAllowed, "this path takes "+allow)
		p.header.Set("Allow", allow)
	}
	p.write(w)
}

func (a *API) recovered(w *response, r *http.Request, fault any) {
	if err, is := fault.(error); is && errors.Is(err, http.ErrAbortHandler) {
		panic(fault) // the server's own way to give up on a connection
	}
	if err, is := fault.(error); is && r.Context().Err() != nil && !errors.As(err, new(runtime.Error)) {
		return // the caller is gone, and huma panics with the error when it cannot write
	}
	isolate.Recovered(a.log.With("requestId", requestID(r.Context()), "method", r.Method, "route", w.route), "rest", fault)
	if w.status == 0 {
		e := domain.AsError(errors.New("panic"))
		newProblem(r.Context(), http.StatusInternalServerError, e.Code, e.Detail).write(w)
	}
}

// crossOrigin answers for pages of other origins, and reports whether the
// request is done with that.
func (a *API) crossOrigin(w http.ResponseWriter, r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" {
		return false
	}
	header := w.Header()
	header.Add("Vary", "Origin")
	if !a.origins.Allow(r) {
		newProblem(r.Context(), http.StatusForbidden, CodeOriginNotAllowed,
			"pages of this origin may not call here (PLUGCAST_ALLOWED_ORIGINS)").write(w)
		return true
	}
	header.Set("Access-Control-Allow-Origin", origin)
	header.Set("Access-Control-Expose-Headers", "ETag, Location, Retry-After, X-Request-Id, Idempotency-Replayed")
	if r.Method != http.MethodOptions || r.Header.Get("Access-Control-Request-Method") == "" {
		return false
	}
	header.Set("Access-Control-Allow-Methods", "GET, POST, PUT, PATCH, DELETE")
	header.Set("Access-Control-Allow-Headers", "Authorization, Content-Type, If-Match, If-None-Match, Idempotency-Key, X-Request-Id, "+
		"Last-Event-ID, Cache-Control, Pragma, X-Requested-With") // the last four are what clients of the event stream send
	header.Set("Access-Control-Max-Age", "600")
	w.WriteHeader(http.StatusNoContent)
	return true
}

// isRequestID reports whether a caller's request id can go to logs and events.
func isRequestID(id string) bool {
	_, err := domain.ParseSystemID(id) // the same harmless characters and length
	return err == nil
}

func bodyLimit(r *http.Request) int64 {
	if r.URL.Path == publishPath || strings.HasSuffix(r.URL.Path, "/bridge/events") {
		return maxBatchBody
	}
	return maxCommandBody
}

// boundedBody ends a body that is too large with a [*http.MaxBytesError].
type boundedBody struct {
	io.ReadCloser
	limit   int64
	left    int64
	expects bool // the caller sends only what it is asked for
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

// probe looks whether there is more than the limit. If so it reads on, within
// bounds: otherwise the connection is reset while the caller still sends, and
// most clients then report that instead of the answer.
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

// response remembers what was sent.
type response struct {
	http.ResponseWriter
	status   int
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

// SetReadDeadline sets when the body must be there. The server lifts it when the
// body has ended, because from then on it reads only to notice that the caller
// went away, and a deadline would look like that. Where there is no body it
// would never be lifted, and end an operation that was told to wait.
func (w *response) SetReadDeadline(at time.Time) error {
	if w.bodiless {
		return nil
	}
	return http.NewResponseController(w.ResponseWriter).SetReadDeadline(at)
}

// discarded is a response that nobody gets.
type discarded struct {
	header http.Header
	status int
}

func (d *discarded) Header() http.Header         { return d.header }
func (d *discarded) Write(b []byte) (int, error) { return len(b), nil }
func (d *discarded) WriteHeader(status int)      { d.status = status }
