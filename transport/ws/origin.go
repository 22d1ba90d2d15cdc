package ws

import (
	"net/http"
	"net/url"
	"strings"
)

// sameHost allows requests without an origin, and requests from pages of this host. The
// scheme is not compared, because a proxy may terminate TLS.
func sameHost(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" {
		return true
	}
	u, err := url.Parse(origin)
	return err == nil && u.Host != "" && strings.EqualFold(u.Host, r.Host)
}
