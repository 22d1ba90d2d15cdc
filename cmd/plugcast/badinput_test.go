package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/gorilla/websocket"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/testpeer"
)

// Bad input over HTTP gets an answer with a stable code, and appends nothing.
func TestBadRequests(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	n := d.start(t, "")
	const system domain.SystemID = "clinica-sol"
	url := n.base + "/api/v1/systems/" + string(system)
	updates := n.base + "/api/v1/device-updates"
	service, operator := testToken(t, domain.RoleService, system), testToken(t, domain.RoleOperator, system)
	foreign := testToken(t, domain.RoleOperator, "centro-luna")

	item := `{"systemId":"clinica-sol","deviceId":"plug-1","online":true}`
	var accepted struct {
		Positions map[domain.SystemID]domain.PositionRange `json:"positions"`
	}
	mustCall(t, 200, "POST", updates, service, "["+item+"]", &accepted, "Idempotency-Key", "used")
	mustCall(t, 202, "POST", url+"/equipment", operator, `{"equipmentId":"laser-1","name":"Laser"}`, nil)
	mustCall(t, 200, "PUT", url+"/devices/plug-1/assignment?wait=5s", operator, `{"equipmentId":"laser-1"}`, nil)
	mustCall(t, 200, "POST", updates, service, `[{"systemId":"clinica-sol","deviceId":"plug-2"}]`, nil)
	before := len(history(t, n.base, system))
	testpeer.Eventually(t, "the projection", func() bool { before = len(history(t, n.base, system)); return before == 4 })

	batch := make([]string, 1000)
	for i := range batch {
		batch[i] = item
	}
	batch[499] = `{"systemId":"clinica-sol","deviceId":"no spaces"}`
	assignment := url + "/devices/plug-1/assignment"
	for name, c := range map[string]struct {
		method, url, token string
		body               any
		headers            []string
		status             int
		code               string
	}{
		"malformed JSON":    {"POST", updates, service, `[{"systemId":`, nil, 400, "invalid-update"},
		"a 10 MB body":      {"POST", updates, service, "[" + strings.Repeat(" ", 10<<20) + "]", nil, 413, "body-too-large"},
		"an unknown device": {"PUT", url + "/devices/nope/assignment", operator, `{"equipmentId":"laser-1"}`, nil, 404, "unknown-device"},
		"unknown equipment": {"PUT", assignment, operator, `{"equipmentId":"nope"}`, nil, 404, "unknown-equipment"},
		"occupied equipment": {"PUT", url + "/devices/plug-2/assignment", operator,
			`{"equipmentId":"laser-1"}`, nil, 409, "equipment-occupied"},
		"an ill-formed system": {"GET", n.base + "/api/v1/systems/no%20spaces/devices", operator, nil, nil, 400, "invalid-system-id"},
		"an ill-formed item":   {"POST", updates, service, `[{"systemId":"no spaces","deviceId":"d"}]`, nil, 400, "invalid-system-id"},
		"a foreign token":      {"PUT", assignment, foreign, `{"equipmentId":"laser-1"}`, nil, 403, "forbidden"},
		"a foreign item":       {"POST", updates, testToken(t, domain.RoleService, "centro-luna"), "[" + item + "]", nil, 403, "forbidden"},
		"a role that may not":  {"POST", updates, operator, "[" + item + "]", nil, 403, "forbidden"},
		"a bad 500th item":     {"POST", updates, service, "[" + strings.Join(batch, ",") + "]", nil, 400, "invalid-device-id"},
		"an old If-Match":      {"DELETE", assignment, operator, nil, []string{"If-Match", `"1-0"`}, 412, "stale"},
		"a used key": {"POST", updates, service, "[" + item + "," + item + "]",
			[]string{"Idempotency-Key", "used"}, 422, "idempotency-key-reused"},
		"no token":               {"POST", updates, "", "[" + item + "]", nil, 401, "token-missing"},
		"a broken token":         {"POST", updates, "a.b.c", "[" + item + "]", nil, 401, "token-invalid"},
		"a token in the URL":     {"GET", url + "/devices?token=" + operator, "", nil, nil, 401, ""},
		"a batch of 1,001":       {"POST", updates, service, "[" + strings.Repeat(item+",", 1000) + item + "]", nil, 413, "batch-too-large"},
		"an unknown route":       {"GET", n.base + "/api/v1/nope", operator, nil, nil, 404, "not-found"},
		"a method that is not":   {"DELETE", updates, service, nil, nil, 405, "method-not-allowed"},
		"an ill-formed position": {"GET", url + "/snapshot?after-position=x", operator, nil, nil, 400, ""},
	} {
		t.Run(name, func(t *testing.T) {
			status, header, answer, err := call(t.Context(), c.method, c.url, c.token, c.body, c.headers...)
			if err != nil {
				t.Fatal(err)
			}
			var problem struct {
				Code  string `json:"code"`
				Index *int   `json:"index"`
			}
			if err := json.Unmarshal(answer, &problem); err != nil {
				t.Fatalf("status %d: %v in %.300s", status, err, answer)
			}
			if status != c.status || c.code != "" && problem.Code != c.code || problem.Code == "" {
				t.Errorf("status %d %q, want %d %q: %.300s", status, problem.Code, c.status, c.code, answer)
			}
			if kind := header.Get("Content-Type"); kind != "application/problem+json" {
				t.Errorf("content type %q", kind)
			}
			if name == "a bad 500th item" && (problem.Index == nil || *problem.Index != 499) {
				t.Errorf("the answer does not say which item: %s", answer)
			}
		})
	}

	var again struct {
		Positions map[domain.SystemID]domain.PositionRange `json:"positions"`
	}
	mustCall(t, 200, "POST", updates, service, "["+item+"]", &again, "Idempotency-Key", "used")
	if again.Positions[system] != accepted.Positions[system] {
		t.Errorf("a repeat answered %v, the first was %v", again, accepted)
	}
	mustCall(t, http.StatusOK, "POST", updates, service, "["+item+"]", nil) // unharmed
	testpeer.Eventually(t, "the last update", func() bool { return len(history(t, n.base, system)) == before+1 })
}

// Bad frames get an error frame or a close code.
func TestBadFrames(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	n := d.start(t, "")
	viewer := testToken(t, domain.RoleViewer, "clinica-sol")
	join := func(system string) string {
		return fmt.Sprintf(`{"event":"join-system","id":7,"data":{"systemId":%q}}`, system)
	}
	for name, c := range map[string]struct {
		token   string
		kind    int
		message string
		code    string // of the error frame, or ""
		close   int    // code, or 0 when the socket stays open
	}{
		"malformed JSON": {viewer, websocket.TextMessage, `{"event":`, "bad-frame", 4400},
		"a frame over 64 KiB": {viewer, websocket.TextMessage,
			`{"event":"ping","x":"` + strings.Repeat("x", 70<<10) + `"}`, "", websocket.CloseMessageTooBig},
		"a binary frame":    {viewer, websocket.BinaryMessage, join("clinica-sol"), "bad-frame", 4400},
		"no token":          {"", websocket.TextMessage, join("clinica-sol"), "token-missing", 4401},
		"a foreign system":  {viewer, websocket.TextMessage, join("centro-luna"), "forbidden", 0},
		"an ill-formed one": {viewer, websocket.TextMessage, join("no spaces"), "invalid-system-id", 0},
		"an unknown frame":  {viewer, websocket.TextMessage, `{"event":"dance"}`, "unknown-event", 0},
		"the admin room":    {viewer, websocket.TextMessage, `{"event":"join-admin-dashboard"}`, "forbidden", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn, err := dial(t.Context(), n.base, c.token)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			// A socket that is refused at once may be closed before this is written.
			_ = conn.WriteMessage(c.kind, []byte(c.message))
			code := ""
			for code != c.code || c.close != 0 {
				frames, err := readFrames(conn)
				if end := new(websocket.CloseError); errors.As(err, &end) {
					if end.Code != c.close {
						t.Errorf("closed with %d %s, want %d", end.Code, end.Text, c.close)
					}
					break
				} else if err != nil {
					t.Fatal(err)
				}
				for _, f := range frames {
					if f.Event == "error" {
						var data struct{ Code string }
						if err := json.Unmarshal(f.Data, &data); err != nil {
							t.Fatal(err)
						}
						code = data.Code
					}
				}
			}
			if code != c.code {
				t.Errorf("error %q, want %q", code, c.code)
			}
			if c.close == 0 {
				if err := conn.WriteMessage(websocket.TextMessage, []byte(join("clinica-sol"))); err != nil {
					t.Fatal(err)
				}
				for joined := false; !joined; {
					frames, err := readFrames(conn)
					if err != nil {
						t.Fatalf("the socket must stay open: %v", err)
					}
					for _, f := range frames {
						joined = joined || f.Event == "joined" && string(f.ID) == "7"
					}
				}
			}
		})
	}
}
