package main

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/plugcast/plugcast/transport/testpeer"
	"github.com/plugcast/plugcast/transport/testpeer/conformance"
)

// Every point of both protocols, as clients see it.
func TestProtocol(t *testing.T) {
	t.Parallel()
	conformance.Run(t, conformance.Subject{Start: start})
}

func start(t *testing.T, s conformance.Settings) string {
	config := suites()
	config.PingInterval, config.PingTimeout, config.UpgradeTimeout = s.PingInterval, s.PingTimeout, s.UpgradeTimeout
	config.SettleTimeout, config.MaxPayload = s.ConnectTimeout, int64(s.MaxPayload)
	config.CheckOrigin = func(r *http.Request) bool {
		origin := r.Header.Get("Origin")
		return origin == "" || origin == s.Origin
	}
	server, err := newProtocolServer(config)
	if err != nil {
		t.Fatal(err)
	}
	testpeer.Run(t, server.Run)
	listening := httptest.NewServer(server)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := server.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		listening.Close()
		if n := server.Sessions(); n != 0 {
			t.Errorf("%d sessions are left", n)
		}
	})
	return listening.URL
}

// A browser sends a request again by itself when its connection broke before the
// answer came. What the lost answer had must not be missing without a sign, and
// what was posted must not come twice.
func TestRequestsThatAreSentAgain(t *testing.T) {
	t.Parallel()
	base := start(t, conformance.Patient()) + "/engine.io/?EIO=4&transport=polling"
	request := func(method, url, body string) (int, string) {
		r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		return answer.StatusCode, string(text)
	}
	_, opened := request("GET", base+"&t=a", "")
	var open struct{ SID string }
	if err := json.Unmarshal([]byte(opened[1:]), &open); err != nil {
		t.Fatal(err)
	}
	session := base + "&sid=" + open.SID
	for range 2 {
		if status, text := request("POST", session+"&t=b", "4once"); status != http.StatusOK || text != "ok" {
			t.Errorf("POST: %d %s", status, text)
		}
	}
	request("POST", session+"&t=c", "4then")
	if _, text := request("GET", session+"&t=d", ""); text != "4once\x1e4then" {
		t.Errorf("GET: %q", text)
	}
	request("POST", session+"&t=e", "4later")
	if status, text := request("GET", session+"&t=d", ""); status != http.StatusBadRequest {
		t.Errorf("GET again: %d %q", status, text)
	}
	if status, _ := request("GET", session+"&t=f", ""); status != http.StatusBadRequest {
		t.Errorf("the session goes on: %d", status)
	}
}
