package cloud

import (
	"encoding/base64"
	"errors"
	"strings"
	"time"

	"github.com/plugcast/plugcast/transport/strictjson"
)

// claims are what a code or a token of the vendor's says of itself. Nobody can
// verify it but the vendor: it tells where to ask and until when, never who
// somebody is.
type claims struct {
	userAPIURL string // the account's server
	userID     string
	issued     time.Time // zero when not said
	expires    time.Time // zero when not said
}

const maxToken = 8 << 10 // bytes

var errToken = errors.New("it is not a token of the Shelly Cloud's")

// readClaims reads a JWT without its key, and so without golang-jwt, which would
// look at the signing method first.
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
		UserID     any // a string (RTE); numbers have been seen elsewhere
		Iat, Exp   float64
	}
	if strictjson.Pick(payload, strictjson.Member{Name: "user_api_url", Into: &body.UserAPIURL}, strictjson.Member{Name: "user_id", Into: &body.UserID},
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

// tokens are what the vendor gives for a code or for a refresh token. Its expires_in
// is not read: the example in the documentation is wrong by a factor of twelve
// (measured), and the token says it itself.
type tokens struct {
	AccessToken  string `json:"access_token"`
	RefreshToken string `json:"refresh_token"` // seen by some
}
