package credential

import (
	"encoding/base64"
	"net/url"
	"slices"
	"strings"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/strictjson"
)

// Hosts are the hosts besides Shelly's own, as HOST or HOST:PORT, that cloud accounts
// may be on, with or without TLS. They are for tests and simulators.
type Hosts []string

// Allow reports whether a cloud account may be on the server of the URL: Shelly's or
// one of h. The URL comes from a token whose signature only the vendor can check (RTE),
// so without this check a token could make us dial any address.
func (h Hosts) Allow(u *url.URL) bool {
	if h.Lists(u) {
		return isBare(u) && (u.Scheme == "https" || u.Scheme == "http")
	}
	return IsShelly(u)
}

// Lists reports whether the host of the URL is one of h.
func (h Hosts) Lists(u *url.URL) bool {
	return slices.ContainsFunc(h, func(listed string) bool { return strings.EqualFold(listed, u.Host) })
}

// IsShelly reports whether the URL is that of a server of the Shelly Cloud: https on
// *.shelly.cloud, with the port of its API or of its socket (RTE).
func IsShelly(u *url.URL) bool {
	label, inDomain := strings.CutSuffix(strings.ToLower(u.Hostname()), ".shelly.cloud")
	return u.Scheme == "https" && inDomain && isHostName(label) && isBare(u) && slices.Contains([]string{"", "443", "6113"}, u.Port())
}

// isBare reports whether the URL has only a scheme and a host.
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

// AuthCode has the claims of the code in an OAuth redirect.
type AuthCode struct {
	ClientID string   // the code's sub, required to exchange the code for a token
	UserID   string   // of the account
	APIURL   *url.URL // of the account's server, one of those that [Hosts] allows
}

// maxAuthCode bounds a code, in bytes. Known ones have a few hundred.
const maxAuthCode = 8 << 10

// ParseAuthCode parses the code of an OAuth redirect: a JWT whose claims sub, user_id
// and user_api_url are strings (RTE). Only the vendor can check the signature. An error
// is a [domain.Error] with [domain.CodeInvalidCommand], and shows nothing of the code.
func ParseAuthCode(code string, hosts Hosts) (AuthCode, error) {
	if len(code) > maxAuthCode {
		return AuthCode{}, invalidCode("it is longer than 8 KiB")
	}
	var subject, userID, apiURL string
	payload, ok := payloadOf(code)
	if !ok || strictjson.Pick(payload, strictjson.Member{Name: "sub", Into: &subject}, strictjson.Member{Name: "user_id", Into: &userID},
		strictjson.Member{Name: "user_api_url", Into: &apiURL}) != nil {
		return AuthCode{}, invalidCode("it is not a JWT with each claim once and as a text") // the decoder's errors may quote the code
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

// payloadOf returns the payload of a JWT without checking its signature.
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
	return domain.Invalid(domain.CodeInvalidCommand, "authCode is not the code of a redirect of Shelly's OAuth: "+why)
}
