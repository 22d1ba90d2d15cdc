package cloud

import (
	"encoding/base64"
	"errors"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/plugcast/plugcast/transport/shelly/credential"
	"github.com/plugcast/plugcast/transport/strictjson"
)

// claims are the claims of a code or a token. Only the vendor can verify them: they
// tell which server to ask and until when, and prove no identity.
type claims struct {
	userAPIURL string // the account's server
	userID     string
	issued     time.Time // zero when absent
	expires    time.Time // zero when absent
}

const maxToken = 8 << 10 // bytes

var errToken = errors.New("it is not a token of the Shelly Cloud")

// readClaims reads a JWT without its key. golang-jwt cannot do that, because it checks
// the signing method first.
func readClaims(token string) (claims, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 || len(token) > maxToken {
		return claims{}, errToken
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
	if err != nil {
		return claims{}, errToken
	}
	var body struct {
		UserAPIURL string
		UserID     any // a string (RTE); numbers were seen elsewhere
		Iat, Exp   float64
	}
	if strictjson.Pick(payload, strictjson.Member{Name: "user_api_url", Into: &body.UserAPIURL},
		strictjson.Member{Name: "user_id", Into: &body.UserID},
		strictjson.Member{Name: "iat", Into: &body.Iat}, strictjson.Member{Name: "exp", Into: &body.Exp}) != nil {
		return claims{}, errToken
	}
	return claims{
		userAPIURL: body.UserAPIURL, userID: words(body.UserID), issued: unixTime(body.Iat), expires: unixTime(body.Exp),
	}, nil
}

func unixTime(s float64) time.Time {
	if s <= 0 || s > 1<<40 {
		return time.Time{}
	}
	return time.UnixMilli(int64(s * 1000))
}

// tokens is the vendor's answer to a code or a refresh token. We ignore its expires_in:
// the documented example is wrong by a factor of twelve (measured), and the token has
// an expiry of its own.
type tokens struct {
	AccessToken  string `json:"access_token"`
	RefreshToken string `json:"refresh_token"` // some observers saw it
}

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
