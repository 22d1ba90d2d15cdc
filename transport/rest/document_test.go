package rest

import (
	"encoding/json"
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/plugcast/plugcast/domain"
)

// routes lists every route with its successful statuses, in the form of
// testdata/routes.txt.
func routes(t *testing.T, document []byte) (list []string, operations map[string]map[string]any) {
	var doc struct {
		OpenAPI string
		Paths   map[string]map[string]map[string]any
	}
	if err := json.Unmarshal(document, &doc); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(doc.OpenAPI, "3.1.") {
		t.Errorf("OpenAPI %s", doc.OpenAPI)
	}
	operations = map[string]map[string]any{}
	for path, methods := range doc.Paths {
		for method, operation := range methods {
			name := strings.ToUpper(method) + " " + path
			operations[name] = operation
			for _, status := range slices.Sorted(maps.Keys(operation["responses"].(map[string]any))) {
				if status[0] == '2' {
					name += " " + status
				}
			}
			list = append(list, name)
		}
	}
	slices.Sort(list)
	return list, operations
}

// Removing a route, or changing its successful status, breaks a client.
func TestRoutes(t *testing.T) {
	t.Parallel()
	b := setup(t)
	got, _ := routes(t, b.api.OpenAPI())
	want, err := os.ReadFile("testdata/routes.txt")
	if err != nil {
		t.Fatal(err)
	}
	if text := strings.Join(got, "\n") + "\n"; text != string(want) {
		t.Errorf("testdata/routes.txt differs from the routes:\n%s", text)
	}
}

func TestDocument(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.send("", "GET", "/openapi.json")
	if r.status != 200 || r.header.Get("Content-Type") != "application/openapi+json" {
		t.Fatalf("%d %v", r.status, r.header)
	}
	_, operations := routes(t, []byte(r.raw))
	for name, operation := range operations {
		responses := operation["responses"].(map[string]any)
		if operation["summary"] == "" || operation["operationId"] == "" {
			t.Errorf("%s has no summary or id", name)
		}
		if !strings.Contains(name, "/api/") {
			continue
		}
		if security, _ := operation["security"].([]any); len(security) != 1 {
			t.Errorf("%s has no security", name)
		}
		for _, status := range []string{"400", "401", "403", "429", "500", "503"} {
			response, _ := responses[status].(map[string]any)
			content, _ := response["content"].(map[string]any)
			if content[problemType] == nil {
				t.Errorf("%s: %s is no problem document", name, status)
			}
		}
		if strings.Contains(name, "{systemId}/devices/{") && responses["404"] == nil {
			t.Errorf("%s has no 404", name)
		}
	}
	for _, ref := range regexp.MustCompile(`"#/components/schemas/([^"]+)"`).FindAllStringSubmatch(r.raw, -1) {
		schemas := r.body["components"].(map[string]any)["schemas"].(map[string]any)
		if schemas[ref[1]] == nil {
			t.Errorf("%s is not there", ref[0])
		}
	}
	for _, c := range codes {
		if !strings.Contains(r.raw, string(c.Code)) {
			t.Errorf("%s is not in the document", c.Code)
		}
	}
	if strings.Contains(r.raw, `"ticket","in":"query"`) {
		t.Error("the ticket is offered as a parameter")
	}
}

// The document describes device updates, although the handler decodes them itself.
func TestDocumentDescribesUpdates(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var doc struct {
		Components struct {
			Schemas map[string]struct {
				Properties map[string]struct{ Type any }
			}
		}
	}
	if err := json.Unmarshal(b.api.OpenAPI(), &doc); err != nil {
		t.Fatal(err)
	}
	properties := doc.Components.Schemas["SystemUpdate"].Properties
	for name, want := range map[string]string{
		"systemId": `"string"`, "deviceId": `"string"`, "relayOn": `["boolean","null"]`, "powerW": `["number","null"]`,
		"channel": `["integer","null"]`, "deviceTime": `["string","null"]`, "connectionId": `["string","null"]`,
	} {
		if got, _ := json.Marshal(properties[name].Type); string(got) != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
}

// The page works without any other host: nothing in it refers to one, and the content
// policy makes the browser refuse one.
func TestDocs(t *testing.T) {
	t.Parallel()
	b := setup(t)
	page := b.send("", "GET", "/docs")
	if page.status != 200 || !strings.Contains(page.raw, "/openapi.json") {
		t.Fatalf("%d %s", page.status, page.raw)
	}
	policy := page.header.Get("Content-Security-Policy")
	if !strings.Contains(policy, "default-src 'none'") || strings.Contains(policy, "http") {
		t.Errorf("policy: %s", policy)
	}
	assets := regexp.MustCompile(`(?:src|href)="([^"]+)"`).FindAllStringSubmatch(page.raw, -1)
	if len(assets) < 4 {
		t.Fatalf("only %d assets: %s", len(assets), page.raw)
	}
	for _, asset := range assets {
		if !strings.HasPrefix(asset[1], "/docs/") {
			t.Errorf("%s is elsewhere", asset[1])
			continue
		}
		resp, err := b.server.Client().Get(b.server.URL + asset[1])
		if err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != 200 || n == 0 || err != nil {
			t.Errorf("%s: %d, %d bytes, %v", asset[1], resp.StatusCode, n, err)
		}
	}
}

// A request with an unsupported method gets 405, for every path of the document.
func TestEveryPathKnowsItsMethods(t *testing.T) {
	t.Parallel()
	b := setup(t)
	_, operations := routes(t, b.api.OpenAPI())
	for name := range operations {
		_, path, _ := strings.Cut(name, " ")
		path = regexp.MustCompile(`\{[^}]+\}`).ReplaceAllString(path, "x")
		r := b.send(domain.RoleStaff, "TRACE", path)
		if r.status != 405 || r.code() != string(CodeMethodNotAllowed) || r.header.Get("Allow") == "" {
			t.Errorf("TRACE %s: %d %s", path, r.status, r.raw)
		}
	}
}

// The document describes every field of a device, in updates and in reads.
func TestDocumentHasEveryDeviceField(t *testing.T) {
	t.Parallel()
	var doc struct {
		Components struct {
			Schemas map[string]struct{ Properties map[string]any }
		}
	}
	if err := json.Unmarshal(setup(t).api.OpenAPI(), &doc); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"SystemUpdate", "Device"} {
		for _, f := range domain.DeviceFields {
			if doc.Components.Schemas[name].Properties[f.Name] == nil {
				t.Errorf("the document has no %s in %s", f.Name, name)
			}
		}
	}
}

// A request to disconnect a role can name every role, and docs/protocol.md describes every role.
func TestDocumentHasEveryRole(t *testing.T) {
	t.Parallel()
	raw := string(setup(t).api.OpenAPI())
	docs, err := os.ReadFile("../../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	names, err := json.Marshal(domain.Roles())
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(raw, `"enum":`+string(names)) {
		t.Errorf("the document has no list of the roles %s", names)
	}
	for _, role := range domain.Roles() {
		if !strings.Contains(string(docs), "\n| `"+string(role)+"` | ") {
			t.Errorf("docs/protocol.md does not describe the role %s", role)
		}
	}
}
