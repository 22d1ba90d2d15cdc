package shellycloud

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

type bench struct {
	t     *testing.T
	cloud *Cloud
	url   string
}

func newBench(t *testing.T, cfg Config) *bench {
	t.Helper()
	cloud := New(cfg)
	server := httptest.NewServer(cloud)
	t.Cleanup(server.Close)
	t.Cleanup(cloud.Close)
	return &bench{t: t, cloud: cloud, url: server.URL}
}

func (b *bench) do(r *http.Request) (status int, body map[string]any) {
	b.t.Helper()
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		b.t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	raw, err := io.ReadAll(response.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	_ = json.Unmarshal(raw, &body)
	return response.StatusCode, body
}

func (b *bench) exchange(form url.Values) (status int, token string) {
	b.t.Helper()
	r, err := http.NewRequestWithContext(b.t.Context(), http.MethodPost, b.url+"/oauth/auth", strings.NewReader(form.Encode()))
	if err != nil {
		b.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	status, body := b.do(r)
	token, _ = body["access_token"].(string)
	return status, token
}

func (b *bench) states(token string) (status int, body map[string]any) {
	b.t.Helper()
	r, err := http.NewRequestWithContext(b.t.Context(), http.MethodGet, b.url+"/device/all_status", nil)
	if err != nil {
		b.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	return b.do(r)
}

func (b *bench) dial(token string) (*websocket.Conn, int) {
	b.t.Helper()
	address := "ws" + strings.TrimPrefix(b.url, "http") + "/shelly/wss/hk_sock?t=" + url.QueryEscape(token)
	conn, response, err := websocket.DefaultDialer.DialContext(b.t.Context(), address, nil)
	if response != nil && response.Body != nil {
		defer func() { _ = response.Body.Close() }()
	}
	if err != nil {
		return nil, response.StatusCode
	}
	b.t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		b.t.Fatal(err)
	}
	return conn, http.StatusSwitchingProtocols
}

func TestTokens(t *testing.T) {
	t.Parallel()
	b := newBench(t, Config{RequestEvery: -1})
	a := b.cloud.AddAccount("6550", b.url)
	code := url.Values{"client_id": {"shelly-diy"}, "grant_type": {"code"}, "code": {a.AuthCode()}}
	status, token := b.exchange(code)
	if status != http.StatusOK || strings.Count(token, ".") != 2 {
		t.Fatal(status, token)
	}
	if status, _ := b.states(token); status != http.StatusOK {
		t.Errorf("all_status is %d", status)
	}
	wrong := url.Values{"client_id": {"shelly-diy"}, "grant_type": {"code"}, "code": {"x"}}
	if status, _ := b.exchange(wrong); status != http.StatusUnauthorized {
		t.Errorf("a wrong code is %d", status)
	}
	refresh := url.Values{"client_id": {"shelly-diy"}, "grant_type": {"refresh_token"}, "refresh_token": {"r"}}
	a.SetRefreshToken("r")
	if status, _ := b.exchange(refresh); status != http.StatusOK {
		t.Errorf("a refresh token is %d", status)
	}
	a.ExpireTokens()
	if status, _ := b.exchange(refresh); status != http.StatusUnauthorized {
		t.Errorf("a refresh token without a live access token is %d", status)
	}
	if status, body := b.states(token); status != http.StatusUnauthorized || body["isok"] != false {
		t.Errorf("all_status with an ended token is %d %v", status, body)
	}
	conn, _ := b.dial(token)
	if _, _, err := conn.ReadMessage(); !websocket.IsCloseError(err, 4401) {
		t.Errorf("a socket with an ended token: %v", err)
	}
	a.Revoke()
	if status, _ := b.exchange(code); status != http.StatusUnauthorized {
		t.Errorf("a revoked code is %d", status)
	}
	if c := a.Counts(); c.Sockets != 0 || c.Dials != 1 {
		t.Errorf("%+v", c)
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	b := newBench(t, Config{RequestEvery: time.Hour})
	a := b.cloud.AddAccount("6550", b.url)
	_, token := b.exchange(url.Values{"client_id": {"shelly-diy"}, "grant_type": {"code"}, "code": {a.AuthCode()}})
	if status, _ := b.states(token); status != http.StatusTooManyRequests {
		t.Errorf("a second request within the hour is %d", status)
	}
	b.cloud.Outage(true)
	if status, _ := b.states(token); status != http.StatusServiceUnavailable {
		t.Errorf("a request during an outage is %d", status)
	}
	if _, status := b.dial(token); status != http.StatusServiceUnavailable {
		t.Errorf("a socket during an outage is %d", status)
	}
}

func TestSocket(t *testing.T) {
	t.Parallel()
	b := newBench(t, Config{RequestEvery: -1, RefuseWith: http.StatusForbidden})
	a := b.cloud.AddAccount("6550", b.url)
	d := a.AddDevice("8cbfea9a1b2c", 1)
	d.SetPartial(true)
	if _, status := b.dial("x"); status != http.StatusForbidden {
		t.Errorf("a socket without a token is %d", status)
	}
	_, token := b.exchange(url.Values{"client_id": {"shelly-diy"}, "grant_type": {"code"}, "code": {a.AuthCode()}})
	conn, _ := b.dial(token)
	next := func(parts ...string) {
		t.Helper()
		_, raw, err := conn.ReadMessage()
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range parts {
			if !bytes.Contains(raw, []byte(part)) {
				t.Errorf("%s is not in %s", part, raw)
			}
		}
	}
	d.Press(0, true)
	next(`"Shelly:StatusOnChange"`, `"id":"154755902610220"`, `"output":true`, `"source":"button"`)
	d.SetOnline(false)
	next(`"Shelly:Online"`, `"online":0`)
	d.SetOnline(true)
	next(`"online":1`)
	request := func(frame string) {
		t.Helper()
		if err := conn.WriteMessage(websocket.TextMessage, []byte(frame)); err != nil {
			t.Fatal(err)
		}
	}
	request(`{"event":"Shelly:CommandRequest","trid":10,"deviceId":"154755902610220","data":{"cmd":"relay","params":{"turn":"off","id":0}}}`)
	next(`"Shelly:CommandResponse"`, `"trid":10`, `"isok":true`)
	next(`"output":false`, `"source":"SHC"`)
	request(`{"event":"Shelly:CommandRequest","trid":11,"deviceId":"12133370","data":{"cmd":"relay","params":{"turn":"off","id":0}}}`)
	next(`"trid":11`, `"isok":false`, `"WRONG_ID"`)
	request(`{"event":"Shelly:JrpcRequest","trid":"a","deviceId":"154755902610220",` +
		`"method":"Switch.Set","params":{"id":0,"on":true,"toggle_after":0.01}}`)
	next(`"Shelly:JrpcResponse"`, `"trid":"a"`, `"was_on":false`)
	next(`"output":true`)
	next(`"output":false`, `"source":"timer"`)
	if c := a.Counts(); c.Sockets != 1 || c.Most != 1 || c.Commands != 3 {
		t.Errorf("%+v", c)
	}
}
