package auth

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// Origins are the web origins whose pages may call from a browser, besides the
// server's own. The zero value allows the server's own only.
type Origins struct {
	any    bool
	listed map[string]bool
}

// ParseOrigins reads origins such as https://app.example.com, or "*" for any.
func ParseOrigins(list []string) (Origins, error) {
	o := Origins{listed: map[string]bool{}}
	for _, s := range list {
		if s = strings.TrimSpace(s); s == "*" {
			o.any = true
			continue
		}
		u, err := url.Parse(s)
		if err != nil || u.Scheme == "" || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
			return Origins{}, fmt.Errorf("auth: an allowed origin looks like https://app.example.com, not %q (PLUGCAST_ALLOWED_ORIGINS)", s)
		}
		o.listed[strings.ToLower(u.Scheme+"://"+u.Host)] = true
	}
	return o, nil
}

// Allow reports whether the request may come from where it says. One without an
// Origin does not come from a foreign page. One from the server's own host is
// let in whatever the scheme, because TLS may end before this process.
func (o Origins) Allow(r *http.Request) bool {
	origin := strings.ToLower(r.Header.Get("Origin"))
	if origin == "" || o.any || o.listed[origin] {
		return true
	}
	u, err := url.Parse(origin)
	return err == nil && u.Host != "" && strings.EqualFold(u.Host, r.Host)
}
