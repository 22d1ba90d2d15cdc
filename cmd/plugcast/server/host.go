package server

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// knownHosts serves requests that name this server by an IP address, as localhost, or by
// the host of one of the names, which are HOST or HOST:PORT. It answers others with 421
// and the refusal. A browser that a page of the Internet makes ask for 127.0.0.1 under a
// name of the page's own (DNS rebinding) sends that name.
func knownHosts(next http.Handler, names []string, refusal string) http.Handler {
	known := map[string]bool{"localhost": true, "": true} // no browser leaves the host out
	for _, name := range names {
		known[hostName(name)] = true
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := hostName(r.Host)
		if _, err := netip.ParseAddr(name); err != nil && !known[name] {
			http.Error(w, refusal, http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// hostName is the host of HOST:PORT or HOST, as it is compared.
func hostName(address string) string {
	if host, _, err := net.SplitHostPort(address); err == nil {
		address = host
	}
	return strings.ToLower(strings.TrimSuffix(strings.Trim(address, "[] "), "."))
}
