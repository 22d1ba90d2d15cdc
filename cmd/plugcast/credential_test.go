package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/shelly/credential"
	"github.com/plugcast/plugcast/transport/testpeer/shellycloud"
)

// secretKey is a key of PLUGCAST_SECRET_KEY that differs by its letter.
func secretKey(letter string) string {
	return base64.StdEncoding.EncodeToString([]byte(strings.Repeat(letter, credential.KeySize)))
}

// The life of connections over HTTP, on the real stores.
func TestConnectionsOverHTTP(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	d.env = append(d.env, "PLUGCAST_SECRET_KEY="+secretKey("a"), "PLUGCAST_LOG_LEVEL=debug")
	n := d.start(t, "", "--cloud-hosts", "127.0.0.1:4000")
	sol, luna := n.base+"/api/v1/systems/sol/connections", n.base+"/api/v1/systems/luna/connections"
	admin, other := testToken(t, domain.RoleAdmin, "sol"), testToken(t, domain.RoleAdmin, "luna")
	type answer struct {
		ConnectionID string
		Connection   *domain.Connection
		DialInURL    string
		Code         string
	}
	var made, cloud, problem, again answer
	mustCall(t, 201, "POST", sol, admin, `{"connectionId":"acc1","kind":"shelly-outbound"}`, &made)
	if made.Connection == nil || !strings.HasPrefix(made.DialInURL, strings.Replace(n.base, "http", "ws", 1)+"/shelly/acc1/") {
		t.Errorf("%+v", made)
	}
	mustCall(t, 409, "POST", sol, admin, `{"connectionId":"acc1","kind":"shelly-outbound"}`, &problem)
	if problem.Code != "connection-exists" {
		t.Errorf("%+v", problem)
	}
	var namesake answer
	mustCall(t, 201, "POST", luna, other, `{"connectionId":"acc1","kind":"shelly-outbound"}`, &namesake) // ids are a system's own
	if namesake.DialInURL == made.DialInURL {
		t.Errorf("two systems have the dial-in URL %s", made.DialInURL)
	}
	shelly := shellycloud.New(shellycloud.Config{})
	t.Cleanup(shelly.Close)
	code := shelly.AddAccount("6550", "http://127.0.0.1:4000").AuthCode()
	mustCall(t, 201, "POST", sol, admin, map[string]string{"kind": "shelly-cloud", "authCode": code}, &cloud, "Idempotency-Key", "k")
	mustCall(t, 201, "POST", sol, admin, map[string]string{"kind": "shelly-cloud", "authCode": code}, &again, "Idempotency-Key", "k")
	if cloud.Connection == nil || again.ConnectionID != cloud.ConnectionID {
		t.Errorf("%+v, again %+v", cloud, again)
	}
	foreign := shelly.AddAccount("6551", "https://evil.example").AuthCode()
	_, _, raw, err := call(t.Context(), "POST", sol, admin, map[string]string{"kind": "shelly-cloud", "authCode": foreign})
	if err != nil || json.Unmarshal(raw, &problem) != nil || problem.Code != "invalid-command" || strings.Contains(string(raw), foreign[:20]) {
		t.Errorf("%s, %v", raw, err)
	}
	header := mustCall(t, 200, "PATCH", sol+"/acc1?wait=5s", admin, `{"rotateKey":true}`, &again)
	if again.DialInURL == "" || again.DialInURL == made.DialInURL {
		t.Errorf("%+v", again)
	}
	mustCall(t, 200, "DELETE", sol+"/acc1?wait=5s", admin, nil, nil, "If-Match", header.Get("ETag"))
	mustCall(t, 201, "POST", sol, admin, `{"connectionId":"acc1","kind":"shelly-outbound"}`, &made) // free again

	conn, err := pgx.Connect(t.Context(), d.postgres)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	var dump string
	if err := conn.QueryRow(t.Context(), `SELECT coalesce((SELECT string_agg(h::text, '') FROM history h), '') ||
		(SELECT string_agg(s::text || encode(coalesce(sealed, ''), 'escape'), '') FROM connection_secrets s)`).Scan(&dump); err != nil {
		t.Fatal(err)
	}
	dump += n.output.String()
	for _, secret := range []string{code, foreign, made.DialInURL[strings.LastIndex(made.DialInURL, "/")+1:], secretKey("a")} {
		if strings.Contains(dump, secret) {
			t.Errorf("%s shows in the database or the log", secret)
		}
	}
	if !strings.Contains(dump, "connection-deleted") || !strings.Contains(dump, "/connections") {
		t.Error("the database or the log was not looked at")
	}
}
