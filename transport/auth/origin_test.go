package auth

import (
	"net/http/httptest"
	"strings"
	"testing"
)

func TestOriginForms(t *testing.T) {
	t.Parallel()
	for listed, cases := range map[string]map[string]bool{
		"https://app.example.net": {
			"https://app.example.net": true, "https://app.example.net:443": true, "http://app.example.net": false,
			"https://x.app.example.net": false,
		},
		"https://app.example.net:443/": {"https://app.example.net": true, "https://app.example.net:8443": false},
		"HTTP://App.Example.NET:80":    {"http://app.example.net": true},
		" http://localhost:03000 ":     {"http://localhost:3000": true, "http://localhost": false, "https://localhost:3000": false},
		"https://Bücher.example":       {"https://xn--bcher-kva.example": true},
		"https://faß.example":          {"https://xn--fa-hia.example": true, "https://fass.example": false},
		"https://例え。テスト":               {"https://xn--r8jz45g.xn--zckzah": true},
		"https://my_app.example.net":   {"https://my_app.example.net": true},
		"http://[0:0::1]:8080":         {"http://[::1]:8080": true},
		"http://[::ffff:192.0.2.1]":    {"http://[::ffff:c000:201]": true},
		"http://192.0.2.1":             {"http://192.0.2.1": true},
		"capacitor://localhost":        {"capacitor://localhost": true, "http://localhost": false},
		"https://*.example.net": {
			"https://a.example.net": true, "https://a.b.example.net": true, "https://example.net": false, "https://evilexample.net": false,
			"http://a.example.net": false, "https://a.example.net:8443": false, "https://.example.net": false, "https://a.example.net.evil": false,
		},
		"https://*.Bücher.example:8443": {"https://a.xn--bcher-kva.example:8443": true, "https://a.xn--bcher-kva.example": false},
		"http://*.localhost:3000":       {"http://clinic.localhost:3000": true},
		"*":                             {"https://anything.example": true, "null": true},
		"https://other.example": {
			"": true, "null": false, "https://server.example": true, "http://server.example": true, "https://server.example:443": true,
			"https://server.example:8443": false, "https://server.example.evil": false, "nonsense": false, "https://user@server.example": false,
		},
	} {
		origins, err := ParseOrigins([]string{listed})
		if err != nil {
			t.Errorf("%s: %v", listed, err)
			continue
		}
		for from, want := range cases {
			r := httptest.NewRequest("GET", "/", nil)
			r.Host = "server.example"
			if from != "" {
				r.Header.Set("Origin", from)
			}
			if got := origins.Allow(r); got != want {
				t.Errorf("%s: a page of %q is allowed: %v", listed, from, got)
			}
		}
	}
}

// The default port of the scheme is equal to no port.
func TestOwnOrigin(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		host, from string
		want       bool
	}{
		{"app.example:443", "https://app.example", true}, {"app.example:80", "http://app.example", true},
		{"APP.example", "https://app.example", true}, {"127.0.0.1:8080", "http://127.0.0.1:8080", true},
		{"[::1]:8080", "http://[::1]:8080", true}, {"app.example:443", "http://app.example", false},
		{"127.0.0.1:8080", "http://127.0.0.1", false}, {"", "https://app.example", false},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Host = c.host
		r.Header.Set("Origin", c.from)
		if got := (Origins{}).Allow(r); got != c.want {
			t.Errorf("%s asks %s: %v", c.from, c.host, got)
		}
	}
}

func TestOriginsThatNeverMatch(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{
		"", "null", "app.example.net", "//app.example.net", "https://", "https:app.example.net", "https://app.example.net/path",
		"https://app.example.net/?", "https://app.example.net?q=1", "https://app.example.net#top", "https://app.example.net/#",
		"https://user@app.example.net", "https://user:pw@app.example.net", "https://app.example.net:0", "https://app.example.net:99999",
		"https://app.example.net:https", "https://*", "https://*:8443", "https://app.*.net", "https://app*.example.net",
		"https://*app.example.net", "https://*.*.example.net", "**", "*.example.net", "*://app.example.net",
		"https://*.net", "https://*.co.uk", "https://*.127.0.0.1",
		"https://*.[::1]", "https://app..example.net", "https://-\u00e4-\u0301.\u2260", "https://app.example.net,https://b.example.net",
		"https://a b.example", "https://[::1", "https://[fe80::1%25eth0]", "https://127.1", "https://0x7f.0.0.1",
		"https://256.1.1.1", "wss://app.example.net", "file:///index.html", "file://host", "https://app.example.net\\",
		"https://" + strings.Repeat("a", 64) + ".example",
	} {
		if _, err := ParseOrigins([]string{"https://good.example", bad}); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
	_, err := ParseOrigins([]string{"https://app.example.net/path"})
	if err == nil || !strings.Contains(err.Error(), `"https://app.example.net/path"`) {
		t.Errorf("the error does not name the value: %v", err)
	}
}
