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

// Secret is a credential of the Shelly Cloud. The owner gets AuthCode from the
// vendor's login page, and the session exchanges it for access tokens. No verb prints a
// part of a Secret.
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

// Format hides the secret from the verbs that do not call String.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, hidden) }

// LogValue hides the secret.
func (Secret) LogValue() slog.Value { return slog.StringValue(hidden) }

func (s Secret) clientID() string {
	if s.ClientID == "" {
		return DefaultClientID
	}
	return s.ClientID
}

// sameCredential reports whether the owner gave both. Renewed tokens do not count.
func (s Secret) sameCredential(other Secret) bool {
	if s.AuthCode == "" && other.AuthCode == "" {
		return s.AccessToken == other.AccessToken && s.clientID() == other.clientID()
	}
	return s.AuthCode == other.AuthCode && s.clientID() == other.clientID()
}

// looksSecret matches a possible part of a token: a long run of base64url letters.
var looksSecret = regexp.MustCompile(`[A-Za-z0-9_-]{24,}|([?&]t=)[^&\s"]+`)

// scrub removes secrets from a text of another party, such as a library's error with
// the URL in it, or the reason of a close frame.
func (s Secret) scrub(text string) string {
	for _, secret := range []string{s.AccessToken, s.AuthCode, s.RefreshToken} {
		if secret != "" {
			text = strings.ReplaceAll(text, secret, hidden)
			text = strings.ReplaceAll(text, url.QueryEscape(secret), hidden)
		}
	}
	return short(looksSecret.ReplaceAllString(text, "$1"+hidden))
}
