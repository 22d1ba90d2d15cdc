package cloud

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/plugcast/plugcast/domain/backoff"
)

func jwtOf(claims []byte) string {
	return "eyJhbGciOiJIUzI1NiJ9." + base64.RawURLEncoding.EncodeToString(claims) + ".c2lnbmF0dXJl"
}

func TestSecretIsHidden(t *testing.T) {
	t.Parallel()
	s := Secret{AuthCode: "code-code", AccessToken: "access-access", RefreshToken: "refresh-refresh", ClientID: "shelly-diy"}
	var logged bytes.Buffer
	slog.New(slog.NewTextHandler(&logged, nil)).Info("x", "secret", s, "pointer", &s)
	slog.New(slog.NewJSONHandler(&logged, nil)).Info("x", "secret", s)
	printed := logged.String() + s.String() + s.GoString()
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%t"} {
		printed += fmt.Sprintf(verb, s) + fmt.Sprintf(verb, &s) + fmt.Sprintf(verb, struct{ S Secret }{s})
	}
	for _, secret := range []string{"code-code", "access-access", "refresh-refresh", "636f6465"} {
		if strings.Contains(printed, secret) {
			t.Errorf("%s is shown in %s", secret, printed)
		}
	}
	raw, err := json.Marshal(s)
	var back Secret
	if err != nil || json.Unmarshal(raw, &back) != nil || back != s {
		t.Errorf("the secret does not survive being kept: %s, %v", raw, err)
	}
}

func TestScrub(t *testing.T) {
	t.Parallel()
	token := jwtOf([]byte(`{"sub":"pwd","user_id":"6550","exp":1786043200}`))
	s := Secret{AccessToken: token, AuthCode: "a+b/c", RefreshToken: "short"}
	for _, text := range []string{
		"dial wss://h:6113/shelly/wss/hk_sock?t=" + token, "code=a%2Bb%2Fc", "code a+b/c", "refresh short", token[40:],
		(&url.Error{Op: "Get", URL: "https://h/?t=xyz-other", Err: errors.New("refused")}).Error(),
	} {
		got := s.scrub(text)
		for _, secret := range []string{token[40:60], "a+b/c", "a%2Bb%2Fc", "short", "xyz-other"} {
			if strings.Contains(got, secret) {
				t.Errorf("%q became %q", text, got)
			}
		}
	}
	if got := s.scrub("dial tcp: lookup shelly-103-eu.shelly.cloud: no such host"); !strings.Contains(got, "shelly-103-eu.shelly.cloud") {
		t.Errorf("too much is hidden: %q", got)
	}
}

func TestClaims(t *testing.T) {
	t.Parallel()
	got, err := readClaims(jwtOf(sample(t, "cloud-oauth-access-token-claims.json")))
	if err != nil || got.userAPIURL != "https://shelly-103-eu.shelly.cloud" || got.userID != "6550" ||
		got.expires.Sub(got.issued) != 12*time.Hour {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err = readClaims(jwtOf(sample(t, "cloud-oauth-code-claims.json"))); err != nil || !got.expires.IsZero() || got.userID != "6550" {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []string{
		"", "a.b", "a.b.c", "a.!.c", jwtOf([]byte("[]")), jwtOf([]byte(`{"exp":"soon"}`)), strings.Repeat("a", 9<<10),
	} {
		if _, err := readClaims(bad); err == nil {
			t.Errorf("%.40q is taken for a token", bad)
		}
	}
	if got, err := readClaims(jwtOf([]byte(`{"exp":1e300,"iat":-5}`))); err != nil || !got.expires.IsZero() || !got.issued.IsZero() {
		t.Errorf("times that are none: %+v, %v", got, err)
	}
	var response tokens
	if err := json.Unmarshal(sample(t, "cloud-oauth-token-response.json"), &response); err != nil || response.AccessToken == "" {
		t.Errorf("%+v, %v", response, err)
	}
}

func TestHost(t *testing.T) {
	t.Parallel()
	for _, good := range []string{
		"https://shelly-103-eu.shelly.cloud", "https://shelly-103-eu.shelly.cloud/", "https://Shelly-103-EU.Shelly.Cloud:6113",
		"https://a.b.shelly.cloud:443",
	} {
		s, err := serverAt(good, nil)
		if err != nil || !strings.HasSuffix(s.api, ".shelly.cloud") || !strings.HasSuffix(s.socket, ".shelly.cloud:6113") ||
			!strings.HasPrefix(s.socket, "wss://") {
			t.Errorf("%s: %+v, %v", good, s, err)
		}
	}
	for _, bad := range []string{
		"", "shelly-103-eu.shelly.cloud", "http://shelly-103-eu.shelly.cloud", "https://shelly.cloud", "https://.shelly.cloud",
		"https://evilshelly.cloud", "https://x.shelly.cloud.evil.example", "https://shelly.cloud.evil.example/.shelly.cloud",
		"https://evil.example#.shelly.cloud", "https://evil.example?.shelly.cloud", "https://evil.example/x.shelly.cloud",
		"https://x.shelly.cloud@evil.example", "https://user:pw@x.shelly.cloud", "https://x.shelly.cloud:8443", "https://127.0.0.1",
		"https://[::1]", "https://169.254.169.254", "https://x.shelly.cloud.", "https://x..shelly.cloud", "https://x y.shelly.cloud",
		"https://x.shelly.cloud/path", "https://x.shelly.cloud/?q", "ftp://x.shelly.cloud", "//x.shelly.cloud", "https:x.shelly.cloud",
		"https://x\x00.shelly.cloud", "https://ﬀ.shelly.cloud", "https://x%2eevil.example%2f.shelly.cloud",
		"https://x.shelly.cloud\\@evil.example",
	} {
		if s, err := serverAt(bad, nil); err == nil {
			t.Errorf("%q is dialled at %+v", bad, s)
		} else if bad != "" && strings.Contains(err.Error(), bad) {
			t.Errorf("the error shows the address: %v", err)
		}
	}
	local := func(u *url.URL) bool { return u.Hostname() == "127.0.0.1" }
	s, err := serverAt("http://127.0.0.1:8080", local)
	if err != nil || s.socket != "ws://127.0.0.1:8080" || s.api != "http://127.0.0.1:8080" {
		t.Errorf("%+v, %v", s, err)
	}
	if _, err := serverAt("http://127.0.0.2:8080", local); err == nil {
		t.Error("another host is allowed with it")
	}
}

func TestThrottle(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		throttles := newThrottles(time.Second)
		one, done := throttles.of("6550")
		shared, alsoDone := throttles.of("6550")
		if one != shared {
			t.Fatal("one account has two throttles")
		}
		begin := time.Now()
		at := func() time.Duration {
			if err := one.wait(t.Context()); err != nil {
				t.Fatal(err)
			}
			return time.Since(begin).Round(time.Second)
		}
		got := []time.Duration{at(), at(), at()}
		one.limited(0) // 2 s
		got = append(got, at())
		one.limited(0) // 4 s
		got = append(got, at())
		one.limited(7 * time.Second)
		got = append(got, at())
		one.answered()
		one.limited(0) // 2 s again
		got = append(got, at())
		one.limited(24 * time.Hour) // nobody waits a day
		got = append(got, at())
		want := []time.Duration{0, 1, 2, 4, 8, 15, 17, 77}
		for i := range want {
			if got[i] != want[i]*time.Second {
				t.Fatalf("requests went out at %v, not %v s", got, want)
			}
		}
		done()
		done() // twice is no more
		alsoDone()
		again, done := throttles.of("6550")
		if again != one {
			t.Error("a new throttle knows nothing of the last request")
		}
		done()
		if err := backoff.Sleep(t.Context(), 2*time.Minute); err != nil {
			t.Fatal(err)
		}
		_, done = throttles.of("another")
		defer done()
		if len(throttles.byAccount) != 1 {
			t.Errorf("%d throttles are kept", len(throttles.byAccount))
		}
	})
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]time.Duration{"": 0, "5": 5 * time.Second, "-1": 0, "soon": 0, "999999999": time.Hour} {
		if got := retryAfter(http.Header{"Retry-After": {value}}); got != want {
			t.Errorf("%q is %s", value, got)
		}
	}
}
