package rest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/plugcast/plugcast/domain"
)

func TestEvents(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.seed()
	b.want(b.send(domain.RoleOperator, "PUT", sol+"/devices/d2/assignment", `{"equipmentId":"e1"}`, "X-Request-Id: req-9"), 202, "")
	at := func(i int) string { return b.events[i].Position.String() }
	when := func(i int) string { return url.QueryEscape(domain.FormatTime(b.events[i].Time)) }
	for query, want := range map[string]string{
		"":                                   "12345",
		"order=desc":                         "54321",
		"limit=2":                            "12+",
		"limit=5":                            "12345",
		"limit=6":                            "12345",
		"limit=2&order=desc":                 "54+",
		"after=" + at(1):                     "345",
		"before=" + at(2):                    "12",
		"after=0-0&before=" + at(1):          "1",
		"before=0-0":                         "",
		"order=desc&before=0-0":              "",
		"from=" + when(2):                    "345",
		"to=" + when(2):                      "12",
		"from=" + when(2) + "&to=" + when(3): "3",
		"type=device-update":                 "12",
		"type=smart-plug-assignment-updated": "5",
		"deviceId=d2":                        "25",
		"actor=service":                      "12",
		"correlationId=req-9":                "5",
		"actor=service&deviceId=d2":          "2",
		"type=of-tomorrow":                   "",
		"before=0":                           "",
		"after=0-0":                          "12345",
		"to=0001-01-01T00:00:00Z":            "",
		"to=1970-01-01T00:00:00Z":            "",
		"from=0001-01-01T00:00:00Z":          "12345",
		"from=1970-01-01T00:00:00Z":          "12345",
		"after-position=0-0":                 "12345",
		"types=device-update":                "12",
		"devices=d2":                         "25",
		"type=device-update,smart-plug-assignment-updated":       "125",
		"type=device-update&types=smart-plug-assignment-updated": "125",
		"type=device-update&type=smart-plug-assignment-updated":  "125",
		"type=device-update&types=device-update":                 "12",
		"types=of-tomorrow,%20smart-plug-assignment-updated":     "5",
		"deviceId=d1,d2":         "125",
		"devices=d1&deviceId=d2": "125",
		"devices=d1,d3&type=device-update,of-tomorrow&order=desc": "1",
		"order=desc&before=" + at(3):                              "321",
	} {
		r := b.send(domain.RoleAuditor, "GET", sol+"/events?"+query)
		if r.status != 200 {
			t.Errorf("%s: %d %s", query, r.status, r.raw)
			continue
		}
		got := ""
		for _, e := range r.body["events"].([]any) {
			got += fmt.Sprint(e.(map[string]any)["seq"])
		}
		if next, more := r.body["next"]; more {
			got += "+"
			if events := r.body["events"].([]any); next != events[len(events)-1].(map[string]any)["position"] {
				t.Errorf("%s: next is %v", query, next)
			}
		}
		if got != want {
			t.Errorf("%s: got %s, want %s", query, got, want)
		}
	}
}

// The page contains each event in the exact bytes that the other protocols send.
func TestEventsAreEnvelopes(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.seed()
	r := b.send(domain.RoleAuditor, "GET", sol+"/events?limit=1")
	want := b.events[0]
	want.Seq = 1
	if !strings.Contains(r.raw, string(want.AppendEnvelope(nil))) || r.header.Get("Content-Type") != "application/json" {
		t.Errorf("%s", r.raw)
	}
	var page []byte
	sendPage(nil, false, func(piece []byte) bool { page = append(page, piece...); return true })
	if !json.Valid(page) || !bytes.Contains(page, []byte(`"events":[]`)) {
		t.Errorf("an empty page: %s", page)
	}
}

func TestEventsRefusals(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for query, code := range map[string]domain.Code{
		"limit=0":                               CodeInvalidRequest,
		"limit=1001":                            CodeInvalidRequest,
		"limit=x":                               CodeInvalidRequest,
		"order=sideways":                        CodeInvalidRequest,
		"from=yesterday":                        CodeInvalidRequest,
		"after=x":                               domain.CodeInvalidPosition,
		"before=1-x":                            domain.CodeInvalidPosition,
		"deviceId=a%20b":                        domain.CodeInvalidDeviceID,
		"type=":                                 domain.CodeInvalidFilter, // an empty filter must not match everything
		"types=a,":                              domain.CodeInvalidFilter,
		"type=a&types=":                         domain.CodeInvalidFilter,
		"devices=":                              domain.CodeInvalidDeviceID,
		"deviceId=a,,b":                         domain.CodeInvalidDeviceID,
		"type=a%1bb":                            domain.CodeInvalidFilter,
		"type=" + strings.Repeat("x", 65):       domain.CodeInvalidFilter,
		"types=a" + strings.Repeat(",a", 64):    domain.CodeInvalidFilter,
		"devices=d" + strings.Repeat(",d", 256): domain.CodeInvalidFilter,
		"deviceid=d1":                           CodeInvalidRequest, // the server must not ignore a misspelt filter
		"after-position=":                       "",
	} {
		r := b.send(domain.RoleAuditor, "GET", sol+"/events?"+query)
		if code == "" && r.status != 200 || code != "" && (r.status != 400 || r.code() != string(code)) {
			t.Errorf("%s: %d %s", query, r.status, r.raw)
		}
	}
	b.want(b.send(domain.RoleOperator, "GET", sol+"/events"), 403, domain.CodeForbidden)
	b.want(b.send(domain.RoleViewer, "GET", sol+"/audit/head"), 403, domain.CodeForbidden)
	b.want(b.send(domain.RoleAuditor, "GET", "/api/v1/systems/_platform/events"), 403, domain.CodeForbidden)
}

func TestAuditHead(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.seed()
	at, hash, err := b.Head(t.Context(), domain.Actor{}, "clinica-sol")
	if err != nil {
		t.Fatal(err)
	}
	r := b.send(domain.RoleAuditor, "GET", sol+"/audit/head")
	if r.status != 200 || r.body["hash"] != hash.String() || r.body["position"] != at.Position.String() || r.body["seq"] != 4.0 {
		t.Errorf("%d %s", r.status, r.raw)
	}
}

func TestReadsWaitForTheProjection(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.seed()
	last := b.events[3].Position.String()
	b.setLag(3)
	for _, path := range []string{
		"/devices", "/devices/d2", "/snapshot", "/snapshot?at=" + last, "/equipment", "/events", "/audit/head", "/connections",
	} {
		sign := "?"
		if strings.Contains(path, "?") {
			sign = "&"
		}
		done := make(chan reply)
		go func() { done <- b.send(domain.RoleStaff, "GET", sol+path+sign+"after-position="+last) }()
		select {
		case r := <-done:
			t.Errorf("%s: answered from a state that lacks it: %d %s", path, r.status, r.raw)
		case <-b.waiting:
		}
		b.setLag(0)
		if r := <-done; r.status != 200 {
			t.Errorf("%s: %d %s", path, r.status, r.raw)
		}
		b.setLag(3)
	}
}

// If the projection does not reach the position in time, the server refuses instead of
// answering from an older state.
func TestProjectionBehind(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := assemble(t)
		for _, path := range []string{"/devices", "/devices/d1", "/events"} {
			r := httptest.NewRequest("GET", sol+path+"?after-position=99-0", nil)
			r.Header.Set("Authorization", "Bearer "+b.tokens[domain.RoleStaff])
			w, began := httptest.NewRecorder(), time.Now()
			b.api.ServeHTTP(w, r)
			if w.Code != 503 || !strings.Contains(w.Body.String(), `"code":"projection-behind"`) || w.Header().Get("Retry-After") == "" {
				t.Errorf("%s: %d %s", path, w.Code, w.Body)
			}
			if waited := time.Since(began); waited != maxLag {
				t.Errorf("%s: waited %v", path, waited)
			}
		}
	})
}
