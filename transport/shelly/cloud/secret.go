package cloud

import (
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"regexp"
	"strings"
)

// DefaultClientID is the vendor's public client (RTE).
const DefaultClientID = "shelly-diy"

// Secret is a credential of the Shelly Cloud. AuthCode is what the owner brought
// from the vendor's login page; the access token is got with it and renewed. It
// never prints: no verb shows what is in it.
type Secret struct {
	AuthCode     string `json:"authCode,omitempty"`
	AccessToken  string `json:"accessToken,omitempty"`
	RefreshToken string `json:"refreshToken,omitempty"`
	ClientID     string `json:"clientId,omitempty"` // default [DefaultClientID]
}

const hidden = "[secret]"

// String hides the secret.
func (Secret) String() string { return hidden }

// GoString hides the secret.
func (Secret) GoString() string { return hidden }

// Format hides the secret from the verbs that do not ask for String.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, hidden) }

// LogValue hides the secret.
func (Secret) LogValue() slog.Value { return slog.StringValue(hidden) }

func (s Secret) clientID() string {
	if s.ClientID == "" {
		return DefaultClientID
	}
	return s.ClientID
}

// sameCredential reports whether both are the same as the owner gave it: what has
// been renewed since does not count.
func (s Secret) sameCredential(other Secret) bool {
	if s.AuthCode == "" && other.AuthCode == "" {
		return s.AccessToken == other.AccessToken && s.clientID() == other.clientID()
	}
	return s.AuthCode == other.AuthCode && s.clientID() == other.clientID()
}

// looksSecret finds what may be a part of a token: a long run of the letters that
// those are made of.
var looksSecret = regexp.MustCompile(`[A-Za-z0-9_-]{24,}|([?&]t=)[^&\s"]+`)

// scrub takes the secrets out of a text that comes from elsewhere: an error of a
// library that shows the URL, the reason of a close frame.
func (s Secret) scrub(text string) string {
	for _, secret := range []string{s.AccessToken, s.AuthCode, s.RefreshToken} {
		if secret != "" {
			text = strings.ReplaceAll(text, secret, hidden)
			text = strings.ReplaceAll(text, url.QueryEscape(secret), hidden)
		}
	}
	return short(looksSecret.ReplaceAllString(text, "$1"+hidden))
}
