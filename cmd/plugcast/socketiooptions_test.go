package main

import (
	"net/http"
	"strings"
	"testing"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/testpeer/conformance"
)

// Options of the unmodified client: no slash at the end of the path, a place that the
// application kept by itself, and binary data, which is refused with a word.
func TestSocketIOClientOptions(t *testing.T) {
	t.Parallel()
	const system, page = "clinica-opciones", "https://app.example.com"
	n := newDeployment(t).start(t, "", "--allowed-origins", page)
	token := testToken(t, domain.RoleService, system)
	publish := func() {
		t.Helper()
		body := []any{map[string]any{"systemId": system, "deviceId": "shellyplugsg3-0000000000aa", "relayOn": true}}
		if status, _, _, err := call(t.Context(), "POST", n.base+"/api/v1/device-updates", token, body); err != nil || status != http.StatusOK {
			t.Fatalf("publish: %d, %v", status, err)
		}
	}
	publish()
	publish()
	for _, transport := range []string{"polling", "websocket"} {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			reports := conformance.NodeAppWith(t, map[string]any{
				"addTrailingSlash": false, "transports": []string{transport}, "auth": map[string]any{"token": token, "after": "0-0"},
			}, n.base, system)
			var seen []string
			for r := range reports {
				switch {
				case r.Kind == "event" && r.Event == "error":
					if !strings.Contains(string(r.Data), `"code":"binary"`) {
						t.Errorf("the error is %s", r.Data)
					}
				case r.Kind == "event" && r.Seq == 2:
					continue // it comes beside the first, or is cut off
				case r.Kind == "event" && r.Seq != 1:
					t.Errorf("the first event is %d", r.Seq)
				}
				if seen = append(seen, r.Kind); r.Kind == "disconnect" {
					break
				}
			}
			if got := strings.Join(seen, " "); got != "connect event event disconnect" {
				t.Errorf("the application saw %s", got)
			}
		})
	}
	t.Run("pages of another origin", func(t *testing.T) {
		t.Parallel()
		for method, want := range map[string]int{http.MethodGet: http.StatusOK, http.MethodOptions: http.StatusNoContent} {
			r, err := http.NewRequestWithContext(t.Context(), method, n.base+"/socket.io?EIO=4&transport=polling", nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Origin", page)
			answer, err := http.DefaultTransport.RoundTrip(r) // which follows no redirect
			if err != nil {
				t.Fatal(err)
			}
			_ = answer.Body.Close()
			if answer.StatusCode != want || answer.Header.Get("Access-Control-Allow-Origin") != page {
				t.Errorf("%s: %s %v", method, answer.Status, answer.Header)
			}
		}
	})
}

// Nothing that a stranger asks for is free: what shows no valid token is counted for
// its address, and a valid token is served beside it.
func TestFloodWithoutAToken(t *testing.T) {
	t.Parallel()
	const system = "clinica-inundada"
	n := newDeployment(t).start(t, "", "--limit-unauthenticated", "1", "--limit-unauthenticated-burst", "20",
		"--limit-requests", "1", "--limit-requests-burst", "20")
	ask := func(method, path, token, body string) *http.Response {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, n.base+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		answer, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = answer.Body.Close()
		return answer
	}
	flood := func(method, path, token, body string) {
		t.Helper()
		for range 100 {
			if answer := ask(method, path, token, body); answer.StatusCode == http.StatusTooManyRequests {
				if answer.Header.Get("Retry-After") == "" {
					t.Errorf("%s %s: 429 without Retry-After", method, path)
				}
				return
			}
		}
		t.Errorf("%s %s is served without end", method, path)
	}
	systemPath := "/api/v1/systems/" + system
	for _, one := range [][2]string{
		{"GET", systemPath + "/devices"}, {"HEAD", "/nothing"}, {"OPTIONS", systemPath + "/devices"},
		{"GET", "/socket.io/?EIO=4&transport=polling&sid=made-up"},
		{"GET", "/socket.io/?EIO=3"}, {"GET", systemPath + "/events/stream"}, {"GET", "/ws"},
	} {
		flood(one[0], one[1], "", "")
	}
	flood("GET", systemPath+"/devices", "no-token", "")
	// A browser's preflights have a budget of their own, which all faces share.
	preflights := 0
	for range 10 {
		for _, path := range []string{
			systemPath + "/devices", systemPath + "/events/stream", "/socket.io/?EIO=4&transport=polling", "/api/socket/init",
		} {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodOptions, n.base+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Origin", n.base)
			r.Header.Set("Access-Control-Request-Method", "GET")
			answer, err := http.DefaultTransport.RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			switch _ = answer.Body.Close(); {
			case answer.StatusCode == http.StatusNoContent:
				preflights++
			case answer.StatusCode != http.StatusTooManyRequests || preflights < 20:
				t.Errorf("a preflight of %s got %s after %d", path, answer.Status, preflights)
			}
		}
	}
	if preflights == 40 {
		t.Error("preflights are served without end")
	}
	// Sessions of Socket.IO, whose token comes later, and load balancers go on.
	for range 3 {
		if answer := ask("GET", "/socket.io/?EIO=4&transport=polling", "", ""); answer.StatusCode != http.StatusOK {
			t.Errorf("a handshake got %s", answer.Status)
		}
		if answer := ask("GET", "/healthz", "", ""); answer.StatusCode != http.StatusOK {
			t.Errorf("a load balancer got %s", answer.Status)
		}
	}
	service := testToken(t, domain.RoleService, system)
	if answer := ask("POST", "/api/v1/device-updates", service, `[]`); answer.StatusCode != http.StatusOK {
		t.Errorf("a valid token got %s", answer.Status)
	}
	for name, body := range map[string]string{"empty": `[]`, "broken": `{`, "foreign": `[{"systemId":"another","deviceId":"d"}]`} {
		t.Run(name, func(*testing.T) { flood("POST", "/api/v1/device-updates", service, body) })
	}
}
