package rest

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"github.com/plugcast/plugcast/domain"
)

// The server refuses text that Postgres cannot store before it uses the text.
func TestTextThatNoDatabaseHolds(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.seed()
	before := b.count()
	for _, bad := range []string{"%00", "a%00b", "%ff", "%c3"} {
		for _, name := range []string{"actor", "type", "correlationId", "deviceId", "after", "from"} {
			r := b.send(domain.RoleAuditor, "GET", sol+"/events?"+name+"="+bad)
			b.want(r, 400, CodeInvalidRequest)
			if !strings.Contains(r.body["detail"].(string), name) {
				t.Errorf("%s=%s: the parameter is not named: %s", name, bad, r.raw)
			}
		}
		for _, path := range []string{"/devices/" + bad, "/equipment/" + bad, "/connections/" + bad, "/devices/" + bad + "/assignment"} {
			b.want(b.send(domain.RoleOperator, "GET", sol+path), 400, CodeInvalidRequest)
		}
		b.want(b.send(domain.RoleOperator, "GET", "/api/v1/systems/"+bad+"/devices"), 400, CodeInvalidRequest)
		b.want(b.send(domain.RoleOperator, "DELETE", sol+"/equipment/e1?reason="+bad), 400, CodeInvalidRequest)
		b.want(b.send(domain.RoleAdmin, "DELETE", "/api/v1/sockets/"+bad), 400, CodeInvalidRequest)
	}
	if after := b.count(); after != before {
		t.Errorf("%d events were appended", after-before)
	}
	b.want(b.send(domain.RoleAuditor, "GET", sol+"/events?actor=cl%C3%ADnica"), 200, "")
}

// The server refuses a compressed body as such, not as malformed JSON.
func TestContentEncoding(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.seed()
	before := b.count()
	for _, c := range []struct {
		role               domain.Role
		method, path, body string
	}{
		{domain.RoleService, "POST", publishPath, oneItem},
		{domain.RoleOperator, "PUT", assignD1, e1},
	} {
		for _, coding := range []string{"gzip", "br", "identity, gzip"} {
			r := b.send(c.role, c.method, c.path, c.body, "Content-Encoding: "+coding)
			b.want(r, 415, CodeUnsupportedMediaType)
			if detail := r.body["detail"].(string); !strings.Contains(detail, strings.TrimPrefix(coding, "identity, ")) {
				t.Errorf("%s is not named: %s", coding, r.raw)
			}
			if r.header.Get("Accept-Encoding") != "identity" {
				t.Errorf("%s: Accept-Encoding is missing", coding)
			}
		}
	}
	if after := b.count(); after != before {
		t.Errorf("%d events were appended", after-before)
	}
	b.want(b.send(domain.RoleService, "POST", publishPath, oneItem, "Content-Encoding: Identity"), 200, "")
	b.want(b.send(domain.RoleOperator, "GET", sol+"/devices", "Content-Encoding: gzip"), 200, "") // no body
	long := b.send(domain.RoleService, "POST", publishPath, oneItem, "Content-Encoding: "+strings.Repeat("x", 5000))
	b.want(long, 415, CodeUnsupportedMediaType)
	if len(long.raw) > 1000 {
		t.Errorf("%d bytes are sent back", len(long.raw))
	}
	_, operations := routes(t, b.api.OpenAPI())
	for name, operation := range operations {
		if responses := operation["responses"].(map[string]any); operation["requestBody"] != nil && responses["415"] == nil {
			t.Errorf("%s has no 415", name)
		}
	}
}

// The document describes every wait parameter alike, with an example that matches the
// pattern.
func TestWaitIsDescribed(t *testing.T) {
	t.Parallel()
	b := setup(t)
	_, operations := routes(t, b.api.OpenAPI())
	found := 0
	for name, operation := range operations {
		list, _ := operation["parameters"].([]any)
		for _, p := range list {
			parameter := p.(map[string]any)
			if parameter["name"] != "wait" {
				continue
			}
			found++
			schema := parameter["schema"].(map[string]any)
			pattern, _ := schema["pattern"].(string)
			re, err := regexp.Compile(pattern)
			if err != nil || pattern == "" {
				t.Fatalf("%s: pattern %q, %v", name, pattern, err)
			}
			for text, want := range map[string]bool{
				"5s": true, "500ms": true, "1.5s": true, "0": true, "1m2s": true, "5": false, "soon": false, "-1s": false,
			} {
				if re.MatchString(text) != want {
					t.Errorf("%s: %s matches %q: %v", name, pattern, text, !want)
				}
			}
			text, _ := json.Marshal(parameter)
			if !strings.Contains(string(text), `"example":"5s"`) && !strings.Contains(string(text), `"examples":["5s"]`) {
				t.Errorf("%s: no example: %s", name, text)
			}
		}
	}
	if found == 0 {
		t.Error("no operation waits")
	}
}

// The error of a malformed body speaks of JSON, not of Go types.
func TestProblemsNameNoTypes(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.seed()
	inside := regexp.MustCompile(`\b[Gg]o\b|struct|unmarshal|json:|domain\.|rest\.|uint64|float64|[A-Z][a-z]+[A-Z][a-z]+\.`)
	for _, c := range [][]string{
		{"PUT", assignD1, `{"equipmentId":7}`}, {"PUT", assignD1, `{"equipmentId":null}`}, {"PUT", assignD1, `"x"`},
		{"PUT", assignD1, `{"equipmentId":"e1"`}, {"PUT", assignD1 + "?move=perhaps", e1}, {"PUT", assignD1 + "?wait=5", e1},
		{"PUT", assignD1, e1, "If-Match: x"}, {"PUT", assignD1, e1, "If-None-Match: x"},
		{"PATCH", sol + "/equipment/e1", `{"name":7}`}, {"PATCH", sol + "/equipment/e1", `{"kind":{}}`},
		{"PATCH", sol + "/equipment/e1", `{"attributes":7}`}, {"PATCH", sol + "/equipment/e1", `{"x":7}`},
		{"POST", sol + "/equipment", `{"name":{}}`}, {"POST", sol + "/equipment", `{"name":"x","attributes":[]}`},
		{"POST", sol + "/devices/d1/relay", `{"on":1}`}, {"POST", sol + "/devices/d1/relay", `{"on":true,"toggleAfter":5}`},
		{"POST", sol + "/devices/d1/relay", `{"on":true,"toggleAfter":"5"}`},
		{"POST", "/api/websocket/acc1/jump"}, {"POST", "/api/websocket/acc1/stop", `{"closeSockets":"x"}`},
		{"GET", sol + "/devices?limit=x"}, {"GET", sol + "/devices?limit=1e99"}, {"GET", sol + "/equipment?retired=x"},
		{"GET", sol + "/devices?after-position=99999999999999999999999-0"},
	} {
		r := b.send(domain.RoleStaff, c[0], c[1], c[2:]...)
		if r.status != 400 {
			t.Errorf("%v: %d %s", c, r.status, r.raw)
		}
		if found := inside.FindString(r.raw); found != "" {
			t.Errorf("%v shows %q: %s", c, found, r.raw)
		}
	}
}
