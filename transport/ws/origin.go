package ws

import (
	"net/http"
	"net/url"
	"strings"
)

// sameHost allows requests that come from no page, or from a page of this host.
// The scheme is not compared: TLS may end before this process.
func sameHost(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" {
		return true
	}
	u, err := url.Parse(origin)
	return err == nil && u.Host != "" && strings.EqualFold(u.Host, r.Host)
}
