package cloud

import (
	"encoding/base64"
	"errors"
	"strings"
	"time"

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
