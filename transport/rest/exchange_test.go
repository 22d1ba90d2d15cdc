package rest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/auth"
)

// spaces returns a body of n bytes.
func spaces(n int) io.Reader { return strings.NewReader(strings.Repeat(" ", n)) }

func TestRequestID(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.want(b.send(domain.RoleService, "POST", publishPath, oneItem, "X-Request-Id: order-7"), 200, "")
	if got := b.events[0].CorrelationID; got != "order-7" {
		t.Errorf("the event's correlation id is %q", got)
	}
	for _, bad := range []string{"a b", strings.Repeat("x", 65), "<script>"} {
		r := b.send(domain.RoleViewer, "GET", sol+"/devices", "X-Request-Id: "+bad)
		if got := r.header.Get("X-Request-Id"); got == bad || len(got) != 36 {
			t.Errorf("%q became %q", bad, got)
		}
	}
}

func TestUnknownRoutes(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, path := range []string{"/", "/api", "/api/v2/devices", "/metrics", sol, sol + "/devices/d1/", "/docs/nothing/else"} {
		if r := b.send("", "GET", path); r.status != 404 {
			t.Errorf("%s: %d %s", path, r.status, r.raw)
		}
	}
	r := b.send("", "PATCH", sol+"/devices/d1/assignment")
	b.want(r, 405, CodeMethodNotAllowed)
	if got := r.header.Get("Allow"); got != "DELETE, GET, HEAD, PUT" {
		t.Errorf("Allow: %s", got)
	}
}

// A panic ends only its own request.
func TestPanic(t *testing.T) {
	t.Parallel()
	b := setup(t, func(c *Config) { c.Sockets = nilSockets{} })
	r := b.send(domain.RoleAdmin, "GET", "/api/v1/sockets")
	b.want(r, 500, domain.CodeInternal)
	if log := b.log.String(); !strings.Contains(log, "ouch") || !strings.Contains(log, "exchange_test.go") {
		t.Errorf("the log lacks the panic or its stack: %s", log)
	}
	b.want(b.send(domain.RoleViewer, "GET", sol+"/devices"), 200, "")
}

type nilSockets struct{ Sockets }

func (nilSockets) Page(context.Context, []domain.SystemID, string, int) ([]domain.Socket, string, error) {
	panic("ouch")
}

func TestBodies(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.seed()
	before := b.count()
	path := sol + "/devices/d1/assignment"
	for name, c := range map[string]struct {
		method, path string
		role         domain.Role
		body         io.Reader
		status       int
		code         domain.Code
	}{
		"command over 64 KiB":            {"PUT", path, domain.RoleOperator, spaces(maxCommandBody + 1), 413, CodeBodyTooLarge},
		"command of unknown length":      {"PUT", path, domain.RoleOperator, io.MultiReader(spaces(1 << 20)), 413, CodeBodyTooLarge},
		"batch of 10 MB":                 {"POST", publishPath, domain.RoleService, spaces(10 << 20), 413, CodeBodyTooLarge},
		"batch of 10 MB, unknown length": {"POST", publishPath, domain.RoleService, io.MultiReader(spaces(10 << 20)), 413, CodeBodyTooLarge},
		"no body":                        {"PUT", path, domain.RoleOperator, nil, 400, CodeInvalidRequest},
		"no batch":                       {"POST", publishPath, domain.RoleService, nil, 400, CodeInvalidRequest},
		"wrong type":                     {"PUT", path, domain.RoleOperator, strings.NewReader(`{"equipmentId":7}`), 400, CodeInvalidRequest},
		"unknown field": {"PUT", path, domain.RoleOperator, strings.NewReader(`{"equipmentId":"e1","equipmentid":"e2"}`), 400,
			CodeInvalidRequest},
		"two values": {"PUT", path, domain.RoleOperator, strings.NewReader(`{"equipmentId":"e1"} {}`), 400, CodeInvalidRequest},
		"a list":     {"PUT", path, domain.RoleOperator, strings.NewReader(`[]`), 400, CodeInvalidRequest},
		"null":       {"PUT", path, domain.RoleOperator, strings.NewReader(`null`), 400, CodeInvalidRequest},
	} {
		r := b.exchange(c.method, c.path, b.header(c.role), c.body)
		if r.status != c.status || r.code() != string(c.code) {
			t.Errorf("%s: %d %s", name, r.status, r.raw)
		}
	}
	if after := b.count(); after != before {
		t.Errorf("%d events were appended", after-before)
	}
}

// Problems do not quote values of the request, because they may be long or secret.
func TestProblemsDoNotEcho(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.send(domain.RoleOperator, "POST", sol+"/equipment", `{"name":"x","password":"hunter2"`)
	b.want(r, 400, CodeInvalidRequest)
	if strings.Contains(r.raw, "hunter2") {
		t.Errorf("%s", r.raw)
	}
	r = b.send(domain.RoleOperator, "POST", sol+"/equipment", `{"name":["hunter2"]}`)
	b.want(r, 400, CodeInvalidRequest)
	if strings.Contains(r.raw, "hunter2") || !strings.Contains(r.raw, "body.name") {
		t.Errorf("%s", r.raw)
	}
}

func TestCrossOrigin(t *testing.T) {
	t.Parallel()
	origins, err := auth.ParseOrigins([]string{"https://app.example.com"})
	if err != nil {
		t.Fatal(err)
	}
	b := setup(t, func(c *Config) { c.Origins = origins })
	r := b.send(domain.RoleViewer, "GET", sol+"/devices", "Origin: https://app.example.com")
	if r.status != 200 || r.header.Get("Access-Control-Allow-Origin") != "https://app.example.com" || r.header.Get("Vary") != "Origin" {
		t.Errorf("%d %v", r.status, r.header)
	}
	pre := b.send("", "OPTIONS", sol+"/devices/d1/assignment", "Origin: https://app.example.com", "Access-Control-Request-Method: PUT")
	if pre.status != 204 || !strings.Contains(pre.header.Get("Access-Control-Allow-Methods"), "PUT") ||
		!strings.Contains(pre.header.Get("Access-Control-Allow-Headers"), "If-Match") {
		t.Errorf("preflight: %d %v", pre.status, pre.header)
	}
	refused := b.send("", "OPTIONS", sol+"/devices", "Origin: https://evil.example.com", "Access-Control-Request-Method: GET")
	b.want(refused, 403, CodeOriginNotAllowed)
	if refused.header.Get("Access-Control-Allow-Origin") != "" {
		t.Error("a refused origin was allowed")
	}
	own := b.send(domain.RoleViewer, "GET", sol+"/devices", "Origin: "+b.server.URL)
	b.want(own, 200, "")
}

// stalled is a body that never sends a byte.
func stalled(t *testing.T, deadline *time.Time) (http.ResponseWriter, *http.Request) {
	pr, pw := io.Pipe()
	t.Cleanup(func() { _ = pw.Close() })
	r := httptest.NewRequest("POST", publishPath, pr)
	return &deadlineRecorder{ResponseRecorder: httptest.NewRecorder(), body: pw, at: deadline}, r
}

// deadlineRecorder is a connection with a read deadline.
type deadlineRecorder struct {
	*httptest.ResponseRecorder
	body *io.PipeWriter
	at   *time.Time
}

type timeoutError struct{ error }

func (timeoutError) Timeout() bool { return true }

func (d *deadlineRecorder) SetReadDeadline(at time.Time) error {
	*d.at = at
	if !at.IsZero() {
		time.AfterFunc(time.Until(at), func() { _ = d.body.CloseWithError(timeoutError{errors.New("i/o timeout")}) })
	}
	return nil
}

// A body that the client sends too slowly ends its own request and delays no other.
func TestSlowBody(t *testing.T) {
	t.Parallel()
	b := setup(t)
	synctest.Test(t, func(t *testing.T) {
		var deadline time.Time
		w, r := stalled(t, &deadline)
		r.Header.Set("Authorization", "Bearer "+b.tokens[domain.RoleService])
		began := time.Now()
		b.api.ServeHTTP(w, r)
		got := w.(*deadlineRecorder)
		if got.Code != 408 || !strings.Contains(got.Body.String(), string(CodeBodyTimeout)) {
			t.Errorf("%d %s", got.Code, got.Body)
		}
		if took := time.Since(began); took != bodyTimeout || deadline.IsZero() {
			t.Errorf("it took %v", took)
		}
	})
}

// A request without a body gets no deadline for the body, because that would end its
// wait for an outcome.
func TestNoDeadlineWithoutBody(t *testing.T) {
	t.Parallel()
	var deadline time.Time
	inner := &deadlineRecorder{ResponseRecorder: httptest.NewRecorder(), at: &deadline}
	w := &response{ResponseWriter: inner, bodiless: true}
	if err := w.SetReadDeadline(time.Now()); err != nil || !deadline.IsZero() {
		t.Errorf("%v, deadline %v", err, deadline)
	}
}

// The server does not log an error when a caller goes away in the middle of an answer.
func TestCallerGoesAway(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ctx, cancel := context.WithCancel(t.Context())
	r := httptest.NewRequest("GET", sol+"/devices", nil).WithContext(ctx)
	r.Header.Set("Authorization", "Bearer "+b.tokens[domain.RoleViewer])
	b.api.ServeHTTP(&brokenPipe{httptest.NewRecorder(), cancel}, r)
	if log := b.log.String(); strings.Contains(log, "panicked") || strings.Contains(log, slog.LevelError.String()) {
		t.Errorf("logged as ours: %s", log)
	}
}

type brokenPipe struct {
	*httptest.ResponseRecorder
	cancel context.CancelFunc
}

func (p *brokenPipe) Write([]byte) (int, error) {
	p.cancel()
	return 0, errors.New("write: broken pipe")
}

// The server reads the rest of a body that is too large, within bounds, so that the
// caller can read the answer.
func TestTooLargeBodyIsDrained(t *testing.T) {
	t.Parallel()
	whole := bytes.NewReader(make([]byte, 100))
	body := &boundedBody{ReadCloser: io.NopCloser(whole), limit: 10, left: 10}
	var tooLarge *http.MaxBytesError
	if got, err := io.ReadAll(body); len(got) != 10 || !errors.As(err, &tooLarge) || tooLarge.Limit != 10 {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if whole.Len() != 0 {
		t.Errorf("%d bytes are left", whole.Len())
	}
	exact := &boundedBody{ReadCloser: io.NopCloser(bytes.NewReader(make([]byte, 10))), limit: 10, left: 10}
	if got, err := io.ReadAll(exact); len(got) != 10 || err != nil {
		t.Errorf("a body of exactly the limit: %d bytes, %v", len(got), err)
	}
}
