package cloud

import (
	"errors"
	"net"
	"net/url"
	"strings"

	"github.com/plugcast/plugcast/transport/shelly/credential"
)

// socketPort is the port of the real-time socket (RTE).
const socketPort = "6113"

// errForeignHost says that a token names a server that is not the vendor's. Nobody has
// verified the token, so following any address in it could send the account's token
// to a stranger.
var errForeignHost = errors.New("the token names a server that is not the Shelly Cloud's")

// server is the server of an account.
type server struct {
	api    string // https://host
	socket string // wss://host:6113
}

// serverAt checks the address that a token names. It takes an address that allow
// accepts as it is, also for the socket.
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
	if !credential.IsShelly(u) {
		return server{}, errForeignHost
	}
	host := strings.ToLower(u.Hostname())
	return server{api: "https://" + host, socket: "wss://" + net.JoinHostPort(host, socketPort)}, nil
}
