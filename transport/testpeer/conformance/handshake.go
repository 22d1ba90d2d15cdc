package conformance

import (
	"cmp"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

var handshakeChecks = []check{
	{name: "opens a polling session", run: opensPolling},
	{name: "opens a WebSocket session, which has nothing to upgrade to", run: opensWebSocket},
	{name: "answers polls as plain text that no cache keeps", run: answersAsText},
	{name: "names its sessions so that nobody can guess one", run: namesSessions},
	{name: "lets the allowed origin read its answers", run: allowsOrigin},
	{name: "answers the preflight of a browser", run: answersPreflight},
	{name: "names no other origin than the allowed one", run: namesNoOtherOrigin},
}

var briskHandshakeChecks = []check{{name: "tells its timers", run: tellsTimers}}

var refusalChecks = []check{
	{name: "refuses a client without a protocol version", run: refuses(http.MethodGet, 5, "Unsupported protocol version",
		"transport", "polling")},
	{name: "refuses the third version of the protocol", run: refuses(http.MethodGet, 5, "Unsupported protocol version",
		"EIO", "3", "transport", "polling")},
	{name: "refuses a version that is no number", run: refuses(http.MethodGet, 5, "Unsupported protocol version",
		"EIO", "abc", "transport", "polling")},
	{name: "refuses a client without a transport", run: refuses(http.MethodGet, 0, "Transport unknown",
		"EIO", "4")},
	{name: "refuses a transport it does not know", run: refuses(http.MethodGet, 0, "Transport unknown",
		"EIO", "4", "transport", "pigeon")},
	{name: "refuses WebTransport", run: refuses(http.MethodGet, 0, "Transport unknown",
		"EIO", "4", "transport", "webtransport")},
	{name: "refuses a transport named like a property of objects", run: refuses(http.MethodGet, 0, "Transport unknown",
		"EIO", "4", "transport", "constructor")},
	{name: "refuses a session it does not know", run: refuses(http.MethodGet, 1, "Session ID unknown",
		"EIO", "4", "transport", "polling", "sid", "nobody")},
	{name: "refuses to POST to a session it does not know", run: refuses(http.MethodPost, 1, "Session ID unknown",
		"EIO", "4", "transport", "polling", "sid", "nobody")},
	{name: "refuses a session named like a property of objects", run: refuses(http.MethodGet, 1, "Session ID unknown",
		"EIO", "4", "transport", "polling", "sid", "__proto__")},
	{name: "refuses a handshake by POST", run: refuses(http.MethodPost, 2, "Bad handshake method",
		"EIO", "4", "transport", "polling")},
	{name: "refuses a handshake by PUT", run: refuses(http.MethodPut, 2, "Bad handshake method",
		"EIO", "4", "transport", "polling")},
	{name: "refuses a WebSocket handshake that is an ordinary request", run: refuses(http.MethodGet, 3, "Bad request",
		"EIO", "4", "transport", "websocket")},
	{name: "opens no WebSocket without a protocol version", run: opensNoWebSocket("transport", "websocket")},
	{name: "opens no WebSocket for another protocol version", run: opensNoWebSocket("EIO", "3", "transport", "websocket")},
	{name: "opens no WebSocket for a version that is no number", run: opensNoWebSocket("EIO", "abc", "transport", "websocket")},
	{name: "refuses a WebSocket without a transport", run: refusesWebSocket("EIO", "4")},
	{name: "refuses a WebSocket of a transport it does not know", run: refusesWebSocket("EIO", "4", "transport", "pigeon")},
	{name: "refuses a WebSocket for a session it does not know",
		run: refusesWebSocket("EIO", "4", "transport", "websocket", "sid", "nobody")},
}

func opensPolling(t *testing.T, at endpoint) {
	answer := at.request(t, http.MethodGet, nil, query("EIO", "4", "transport", "polling"))
	if answer.Status != http.StatusOK {
		t.Fatalf("answered %d %s", answer.Status, answer.Body)
	}
	checkOpen(t, answer.Body, Patient(), []string{"websocket"})
}

func opensWebSocket(t *testing.T, at endpoint) {
	w, err := Dial(at.ctx, at.url, query("EIO", "4", "transport", "websocket"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	frame, err := w.Read(at.ctx)
	if err != nil || frame.Binary {
		t.Fatalf("got binary %t, %v", frame.Binary, err)
	}
	checkOpen(t, frame.Data, Patient(), []string{})
}

func tellsTimers(t *testing.T, at endpoint) {
	answer := at.request(t, http.MethodGet, nil, query("EIO", "4", "transport", "polling"))
	checkOpen(t, answer.Body, Brisk(), []string{"websocket"})
}

// checkOpen holds an open packet against the protocol: these five keys, no other.
func checkOpen(t *testing.T, packet string, want Settings, upgrades []string) {
	t.Helper()
	text, ok := strings.CutPrefix(packet, "0")
	if !ok {
		t.Fatalf("%s is no open packet", packet)
	}
	var keys map[string]json.RawMessage
	if err := json.Unmarshal([]byte(text), &keys); err != nil {
		t.Fatal(err)
	}
	names := slices.Sorted(maps.Keys(keys))
	if !slices.Equal(names, []string{"maxPayload", "pingInterval", "pingTimeout", "sid", "upgrades"}) {
		t.Errorf("the keys are %q", names)
	}
	var open Open
	if err := json.Unmarshal([]byte(text), &open); err != nil {
		t.Fatal(err)
	}
	if open.SID == "" || open.Upgrades == nil || !slices.Equal(open.Upgrades, upgrades) ||
		open.MaxPayload != want.MaxPayload ||
		open.PingInterval != int(want.PingInterval/time.Millisecond) ||
		open.PingTimeout != int(want.PingTimeout/time.Millisecond) {
		t.Errorf("the open packet is %s", text)
	}
}

func answersAsText(t *testing.T, at endpoint) {
	answer := at.request(t, http.MethodGet, nil, query("EIO", "4", "transport", "polling"))
	if kind := strings.ToLower(answer.Header.Get("Content-Type")); kind != "text/plain; charset=utf-8" {
		t.Errorf("Content-Type is %q", kind)
	}
	if cache := answer.Header.Get("Cache-Control"); cache != "no-store" {
		t.Errorf("Cache-Control is %q", cache)
	}
}

func namesSessions(t *testing.T, at endpoint) {
	seen := map[string]bool{}
	for range 20 {
		sid := at.polling(t).Open.SID
		if len(sid) < 20 || url.QueryEscape(sid) != sid || seen[sid] {
			t.Errorf("a session is named %q", sid)
		}
		seen[sid] = true
	}
}

func allowsOrigin(t *testing.T, at endpoint) {
	header := http.Header{"Origin": {allowed}}
	answer := at.request(t, http.MethodGet, header, query("EIO", "4", "transport", "polling"))
	checkAllowed(t, answer)
	refusal := at.request(t, http.MethodGet, header, query("EIO", "4", "transport", "polling", "sid", "nobody"))
	checkAllowed(t, refusal) // else the client sees a network error, and not that its session is gone
}

func checkAllowed(t *testing.T, answer Answer) {
	t.Helper()
	if got := answer.Header.Get("Access-Control-Allow-Origin"); got != allowed && got != "*" {
		t.Errorf("Access-Control-Allow-Origin is %q in the answer %d", got, answer.Status)
	}
}

func answersPreflight(t *testing.T, at endpoint) {
	header := http.Header{
		"Origin":                         {allowed},
		"Access-Control-Request-Method":  {http.MethodPost},
		"Access-Control-Request-Headers": {"content-type,authorization"},
	}
	answer := at.request(t, http.MethodOptions, header, query("EIO", "4", "transport", "polling"))
	if answer.Status != http.StatusNoContent && answer.Status != http.StatusOK || answer.Body != "" {
		t.Errorf("answered %d %q", answer.Status, answer.Body)
	}
	checkAllowed(t, answer)
	methods := answer.Header.Get("Access-Control-Allow-Methods")
	if !strings.Contains(methods, http.MethodPost) || !strings.Contains(methods, http.MethodGet) {
		t.Errorf("Access-Control-Allow-Methods is %q", methods)
	}
	headers := strings.ToLower(answer.Header.Get("Access-Control-Allow-Headers"))
	if !strings.Contains(headers, "content-type") || !strings.Contains(headers, "authorization") {
		t.Errorf("Access-Control-Allow-Headers is %q", headers)
	}
}

func namesNoOtherOrigin(t *testing.T, at endpoint) {
	header := http.Header{"Origin": {"http://elsewhere.example"}}
	answer := at.request(t, http.MethodGet, header, query("EIO", "4", "transport", "polling"))
	if got := answer.Header.Get("Access-Control-Allow-Origin"); cmp.Or(got, allowed) != allowed {
		t.Errorf("Access-Control-Allow-Origin is %q", got)
	}
}

// refuses is a check that such a request is answered 400 with the error's code and
// message, which are the protocol's own.
func refuses(method string, code int, message string, pairs ...string) func(*testing.T, endpoint) {
	return func(t *testing.T, at endpoint) {
		answer := at.request(t, method, nil, query(pairs...))
		type refusal struct {
			Code    int    `json:"code"`
			Message string `json:"message"`
		}
		var got refusal
		if err := json.Unmarshal([]byte(answer.Body), &got); err != nil {
			t.Fatalf("answered %d %q: %v", answer.Status, answer.Body, err)
		}
		if answer.Status != http.StatusBadRequest || got != (refusal{code, message}) {
			t.Errorf("answered %d %s", answer.Status, answer.Body)
		}
		if kind := answer.Header.Get("Content-Type"); !strings.HasPrefix(kind, "application/json") {
			t.Errorf("Content-Type is %q", kind)
		}
	}
}

func refusesWebSocket(pairs ...string) func(*testing.T, endpoint) {
	return func(t *testing.T, at endpoint) {
		w, err := Dial(at.ctx, at.url, query(pairs...))
		var status Refused
		if err == nil {
			w.Close()
			t.Fatal("the WebSocket was accepted")
		}
		if !errors.As(err, &status) || status != http.StatusBadRequest {
			t.Errorf("refused with %v, want 400", err)
		}
	}
}

// opensNoWebSocket is a check that no session opens: refused before the upgrade,
// or closed after it, as the original server does.
func opensNoWebSocket(pairs ...string) func(*testing.T, endpoint) {
	return func(t *testing.T, at endpoint) {
		w, err := Dial(at.ctx, at.url, query(pairs...))
		if err != nil {
			return
		}
		t.Cleanup(w.Close)
		at.closes(t, w)
	}
}
