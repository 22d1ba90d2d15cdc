package auth

import (
	"net/http"
	"strings"
)

// SubprotocolPrefix precedes a token among the WebSocket subprotocols that a
// browser offers, which is the only header that it can set.
const SubprotocolPrefix = "bearer."

// credential is what a request shows: one of the two, or nothing.
type credential struct {
	token  string
	ticket string
}

// forbiddenParameters are where other platforms take tokens from. URLs end up in
// logs and histories, so such a token is refused even when it is valid: its
// owner should know.
var forbiddenParameters = []string{"token", "access_token"}

// credentialOf finds the credential of a request. A header wins over a ticket,
// which then stays unused.
func credentialOf(r *http.Request) (credential, error) {
	query := r.URL.Query()
	for _, name := range forbiddenParameters {
		if query.Has(name) {
			return credential{}, refuse(CodeTokenInvalid,
				"a token in a URL is refused, because URLs are kept in logs: use Authorization: Bearer, "+
					"the WebSocket subprotocol bearer.<token>, or a ticket of POST /api/v1/tickets in ?ticket=")
		}
	}
	if header := r.Header.Get("Authorization"); header != "" {
		scheme, token, _ := strings.Cut(header, " ")
		token = strings.TrimSpace(token)
		if !strings.EqualFold(scheme, "Bearer") || token == "" {
			return credential{}, refuse(CodeTokenInvalid, "the Authorization header must be: Bearer, a space and the token")
		}
		return credential{token: token}, nil
	}
	for _, line := range r.Header.Values("Sec-WebSocket-Protocol") {
		for offer := range strings.SplitSeq(line, ",") {
			if token, ok := strings.CutPrefix(strings.TrimSpace(offer), SubprotocolPrefix); ok && token != "" {
				return credential{token: token}, nil
			}
		}
	}
	return credential{ticket: query.Get("ticket")}, nil
}
