package socketio

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/client"
	"github.com/plugcast/plugcast/transport/testpeer/conformance"
)

// attempt connects, and returns the server's answer or reports that the server closed
// the connection.
func (c *testClient) attempt() (text string, closed bool) {
	c.b.t.Helper()
	ws, err := conformance.OpenWebSocket(c.ctx, c.b.endpoint)
	if err != nil {
		c.b.t.Fatal(err)
	}
	defer ws.Close()
	auth, _ := json.Marshal(map[string]string{"token": c.token, "pid": c.pid})
	if err := ws.Send("40" + string(auth)); err != nil {
		c.b.t.Fatal(err)
	}
	f, err := ws.Next(c.ctx)
	return f.Data, err != nil && c.ctx.Err() == nil
}

// An event carries the payload of the old system, then its envelope, then its position.
func TestEventAsTheOldSystemSentIt(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{})
	c := b.joined(sol)
	appended := b.source.Append(sol, &domain.DeviceUpdate{DeviceID: "plug-1", RelayOn: domain.Some(true)})[0]
	e := c.next()
	want := []string{string(appended.Data),
		`{"event":"device-update","position":"` + appended.Position.String() + `","seq":1,"id":"` + appended.ID +
			`","systemId":"clinica-sol","time":"` + domain.FormatTime(appended.Time) + `","actor":"` + appended.Actor + `","version":1}`,
		`"` + appended.Position.String() + `"`}
	var got []string
	for _, arg := range e.args {
		got = append(got, string(arg))
	}
	if diff := cmp.Diff(want, got); e.name != "device-update" || diff != "" {
		t.Errorf("%s: %s", e.name, diff)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{MaxRooms: 1})
	for token, want := range map[string]string{"": "token-invalid", "nonsense": "token-invalid"} {
		refusal := b.client(token).try()
		if !strings.Contains(refusal, want) {
			t.Errorf("with token %q: %s", token, refusal)
		}
	}
	other := b.client("")
	capital := func(string) string { return `{"Token":"eva:clinica-sol","more":{"of":"its own"}}` }
	if refusal := other.tryWith(capital); !strings.Contains(refusal, "token-") {
		t.Errorf("Token passes for token: %s", refusal)
	}
	if text, closed := b.client("broken").attempt(); !closed {
		t.Errorf("who cannot be verified now is told %s, and will not come again", text)
	}
	c := b.client("eva:clinica-sol,centro-luna").connect()
	c.join("clinica-sol")
	for _, refused := range []struct {
		name     string
		argument any
		code     string
	}{
		{"join-system", "elsewhere", "forbidden"},
		{"join-system", "not a name!", "invalid-system-id"},
		{"join-system", 7, "invalid-event"},
		{"join-system", map[string]any{"systemId": "clinica-sol", "aftr": "0-0"}, "invalid-event"},
		{"join-system", map[string]any{"systemId": "clinica-sol", "after": "yesterday"}, "invalid-position"},
		{"join-system", map[string]any{"systemId": "clinica-sol", "types": "a,,b"}, "invalid-filter"},
		{"join-system", map[string]any{"systemId": "clinica-sol", "type": []string{""}}, "invalid-filter"},
		{"join-system", map[string]any{"systemId": "clinica-sol", "deviceId": 7}, "invalid-event"},
		{"join-system", json.RawMessage(`{"systemId":"clinica-sol","after":"0-0","after":"1-0"}`), "invalid-event"},
		{"join-system", json.RawMessage(`{"SystemId":"clinica-sol"}`), "invalid-event"},
		{"join-system", "centro-luna", "too-many-rooms"},
		{"leave-system", "centro-luna", "not-joined"},
		{"join-admin-dashboard", nil, "forbidden"},
		{"device-update", map[string]any{"deviceId": "plug-1"}, "unknown-event"},
		{"authenticate", map[string]any{"token": "ana:clinica-sol"}, "forbidden"},
	} {
		answer := c.ask(nil, refused.name, refused.argument)
		problem, _ := answer["error"].(map[string]any)
		if answer["ok"] != false || problem["code"] != refused.code || problem["detail"] == "" {
			t.Errorf("%s %v: %v", refused.name, refused.argument, answer)
		}
	}
	c.send(`42["join-system","elsewhere"]`) // the client requests no acknowledgement
	if e := c.next(); e.name != "error" || !strings.Contains(string(e.args[0]), `"forbidden"`) {
		t.Errorf("got %s %s", e.name, e.args)
	}
	b.append(sol, 1)
	c.expect("clinica-sol 1") // the client still gets its events
}

// Filters accept the names that the other faces use.
func TestNamesOfFilters(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{MaxRooms: 1})
	b.append(sol, 2)
	for _, members := range []map[string]any{
		{"type": "device-update"}, {"types": "of-tomorrow, device-update"}, {"type": []string{"of-tomorrow"}, "types": []string{"device-update"}},
	} {
		members["systemId"], members["after"] = "clinica-sol", "0-0"
		c := b.client("eva:clinica-sol").connect()
		c.join(members)
		c.expect("clinica-sol 1")
		c.expect("clinica-sol 2")
	}
	c := b.client("eva:clinica-sol").connect()
	c.join(map[string]any{"systemId": "clinica-sol", "after": "0-0", "deviceId": "nobody"})
	c.join(map[string]any{"systemId": "clinica-sol", "after": "0-0", "types": []string{"device-update"}})
	c.expect("clinica-sol 1") // the second filter has replaced the first
}

// The server also accepts a token in a header, which programs can set, and never one in
// the URL.
func TestTokenOfTheHandshake(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{})
	for _, try := range []struct{ query, header, want string }{
		{"", "Bearer eva:clinica-sol", "40{"},
		{"", "Bearer nonsense", "44{"},
		{"&token=eva:clinica-sol", "", "44{"},
	} {
		url := b.endpoint + "?EIO=4&transport=polling" + try.query
		request := func(method, url, body string) string {
			r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			if try.header != "" {
				r.Header.Set("Authorization", try.header)
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
			return string(text)
		}
		var open struct{ SID string }
		if err := json.Unmarshal([]byte(request("GET", url, "")[1:]), &open); err != nil {
			t.Fatal(err)
		}
		url += "&sid=" + open.SID
		request("POST", url, "40")
		if got := request("GET", url, ""); !strings.HasPrefix(got, try.want) {
			t.Errorf("query %q, header %q: %s", try.query, try.header, got)
		}
	}
}

// A disconnected client learns the reason. The unmodified library does not reconnect
// after a disconnect packet, but does after a plain close.
func TestForcedDisconnect(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{})
	for _, reconnect := range []bool{false, true} {
		c := b.joined(sol)
		other := b.client("eva:centro-luna").connect()
		other.join("centro-luna")
		in := func(s domain.Socket) bool { return len(s.Systems) > 0 && s.Systems[0] == sol }
		if n := b.server.Disconnect(in, client.ForcedDisconnect{Reason: "maintenance", CommandID: "c1", Reconnect: reconnect}); n != 1 {
			t.Errorf("%d sockets were thrown out", n)
		}
		if e := c.next(); e.name != "forced-disconnect" || !strings.Contains(string(e.args[0]), `"reason":"maintenance"`) {
			t.Errorf("got %s %s", e.name, e.args)
		}
		f, err := c.ws.Next(c.ctx)
		if disconnected := err == nil && f.Data == "41"; disconnected == reconnect {
			t.Errorf("reconnect %v: got %q, %v", reconnect, f.Data, err)
		}
		b.append(luna, 1)
		if e := other.next(); e.name != "device-update" {
			t.Errorf("the others got %s", e.name)
		}
		other.cut()
	}
	b.ban.Raise("eva", "", domain.Ban{Reason: "maintenance", Until: time.Now().Add(time.Minute)})
	if refusal := b.client("eva:clinica-sol").try(); !strings.Contains(refusal, `"banned"`) {
		t.Errorf("behind the ban: %s", refusal)
	}
}

// A command on one system removes a client from that room. A client in other rooms stays
// connected.
func TestDismissedFromARoom(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{})
	c := b.joined(sol, luna)
	in := func(s domain.Socket) bool { return slices.Contains(s.Systems, sol) }
	if n := b.server.Disconnect(in, client.ForcedDisconnect{Reason: "cleaning", Room: sol}); n != 1 {
		t.Errorf("%d sockets", n)
	}
	if e := c.next(); e.name != "left" || string(e.args[0]) != `{"systemId":"clinica-sol","reason":"cleaning"}` {
		t.Errorf("got %s %s", e.name, e.args)
	}
	b.append(sol, 1)
	b.append(luna, 1)
	if e := c.next(); e.name != "device-update" || !strings.Contains(string(e.args[1]), "centro-luna") {
		t.Errorf("got %s %s", e.name, e.args)
	}
	c.join("clinica-sol")
	if n := b.server.Disconnect(in, client.ForcedDisconnect{Room: luna}); n != 1 {
		t.Errorf("%d sockets", n)
	}
	if n := b.server.Disconnect(in, client.ForcedDisconnect{Room: sol}); n != 1 { // sol is now the client's only room
		t.Errorf("%d sockets", n)
	}
	if e := c.next(); e.name != "left" {
		t.Errorf("got %s", e.name)
	}
	if e := c.next(); e.name != "forced-disconnect" {
		t.Errorf("got %s", e.name)
	}
}

// Init answers pages of allowed origins with 200, as dashboards of the old system
// expect.
func TestInit(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{CheckOrigin: func(r *http.Request) bool { return r.Header.Get("Origin") != "http://foreign.example" }})
	for origin, want := range map[string]int{"": 200, "http://app.example": 200, "http://foreign.example": 403} {
		r := httptest.NewRequest("GET", "/api/socket/init", nil)
		if origin != "" {
			r.Header.Set("Origin", origin)
		}
		w := httptest.NewRecorder()
		b.server.Init(w, r)
		if allowed := w.Header().Get("Access-Control-Allow-Origin"); w.Code != want || want == 200 && allowed != origin {
			t.Errorf("from %q: %d, allowed %q", origin, w.Code, allowed)
		}
	}
}
