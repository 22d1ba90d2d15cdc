package credential

import (
	"encoding/base64"
	"net/url"
	"slices"
	"strings"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/strictjson"
)

// Hosts are hosts, as HOST or HOST:PORT, that cloud accounts may be on besides
// those of Shelly, with or without TLS. They are for tests and simulators.
type Hosts []string

// Allow reports whether a cloud account may be on the server of the URL: one of
// Shelly's or of the hosts. The URL comes out of a token whose signature nobody
// here can check (RTE), so without this a token could have us dial anything.
func (h Hosts) Allow(u *url.URL) bool {
	if h.Lists(u) {
		return isBare(u) && (u.Scheme == "https" || u.Scheme == "http")
	}
	return IsShelly(u)
}

// Lists reports whether the host of the URL is one of h itself.
func (h Hosts) Lists(u *url.URL) bool {
	return slices.ContainsFunc(h, func(listed string) bool { return strings.EqualFold(listed, u.Host) })
}

// IsShelly reports whether the URL is that of a server of the Shelly Cloud: https
// on *.shelly.cloud, at the port of its API or that of its socket (RTE).
func IsShelly(u *url.URL) bool {
	label, inDomain := strings.CutSuffix(strings.ToLower(u.Hostname()), ".shelly.cloud")
	return u.Scheme == "https" && inDomain && isHostName(label) && isBare(u) && slices.Contains([]string{"", "443", "6113"}, u.Port())
}

// isBare reports whether the URL has nothing beside scheme and host.
func isBare(u *url.URL) bool {
	return u.User == nil && u.Opaque == "" && u.RawQuery == "" && u.Fragment == "" && (u.Path == "" || u.Path == "/")
}

func isHostName(s string) bool {
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			return false
		}
	}
	return true
}

// AuthCode is what the code of an OAuth redirect says of its account.
type AuthCode struct {
	ClientID string   // the code's sub, which the exchange for a token asks for
	UserID   string   // of the account
	APIURL   *url.URL // of the account's server, one of those that [Hosts] allows
}

// maxAuthCode bounds a code, in bytes. Known ones have a few hundred.
const maxAuthCode = 8 << 10

// ParseAuthCode reads the code of an OAuth redirect: a JWT, whose claims sub,
// user_id and user_api_url are strings (RTE). The signature is the vendor's and
// is not checked. Errors are a [domain.Error] of [domain.CodeInvalidCommand] that
// shows nothing of the code.
func ParseAuthCode(code string, hosts Hosts) (AuthCode, error) {
	if len(code) > maxAuthCode {
		return AuthCode{}, invalidCode("it is longer than 8 KiB")
	}
	var subject, userID, apiURL string
	payload, ok := payloadOf(code)
	if !ok || strictjson.Pick(payload, strictjson.Member{Name: "sub", Into: &subject}, strictjson.Member{Name: "user_id", Into: &userID},
		strictjson.Member{Name: "user_api_url", Into: &apiURL}) != nil {
		return AuthCode{}, invalidCode("it is not a JWT whose claims are texts, each there once") // errors may quote it
	}
	if apiURL == "" {
		return AuthCode{}, invalidCode("it has no user_api_url")
	}
	at, err := url.Parse(apiURL)
	if err != nil || !hosts.Allow(at) {
		return AuthCode{}, invalidCode("its user_api_url is not https on *.shelly.cloud")
	}
	if subject == "" || subject == "pwd" {
		// Only access tokens say pwd (RTE).
		return AuthCode{}, invalidCode("its sub is not that of an authorisation code")
	}
	return AuthCode{ClientID: subject, UserID: userID, APIURL: at}, nil
}

// payloadOf returns the payload of a JWT, without looking at its signature.
func payloadOf(token string) (payload []byte, ok bool) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil, false
	}
	header, err := base64.RawURLEncoding.DecodeString(parts[0])
	if err != nil {
		return nil, false
	}
	if _, err = strictjson.Members(header); err != nil {
		return nil, false
	}
	payload, err = base64.RawURLEncoding.DecodeString(parts[1])
	return payload, err == nil
}

func invalidCode(why string) error {
	return domain.Invalid(domain.CodeInvalidCommand, "authCode is not what the redirect of Shelly's OAuth carries as code: "+why)
}
