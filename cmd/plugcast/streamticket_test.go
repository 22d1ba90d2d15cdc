package main

import (
	"bufio"
	"net/http"
	"strings"
	"testing"

	"github.com/plugcast/plugcast/domain"
)

// A reader whose only credential is a ticket, as that of a browser's EventSource,
// reconnects with it. The ticket opens nothing else, and a page of another origin
// may send what readers of streams send.
func TestTicketOfAStream(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	n := d.start(t, "", "--allowed-origins", "https://app.example")
	var made struct{ Ticket string }
	mustCall(t, http.StatusCreated, "POST", n.base+"/api/v1/tickets", testToken(t, domain.RoleViewer, "clinica-sol", "centro-luna"),
		map[string]any{"stream": "clinica-sol"}, &made)
	open := func(system, query string) (*http.Response, string) {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), "GET",
			n.base+"/api/v1/systems/"+system+"/events/stream?ticket="+made.Ticket+query, nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = response.Body.Close() })
		if response.StatusCode != http.StatusOK {
			return response, ""
		}
		for lines := bufio.NewScanner(response.Body); lines.Scan(); {
			if id, ok := strings.CutPrefix(lines.Text(), "id:"); ok {
				return response, strings.TrimSpace(id)
			}
		}
		return response, ""
	}
	service := testToken(t, domain.RoleService, "clinica-sol")
	mustCall(t, http.StatusOK, "POST", n.base+"/api/v1/device-updates", service,
		`[{"systemId":"clinica-sol","deviceId":"d1","relayOn":true},{"systemId":"clinica-sol","deviceId":"d2","relayOn":true}]`, nil)
	_, first := open("clinica-sol", "&after=0-0")
	_, second := open("clinica-sol", "&after=0-0&lastEventId="+first)
	if first == "" || second == "" || first == second {
		t.Errorf("the stream began with %q and went on with %q", first, second)
	}
	for what, try := range map[string]struct {
		system, query string
		status        int
	}{
		"another stream": {"centro-luna", "", 401}, "unknown parameter": {"clinica-sol", "&kind=x", 400},
	} {
		if response, _ := open(try.system, try.query); response.StatusCode != try.status {
			t.Errorf("%s: %d", what, response.StatusCode)
		}
	}
	for _, path := range []string{"/api/v1/systems/clinica-sol/devices", "/api/v1/systems/clinica-sol/snapshot", "/api/v1/tickets"} {
		if status, _, answer, err := call(t.Context(), "GET", n.base+path+"?ticket="+made.Ticket, "", nil); err != nil || status == 200 {
			t.Errorf("%s: %d %s %v", path, status, answer, err)
		}
	}
	request, err := http.NewRequestWithContext(t.Context(), "OPTIONS", n.base+"/api/v1/systems/clinica-sol/events/stream", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Origin", "https://app.example")
	request.Header.Set("Access-Control-Request-Method", "GET")
	request.Header.Set("Access-Control-Request-Headers", "authorization,cache-control,last-event-id")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	allowed := strings.ToLower(response.Header.Get("Access-Control-Allow-Headers"))
	if !strings.Contains(allowed, "last-event-id") || !strings.Contains(allowed, "cache-control") {
		t.Errorf("preflight: %d, allowed %q", response.StatusCode, allowed)
	}
}
