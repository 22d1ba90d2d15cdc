package auth

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/plugcast/plugcast/domain"
)

// raw signs a token with exactly this header and these claims.
func raw(header, claims string) string {
	encode := base64.RawURLEncoding.EncodeToString
	text := encode([]byte(header)) + "." + encode([]byte(claims))
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(text))
	return text + "." + encode(mac.Sum(nil))
}

const hs256 = `{"alg":"HS256","typ":"JWT"}`

// refused checks that a token is refused with [CodeTokenInvalid] and the given words.
func refused(t *testing.T, a *Verifier, name, token, words string) {
	t.Helper()
	actor, err := a.Verify(t.Context(), token)
	switch {
	case words == "" && err != nil:
		t.Errorf("%s: %v", name, err)
	case words != "" && !domain.HasCode(err, CodeTokenInvalid):
		t.Errorf("%s: want %s, got %+v, %v", name, CodeTokenInvalid, actor, err)
	case words != "" && !strings.Contains(domain.AsError(err).Detail, words):
		t.Errorf("%s: want %q in %q", name, words, domain.AsError(err).Detail)
	}
}

// A time that RFC 3339 cannot express once crashed the process, because everything that
// stores an actor writes its expiry.
func TestTimesHaveBounds(t *testing.T) {
	t.Parallel()
	a := newAuthenticator(t, Config{Secret: secret}, nil)
	soon := time.Now().Add(time.Hour)
	tooFar := "is more than a hundred years away; is it in milliseconds?"
	for _, c := range []struct{ value, words string }{
		{fmt.Sprint(soon.Unix()), ""},
		{fmt.Sprint(soon.Unix()) + ".75", ""},
		{fmt.Sprintf("%e", float64(soon.Unix())), ""},
		{fmt.Sprint(time.Now().AddDate(99, 0, 0).Unix()), ""},
		{fmt.Sprint(time.Now().AddDate(101, 0, 0).Unix()), tooFar},
		{fmt.Sprint(soon.UnixMilli()), tooFar},
		{fmt.Sprint(soon.UnixNano()), tooFar},
		{"253402300800", tooFar}, // the first second that RFC 3339 cannot write
		{"9223372036854775807", tooFar},
		{"9223372036854775808", tooFar},
		{"1e300", tooFar},
		{"1e400", tooFar},
		{"-1", "is before 1970"},
		{"-1e400", "is before 1970"},
		{`"` + fmt.Sprint(soon.Unix()) + `"`, "must be a number of seconds"},
		{`"NaN"`, "must be a number of seconds"},
		{`true`, "must be a number of seconds"},
		{`[1]`, "must be a number of seconds"},
		{`{}`, "must be a number of seconds"},
		{`NaN`, "the token is not a JSON Web Token"},
	} {
		for _, claim := range []string{"exp", "nbf", "iat"} {
			exp := ""
			if claim != "exp" {
				exp = fmt.Sprintf(`,"exp":%d`, soon.Unix())
			}
			words := c.words
			if strings.HasPrefix(words, "is ") || strings.HasPrefix(words, "must ") {
				words = claim + " " + words
			}
			if claim == "nbf" && words == "" {
				words = "not valid yet"
			}
			refused(t, a, claim+" "+c.value, raw(hs256, `{"sub":"m","role":"viewer","systems":["s"],"`+claim+`":`+c.value+exp+`}`), words)
		}
	}
	refused(t, a, "null exp", raw(hs256, `{"sub":"m","role":"viewer","systems":["s"],"exp":null}`), "lacks a required claim")
}

// All readers of one token must interpret it alike, and encoding/json reads Role as
// role.
func TestClaimsAreReadToTheLetter(t *testing.T) {
	t.Parallel()
	a := newAuthenticator(t, Config{Secret: secret, Audience: "us"}, nil)
	rest := fmt.Sprintf(`"sub":"m","aud":"us","exp":%d`, hour().Unix())
	token := raw(hs256, `{"role":"viewer","Role":"staff","systems":["s"],"Systems":["*"],"SYSTEMID":"x","Sub":"root",`+rest+`}`)
	actor, err := a.Verify(t.Context(), token)
	if err != nil || actor.Role != domain.RoleViewer || actor.AllSystems || len(actor.Systems) != 1 || actor.Subject != "m" {
		t.Errorf("claims of another case: %+v, %v", actor, err)
	}
	for name, c := range map[string]struct{ claims, words string }{
		"other case alone":    {`"Role":"staff","systems":["s"],`, "role must be one of"},
		"other case, systems": {`"role":"viewer","Systems":["s"],`, "names no system"},
		"role twice":          {`"role":"viewer","role":"staff","systems":["s"],`, "role: appears twice"},
		"escaped":             {`"role":"viewer","r\u006fle":"staff","systems":["s"],`, "role: appears twice"},
		"systems twice":       {`"role":"viewer","systems":["s"],"systems":["*"],`, "systems: appears twice"},
		"exp twice":           {`"role":"viewer","systems":["s"],"exp":1,`, "exp: appears twice"},
		"unknown twice":       {`"role":"viewer","systems":["s"],"x":1,"x":2,`, "x: appears twice"},
		"not UTF-8":           {"\"role\":\"viewer\",\"systems\":[\"s\"],\"x\":\"\xff\",", "is not UTF-8"},
		"systems a string":    {`"role":"viewer","systems":"s",`, "systems must be a list of strings"},
		"systems of numbers":  {`"role":"viewer","systems":[1],`, "systems must be a list of strings"},
		"role a list":         {`"role":["viewer"],"systems":["s"],`, "role must be a string"},
		"systemId a list":     {`"role":"viewer","systemId":["s"],`, "systemId must be a string"},
	} {
		refused(t, a, name, raw(hs256, `{`+c.claims+rest+`}`), c.words)
	}
	for name, sub := range map[string]string{
		"number": `7`, "NUL": `"a\u0000b"`, "half a pair": `"\ud800"`, "delete": `"a\u007f"`, "C1": `"a\u0085b"`,
	} {
		refused(t, a, "sub: "+name, raw(hs256, `{"role":"viewer","systems":["s"],"aud":"us","exp":4000000000,"sub":`+sub+`}`), "sub must be")
	}
	for name, claims := range map[string]string{"an array": `[]`, "a string": `"x"`, "null": `null`} {
		refused(t, a, name, raw(hs256, claims), "claims cannot be read")
	}
}

func TestHeader(t *testing.T) {
	t.Parallel()
	a := newAuthenticator(t, Config{Secret: secret}, nil)
	claims := fmt.Sprintf(`{"sub":"m","role":"viewer","systems":["s"],"exp":%d}`, hour().Unix())
	for name, c := range map[string]struct{ header, words string }{
		"least":             {`{"alg":"HS256"}`, ""},
		"lower case typ":    {`{"alg":"HS256","typ":"jwt"}`, ""},
		"access token":      {`{"alg":"HS256","typ":"at+jwt"}`, ""},
		"whole media type":  {`{"alg":"HS256","typ":"application/at+JWT"}`, ""},
		"unknown member":    {`{"alg":"HS256","x":{"y":[1]},"jku":"https://evil.example","jwk":{}}`, ""},
		"in base64":         {`{"alg":"HS256","b64":true}`, ""},
		"logout token":      {`{"alg":"HS256","typ":"logout+jwt"}`, "typ must be JWT or at+jwt"},
		"typ a number":      {`{"alg":"HS256","typ":1}`, "typ must be"},
		"crit":              {`{"alg":"HS256","crit":["exp"],"exp":1}`, "crit"},
		"crit is empty":     {`{"alg":"HS256","crit":[]}`, "crit"},
		"unencoded":         {`{"alg":"HS256","b64":false,"crit":["b64"]}`, "crit"},
		"unencoded, silent": {`{"alg":"HS256","b64":false}`, "b64"},
		"alg twice":         {`{"alg":"none","alg":"HS256"}`, "alg: appears twice"},
		"alg twice, back":   {`{"alg":"HS256","alg":"none"}`, "alg: appears twice"},
		"alg escaped":       {`{"alg":"HS256","\u0061lg":"none"}`, "alg: appears twice"},
		"alg of other case": {`{"Alg":"HS256"}`, "this server accepts"},
		"alg lower case":    {`{"alg":"hs256"}`, "this server accepts"},
		"alg a list":        {`{"alg":["HS256"]}`, "this server accepts"},
		"not UTF-8":         {"{\"alg\":\"HS256\",\"x\":\"\xff\"}", "is not UTF-8"},
		"an array":          {`["HS256"]`, "must be an object"},
		"deep":              {`{"alg":"HS256","x":` + strings.Repeat("[", 11_000) + `}`, "header cannot be read"},
	} {
		refused(t, a, name, raw(c.header, claims), c.words)
	}
}

func TestSignHasBounds(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for _, after := range []time.Duration{-time.Hour, 0, time.Nanosecond, 101 * 366 * 24 * time.Hour, 1<<63 - 1} {
		actor := domain.Actor{Subject: "m", Role: domain.RoleViewer, Systems: []domain.SystemID{"s"}, ExpiresAt: now.Add(after)}
		if token, err := (Config{Secret: secret}).Sign(actor, now); err == nil {
			t.Errorf("signed for %v: %s", after, token)
		}
	}
}
