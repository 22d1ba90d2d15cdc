package cloud

import (
	"errors"
	"net"
	"net/url"
	"strings"
)

// vendorDomain is where all servers of the Shelly Cloud are.
const vendorDomain = ".shelly.cloud"

// socketPort is the port of the real-time socket (RTE).
const socketPort = "6113"

// errForeignHost says that a token names a server that is not the vendor's. The
// address comes from a token that nobody verified: to follow it anywhere would
// send the account's token there.
var errForeignHost = errors.New("the token names a server that is not the Shelly Cloud's")

// server is where an account lives.
type server struct {
	api    string // https://host
	socket string // wss://host:6113
}

// serverAt checks an account's address, as a token names it. With allow, addresses
// that it says yes to are taken as they are, socket and all.
func serverAt(address string, allow func(*url.URL) bool) (server, error) {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Opaque != "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || len(address) > 512 {
		return server{}, errForeignHost // the error of url.Parse would show the address
	}
	if allow != nil && allow(u) {
		switch u.Scheme {
		case "http":
			return server{api: "http://" + u.Host, socket: "ws://" + u.Host}, nil
		case "https":
			return server{api: "https://" + u.Host, socket: "wss://" + u.Host}, nil
		}
		return server{}, errForeignHost
	}
	host := strings.ToLower(u.Hostname())
	label, inDomain := strings.CutSuffix(host, vendorDomain)
	switch {
	case u.Scheme != "https", !inDomain, !isHostName(label), net.ParseIP(host) != nil,
		u.Path != "" && u.Path != "/":
		return server{}, errForeignHost
	}
	switch u.Port() {
	case "", "443", socketPort:
	default:
		return server{}, errForeignHost
	}
	return server{api: "https://" + host, socket: "wss://" + net.JoinHostPort(host, socketPort)}, nil
}

func isHostName(s string) bool {
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 {
			return false
		}
		for _, c := range label {
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
				return false
			}
		}
	}
	return true
}
