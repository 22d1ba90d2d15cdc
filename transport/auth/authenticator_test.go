package auth

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/go-cmp/cmp"

	"github.com/plugcast/plugcast/domain"
)

var (
	secret  = []byte("0123456789abcdef0123456789abcdef")
	discard = slog.New(slog.NewTextHandler(io.Discard, nil))
)

func hour() time.Time { return time.Now().Add(time.Hour).UTC().Truncate(time.Second) }

func newAuthenticator(t *testing.T, c Config, tickets Tickets) *Verifier {
	t.Helper()
	a, err := New(c, tickets, discard)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// sign makes a token by hand, including tokens that Config.Sign refuses to make.
func sign(t *testing.T, method jwt.SigningMethod, key any, said map[string]any) string {
	t.Helper()
	token, err := jwt.NewWithClaims(method, jwt.MapClaims(said)).SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		config Config
		want   string // in the error, or "" for none
	}{
		"nothing":       {Config{}, "is needed"},
		"both":          {Config{Secret: secret, JWKSURL: "https://id.example.com/keys"}, "exclude each other"},
		"short secret":  {Config{Secret: secret[:31]}, "31 bytes and needs at least 32"},
		"secret":        {Config{Secret: secret}, ""},
		"plain http":    {Config{JWKSURL: "http://id.example.com/keys"}, "must be https"},
		"no URL":        {Config{JWKSURL: "keys"}, "not a URL"},
		"credentials":   {Config{JWKSURL: "https://me:hunter2@id.example.com/"}, "must not contain credentials"},
		"https":         {Config{JWKSURL: "https://id.example.com/keys"}, ""},
		"loopback":      {Config{JWKSURL: "http://127.0.0.1:8080/keys"}, ""},
		"loopback name": {Config{JWKSURL: "http://localhost:8080/keys"}, ""},
	} {
		_, err := New(c.config, nil, discard)
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: want %q, got %v", name, c.want, err)
		case err != nil && strings.Contains(err.Error(), "hunter2"):
			t.Errorf("%s: the error shows the password: %v", name, err)
		}
	}
}

func TestSignedActorComesBack(t *testing.T) {
	t.Parallel()
	c := Config{Secret: secret, Issuer: "plugcast", Audience: "clinics"}
	a := newAuthenticator(t, c, nil)
	for _, actor := range []domain.Actor{
		{Subject: "maria", Role: domain.RoleOperator, Systems: []domain.SystemID{"clinica-sol", "centro-luna"}, ExpiresAt: hour()},
		{Subject: "backend", Role: domain.RoleService, AllSystems: true, ExpiresAt: hour()},
		{Subject: "root", Role: domain.RoleStaff, ExpiresAt: hour()},
	} {
		token, err := c.Sign(actor, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		got, err := a.Verify(t.Context(), token)
		got.ExpiresAt = got.ExpiresAt.UTC()
		if diff := cmp.Diff(actor, got); err != nil || diff != "" {
			t.Errorf("%s: %v %s", actor.Subject, err, diff)
		}
	}
}

func TestSignRefusesWhatVerifyWould(t *testing.T) {
	t.Parallel()
	good := domain.Actor{Subject: "maria", Role: domain.RoleViewer, Systems: []domain.SystemID{"s"}, ExpiresAt: hour()}
	for name, spoil := range map[string]func(*domain.Actor){
		"role":    func(a *domain.Actor) { a.Role = "boss" },
		"subject": func(a *domain.Actor) { a.Subject = "" },
		"system":  func(a *domain.Actor) { a.Systems = []domain.SystemID{"no spaces"} },
		"none":    func(a *domain.Actor) { a.Systems = nil },
		"expiry":  func(a *domain.Actor) { a.ExpiresAt = time.Now().Add(-time.Second) },
	} {
		actor := good
		spoil(&actor)
		if token, err := (Config{Secret: secret}).Sign(actor, time.Now()); err == nil {
			t.Errorf("%s: signed %s", name, token)
		}
	}
	if _, err := (Config{JWKSURL: "https://id.example.com"}).Sign(good, time.Now()); err == nil {
		t.Error("signed without a secret")
	}
}

func TestVerify(t *testing.T) {
	t.Parallel()
	exp := float64(hour().Unix())
	claims := func(change map[string]any) map[string]any {
		said := map[string]any{"sub": "maria", "role": "viewer", "systems": []string{"s"}, "exp": exp, "iss": "us", "aud": "clinics"}
		for name, value := range change {
			if said[name] = value; value == nil {
				delete(said, name)
			}
		}
		return said
	}
	hs := jwt.SigningMethodHS256
	a := newAuthenticator(t, Config{Secret: secret, Issuer: "us", Audience: "clinics"}, nil)
	for name, c := range map[string]struct {
		token string
		code  domain.Code
	}{
		"good":             {sign(t, hs, secret, claims(nil)), ""},
		"one systemId":     {sign(t, hs, secret, claims(map[string]any{"systems": nil, "systemId": "s"})), ""},
		"aud is a list":    {sign(t, hs, secret, claims(map[string]any{"aud": []string{"x", "clinics"}})), ""},
		"just expired":     {sign(t, hs, secret, claims(map[string]any{"exp": time.Now().Add(-5 * time.Second).Unix()})), CodeTokenExpired},
		"expired":          {sign(t, hs, secret, claims(map[string]any{"exp": time.Now().Add(-time.Minute).Unix()})), CodeTokenExpired},
		"no exp":           {sign(t, hs, secret, claims(map[string]any{"exp": nil})), CodeTokenInvalid},
		"not yet":          {sign(t, hs, secret, claims(map[string]any{"nbf": exp})), CodeTokenInvalid},
		"other key":        {sign(t, hs, []byte(strings.Repeat("x", 32)), claims(nil)), CodeTokenInvalid},
		"expired, forged":  {sign(t, hs, []byte(strings.Repeat("x", 32)), claims(map[string]any{"exp": 1})), CodeTokenInvalid},
		"HS512":            {sign(t, jwt.SigningMethodHS512, secret, claims(nil)), CodeTokenInvalid},
		"alg none":         {sign(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, claims(nil)), CodeTokenInvalid},
		"other issuer":     {sign(t, hs, secret, claims(map[string]any{"iss": "them"})), CodeTokenInvalid},
		"no issuer":        {sign(t, hs, secret, claims(map[string]any{"iss": nil})), CodeTokenInvalid},
		"other audience":   {sign(t, hs, secret, claims(map[string]any{"aud": "x"})), CodeTokenInvalid},
		"unknown role":     {sign(t, hs, secret, claims(map[string]any{"role": "boss"})), CodeTokenInvalid},
		"no role":          {sign(t, hs, secret, claims(map[string]any{"role": nil})), CodeTokenInvalid},
		"no subject":       {sign(t, hs, secret, claims(map[string]any{"sub": nil})), CodeTokenInvalid},
		"control in sub":   {sign(t, hs, secret, claims(map[string]any{"sub": "a\nb"})), CodeTokenInvalid},
		"long subject":     {sign(t, hs, secret, claims(map[string]any{"sub": strings.Repeat("a", 129)})), CodeTokenInvalid},
		"no system":        {sign(t, hs, secret, claims(map[string]any{"systems": nil})), CodeTokenInvalid},
		"ill-formed":       {sign(t, hs, secret, claims(map[string]any{"systems": []string{"a b"}})), CodeTokenInvalid},
		"systems a number": {sign(t, hs, secret, claims(map[string]any{"systems": 1})), CodeTokenInvalid},
		"rubbish":          {"rubbish", CodeTokenInvalid},
		"huge":             {strings.Repeat("a", maxToken+1), CodeTokenInvalid},
		"empty":            {"", CodeTokenMissing},
	} {
		_, err := a.Verify(t.Context(), c.token)
		switch {
		case c.code == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case c.code != "" && !domain.HasCode(err, c.code):
			t.Errorf("%s: want %s, got %v", name, c.code, err)
		case c.code != "" && domain.AsError(err).Kind != domain.KindUnauthenticated:
			t.Errorf("%s: kind %v", name, domain.AsError(err).Kind)
		}
		// Log lines, causes included, must not contain any part of the token.
		for cause := err; cause != nil && c.token != ""; cause = errors.Unwrap(cause) {
			for part := range strings.SplitSeq(c.token, ".") {
				if part != "" && strings.Contains(cause.Error(), part) {
					t.Errorf("%s: the error shows the token: %v", name, cause)
				}
			}
		}
	}
}

func TestNarrowAndWideTokens(t *testing.T) {
	t.Parallel()
	a := newAuthenticator(t, Config{Secret: secret}, nil)
	said := map[string]any{"sub": "x", "role": "viewer", "systems": []string{"a", "a", "b"}, "systemId": "c", "exp": hour().Unix()}
	actor, err := a.Verify(t.Context(), sign(t, jwt.SigningMethodHS256, secret, said))
	if diff := cmp.Diff([]domain.SystemID{"a", "b", "c"}, actor.Systems); err != nil || diff != "" || actor.AllSystems {
		t.Errorf("%v %+v %s", err, actor, diff)
	}
	said["systems"] = []string{"*"}
	if actor, err = a.Verify(t.Context(), sign(t, jwt.SigningMethodHS256, secret, said)); err != nil || !actor.AllSystems {
		t.Errorf("%v %+v", err, actor)
	}
}

// onceTickets behaves like streams/tickets, in memory.
type onceTickets struct {
	actors map[string]domain.Actor
	fail   error
}

func (o *onceTickets) Issue(context.Context, domain.Actor) (string, time.Time, error) {
	return "", time.Time{}, errors.ErrUnsupported
}

func (o *onceTickets) Redeem(_ context.Context, ticket string) (domain.Actor, bool, error) {
	actor, ok := o.actors[ticket]
	delete(o.actors, ticket)
	return actor, ok, o.fail
}

func (o *onceTickets) IssueStream(context.Context, domain.Actor, domain.SystemID) (string, time.Time, error) {
	return "", time.Time{}, errors.ErrUnsupported
}

func (o *onceTickets) Stream(_ context.Context, ticket string, system domain.SystemID) (domain.Actor, bool, error) {
	actor, ok := o.actors[string(system)+" "+ticket]
	return actor, ok, o.fail
}

// A ticket for a stream opens that stream, any number of times, and nothing else.
func TestTicketOfAStream(t *testing.T) {
	t.Parallel()
	a := newAuthenticator(t, Config{Secret: secret}, &onceTickets{actors: map[string]domain.Actor{
		"sol t1": {Subject: "maria", ExpiresAt: hour()}, "sol t2": {Subject: "maria", ExpiresAt: time.Now().Add(-time.Second)},
		"once": {Subject: "maria", ExpiresAt: hour()},
	}})
	request := func(ticket string) *http.Request { return httptest.NewRequest("GET", "/?ticket="+ticket, nil) }
	for range 3 {
		if actor, err := a.AuthenticateStream(t.Context(), request("t1"), "sol"); err != nil || actor.Subject != "maria" {
			t.Errorf("%+v, %v", actor, err)
		}
	}
	if _, err := a.AuthenticateStream(t.Context(), request("t1"), "luna"); !domain.HasCode(err, CodeTicketInvalid) {
		t.Errorf("another stream: %v", err)
	}
	if _, err := a.Authenticate(t.Context(), request("t1")); !domain.HasCode(err, CodeTicketInvalid) {
		t.Errorf("another request: %v", err)
	}
	if _, err := a.AuthenticateStream(t.Context(), request("t2"), "sol"); !domain.HasCode(err, CodeTokenExpired) {
		t.Errorf("after the token: %v", err)
	}
	for i, want := range []domain.Code{"", CodeTicketInvalid} {
		if _, err := a.AuthenticateStream(t.Context(), request("once"), "sol"); i == 0 && err != nil || i == 1 && !domain.HasCode(err, want) {
			t.Errorf("one for one use, time %d: %v", i+1, err)
		}
	}
}

func TestAuthenticate(t *testing.T) {
	t.Parallel()
	c := Config{Secret: secret}
	actor := domain.Actor{Subject: "maria", Role: domain.RoleViewer, Systems: []domain.SystemID{"s"}, ExpiresAt: hour()}
	token, err := c.Sign(actor, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	tickets := &onceTickets{actors: map[string]domain.Actor{
		"t1": {Subject: "maria", ExpiresAt: hour()}, "t2": {Subject: "maria", ExpiresAt: hour()},
		"old": {Subject: "maria", ExpiresAt: time.Now().Add(-time.Second)},
	}}
	a := newAuthenticator(t, c, tickets)
	for _, step := range []struct {
		name, target, header, value string
		code                        domain.Code
	}{
		{"bearer", "/", "Authorization", "Bearer " + token, ""},
		{"scheme in lower case", "/", "Authorization", "bearer " + token, ""},
		{"subprotocol", "/", "Sec-WebSocket-Protocol", "plugcast.v1, bearer." + token, ""},
		{"ticket", "/?ticket=t1", "", "", ""},
		{"ticket again", "/?ticket=t1", "", "", CodeTicketInvalid},
		{"header before ticket", "/?ticket=t2", "Authorization", "Bearer " + token, ""},
		{"so the ticket is left", "/?ticket=t2", "", "", ""},
		{"ticket of an expired token", "/?ticket=old", "", "", CodeTokenExpired},
		{"nothing", "/", "", "", CodeTokenMissing},
		{"basic", "/", "Authorization", "Basic bWU6eW91", CodeTokenInvalid},
		{"bare", "/", "Authorization", token, CodeTokenInvalid},
		{"other subprotocol", "/", "Sec-WebSocket-Protocol", "plugcast.v1", CodeTokenMissing},
		{"in the URL", "/?token=" + token, "", "", CodeTokenInvalid},
		{"also in the URL", "/?access_token=" + token, "Authorization", "Bearer " + token, CodeTokenInvalid},
	} {
		r := httptest.NewRequest("GET", step.target, nil)
		if step.header != "" {
			r.Header.Set(step.header, step.value)
		}
		actor, err := a.Authenticate(t.Context(), r)
		switch {
		case step.code == "" && (err != nil || actor.Subject != "maria"):
			t.Errorf("%s: %+v, %v", step.name, actor, err)
		case step.code != "" && !domain.HasCode(err, step.code):
			t.Errorf("%s: want %s, got %v", step.name, step.code, err)
		}
	}
	tickets.fail = errors.New("redis: connection refused")
	_, err = a.Authenticate(t.Context(), httptest.NewRequest("GET", "/?ticket=t3", nil))
	if e := domain.AsError(err); e.Kind != domain.KindUnavailable || strings.Contains(e.Error(), "redis") {
		t.Errorf("broken tickets: %v", err)
	}
}

func TestOrigins(t *testing.T) {
	t.Parallel()
	listed, err := ParseOrigins([]string{" https://App.example.com", "http://localhost:3000/"})
	if err != nil {
		t.Fatal(err)
	}
	every, err := ParseOrigins([]string{"*"})
	if err != nil {
		t.Fatal(err)
	}
	for origin, want := range map[string]struct{ own, listed, every bool }{
		"":                         {true, true, true},
		"http://api.example.com":   {true, true, true}, // the request's own host
		"https://api.example.com":  {true, true, true},
		"https://app.example.com":  {false, true, true},
		"http://localhost:3000":    {false, true, true},
		"http://app.example.com":   {false, false, true},
		"https://evil.example.com": {false, false, true},
		"null":                     {false, false, true},
	} {
		r := httptest.NewRequest("GET", "http://api.example.com/", nil)
		r.Header.Set("Origin", origin)
		if got := (Origins{}).Allow(r); got != want.own {
			t.Errorf("%q: own: %v", origin, got)
		}
		if got := listed.Allow(r); got != want.listed {
			t.Errorf("%q: listed: %v", origin, got)
		}
		if got := every.Allow(r); got != want.every {
			t.Errorf("%q: every: %v", origin, got)
		}
	}
	for _, bad := range []string{"", "app.example.com", "https://app.example.com/path", "https://me@app.example.com"} {
		if _, err := ParseOrigins([]string{bad}); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}
